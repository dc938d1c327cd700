import hashlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tinv.data.image_files import find_images, read_pixels, spread
from tinv.errors import TinvError

MODES = ("RGB", "L", "1", "P", "CMYK", "RGBA", "LA", "I;16")


def write(path: str, size=(40, 30), seed: int = 0, **options) -> Path:
    file = Path(path)
    file.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (*size[::-1], 3), dtype=np.uint8)
    Image.fromarray(pixels).resize(size).save(file, **options)
    return file


@pytest.mark.parametrize("mode", MODES)
def test_every_mode_is_read_as_rgb(mode):
    Image.new(mode, (9, 8)).save("image.tif")
    assert read_pixels(Path("image.tif")).shape == (3, 8, 9)


def test_a_much_larger_photograph_is_decoded_smaller():
    file = write("large.jpg", size=(1600, 1200), quality=100)
    assert read_pixels(file, shorter_side=64).shape == (3, 150, 200)
    assert read_pixels(file, shorter_side=600).shape == (3, 1200, 1600)
    assert read_pixels(file).shape == (3, 1200, 1600)


@pytest.mark.parametrize("share", [0.0, 0.3, 0.95])
def test_a_truncated_jpeg_is_named(share):
    data = write("photo.jpg", size=(200, 200)).read_bytes()
    Path("photo.jpg").write_bytes(data[: int(len(data) * share)])
    with pytest.raises(TinvError, match=r"photo\.jpg cannot be read as an image"):
        read_pixels(Path("photo.jpg"))


def test_images_are_found_in_order_of_classes_and_names():
    for name in ("b/01.jpg", "b/00.jpg", "a/deeper/00.png", "a/notes.txt", ".hidden/00.jpg"):
        write(f"photos/{name}") if not name.endswith("txt") else Path(f"photos/{name}").write_text("")
    found = find_images(Path("photos"))
    assert found.classes == ("a", "b")
    assert found.targets.tolist() == [0, 1, 1]
    assert found.listed() == "a/deeper/00.png\nb/00.jpg\nb/01.jpg\n"
    assert found.sha256() == hashlib.sha256(found.listed().encode()).hexdigest()
    assert found.path(2) == Path("photos/b/01.jpg")
    only = find_images(Path("photos"), ["b"])
    assert (only.classes, only.targets.tolist()) == (("b",), [0, 0])


def test_flat_folders_have_no_classes():
    for number in range(5):
        write(f"photos/{number}.jpg")
    found = find_images(Path("photos"))
    assert (found.classes, found.targets.tolist()) == ((), [-1] * 5)
    assert spread(found, 2).listed() == "0.jpg\n2.jpg\n"
    assert spread(found, 9) is found


def test_what_is_not_there_is_named():
    Path("empty").mkdir()
    write("photos/a/0.jpg")
    Path("photos/b").mkdir()
    for folder, classes, message in (
        ("absent", None, "no folder of images absent"),
        ("empty", None, "empty holds no images"),
        ("photos", None, "the class folder photos/b holds no images"),
        ("photos", ["a", "c"], "photos has no class folder c"),
    ):
        with pytest.raises(TinvError, match=message):
            find_images(Path(folder), classes)


def test_names_that_are_no_utf8_are_kept():
    name = b"photos/a/\xff.jpg"
    write("photos/a/0.jpg").rename(name.decode("utf-8", "surrogateescape"))
    found = find_images(Path("photos"))
    assert read_pixels(found.path(0)).shape == torch.Size([3, 30, 40])
    assert len(found.sha256()) == 64
