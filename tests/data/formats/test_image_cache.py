import json
import os
from pathlib import Path

import pytest
import torch
from official_formats import write_image_folders

from tinv.data.formats.cache_folder import is_built
from tinv.data.formats.image_cache import ImageCache
from tinv.data.formats.image_preparation import Resize, ResizeCenterCrop
from tinv.data.formats.images import find_images
from tinv.errors import TinvError


@pytest.fixture
def files():
    write_image_folders(Path("photos"), classes=2, train=3)
    return find_images(Path("photos/train"))


@pytest.mark.parametrize("prepare", [Resize(), Resize(24), ResizeCenterCrop(40, 32, 32)], ids=lambda p: p.name)
@pytest.mark.parametrize("workers", [0, 2])
def test_a_cache_gives_back_what_was_prepared(files, prepare, workers):
    cache = ImageCache(Path("cache"), files, prepare)
    assert not is_built(cache.cache_dir)
    cache.build(workers)
    assert is_built(cache.cache_dir)
    for number in range(len(files)):
        assert torch.equal(cache.read(number), prepare(files.path(number)))
    again = ImageCache(Path("cache"), files, prepare)
    assert is_built(again.cache_dir)
    assert torch.equal(again.read(5), cache.read(5))


def test_other_images_sizes_and_changed_files_are_other_caches(files):
    one = ImageCache(Path("cache"), files, Resize(24))
    others = [
        ImageCache(Path("cache"), files, Resize(25)),
        ImageCache(Path("cache"), files.take([0, 1]), Resize(24)),
    ]
    os.utime(files.path(0), (1, 1))
    others.append(ImageCache(Path("cache"), files, Resize(24)))
    assert len({one.cache_dir, *(other.cache_dir for other in others)}) == 4


def test_an_interrupted_build_leaves_no_cache(files):
    class Stops:
        name = "stops"

        def __call__(self, path):
            if path == files.path(3):
                raise KeyboardInterrupt
            return Resize()(path)

    cache = ImageCache(Path("cache"), files, Stops())
    with pytest.raises(KeyboardInterrupt):
        cache.build()
    assert not is_built(cache.cache_dir)
    assert list(Path("cache").iterdir()) == []


def test_two_builds_at_once_end_in_one_cache(files):
    cache = ImageCache(Path("cache"), files, Resize())

    class Meanwhile:
        name = cache.prepare.name

        def __call__(self, path):
            ImageCache(Path("cache"), files, Resize()).build()
            return Resize()(path)

    cache.prepare = Meanwhile()
    cache.build()
    assert [folder.name for folder in Path("cache").iterdir()] == [cache.cache_dir.name]
    assert torch.equal(cache.read(0), Resize()(files.path(0)))


def test_damaged_files_are_remembered(files):
    files.path(2).write_bytes(b"no image")
    cache = ImageCache(Path("cache"), files, Resize())
    cache.build()
    with pytest.raises(TinvError, match="cannot be read as an image"):
        cache.read(2)
    assert cache.read(3).shape[0] == 3
    assert list(json.loads((cache.cache_dir / "about.json").read_text())["damaged"]) == [files.names[2].decode()]


def test_a_folder_that_cannot_be_written_is_named(files):
    Path("file").write_text("")
    with pytest.raises(TinvError, match="cannot write an image cache to file"):
        ImageCache(Path("file"), files, Resize()).build()


def test_a_file_that_is_not_there_is_an_error_when_it_is_read(files):
    files.path(0).unlink()
    cache = ImageCache(Path("cache"), files, Resize())
    cache.build()
    assert cache.read(1).shape[0] == 3
    with pytest.raises(TinvError, match="there is no file"):
        cache.read(0)
