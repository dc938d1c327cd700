import json
import os
from pathlib import Path

import pytest
import torch
from official_formats import write_image_folders

from tinv.data.image_cache import ImageCache
from tinv.data.image_files import find_images
from tinv.data.image_preparation import Middle, WholeImage
from tinv.errors import TinvError


@pytest.fixture
def files():
    write_image_folders(Path("photos"), classes=2, train=3)
    return find_images(Path("photos/train"))


@pytest.mark.parametrize("prepare", [WholeImage(), WholeImage(24), Middle(40, 32, 32)], ids=lambda p: p.name)
@pytest.mark.parametrize("workers", [0, 2])
def test_a_cache_gives_back_what_was_prepared(files, prepare, workers):
    cache = ImageCache(Path("cache"), files, prepare)
    assert not cache.is_there
    cache.build(workers)
    assert cache.is_there
    for number in range(len(files)):
        assert torch.equal(cache.read(number), prepare(files.path(number)))
    again = ImageCache(Path("cache"), files, prepare)
    assert again.is_there
    assert torch.equal(again.read(5), cache.read(5))


def test_other_images_sizes_and_changed_files_are_other_caches(files):
    one = ImageCache(Path("cache"), files, WholeImage(24))
    others = [
        ImageCache(Path("cache"), files, WholeImage(25)),
        ImageCache(Path("cache"), files.take([0, 1]), WholeImage(24)),
    ]
    os.utime(files.path(0), (1, 1))
    others.append(ImageCache(Path("cache"), files, WholeImage(24)))
    assert len({one.place, *(other.place for other in others)}) == 4


def test_an_interrupted_build_leaves_no_cache(files):
    class Stops:
        name = "stops"

        def __call__(self, path):
            if path == files.path(3):
                raise KeyboardInterrupt
            return WholeImage()(path)

    cache = ImageCache(Path("cache"), files, Stops())
    with pytest.raises(KeyboardInterrupt):
        cache.build()
    assert not cache.is_there
    assert list(Path("cache").iterdir()) == []


def test_two_builds_at_once_end_in_one_cache(files):
    cache = ImageCache(Path("cache"), files, WholeImage())

    class Meanwhile:
        name = cache.prepare.name

        def __call__(self, path):
            ImageCache(Path("cache"), files, WholeImage()).build()
            return WholeImage()(path)

    cache.prepare = Meanwhile()
    cache.build()
    assert [place.name for place in Path("cache").iterdir()] == [cache.place.name]
    assert torch.equal(cache.read(0), WholeImage()(files.path(0)))


def test_damaged_files_are_remembered(files):
    files.path(2).write_bytes(b"no image")
    cache = ImageCache(Path("cache"), files, WholeImage())
    cache.build()
    with pytest.raises(TinvError, match="cannot be read as an image"):
        cache.read(2)
    assert cache.read(3).shape[0] == 3
    assert list(json.loads((cache.place / "about.json").read_text())["damaged"]) == [files.names[2].decode()]


def test_a_folder_that_cannot_be_written_is_named(files):
    Path("file").write_text("")
    with pytest.raises(TinvError, match="cannot write an image cache to file"):
        ImageCache(Path("file"), files, WholeImage()).build()


def test_a_file_that_is_not_there_is_an_error_when_it_is_read(files):
    files.path(0).unlink()
    cache = ImageCache(Path("cache"), files, WholeImage())
    cache.build()
    assert cache.read(1).shape[0] == 3
    with pytest.raises(TinvError, match="there is no file"):
        cache.read(0)
