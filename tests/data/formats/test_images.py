import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageOps
from torchvision.transforms.v2.functional import center_crop

from tinv.data.formats.images import find_images, read_pixels, resize_and_center, resize_shorter, subsample_evenly
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
    assert subsample_evenly(found, 2).listed() == "0.jpg\n2.jpg\n"
    assert subsample_evenly(found, 9) is found


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


@pytest.mark.parametrize(("suffix", "mode"), [("png", "I;16"), ("tif", "I;16"), ("tif", "I;16B"), ("ppm", "I")])
def test_sixteen_bits_keep_their_upper_eight(suffix, mode):
    ramp = np.linspace(0, 65535, 64 * 64).round().astype(np.uint16).reshape(64, 64)
    image = Image.fromarray(ramp.astype(np.int32)) if mode == "I" else Image.fromarray(ramp)
    if mode == "I;16B":
        image = Image.frombytes(mode, image.size, ramp.astype(">u2").tobytes())
    path = Path(f"ramp.{suffix}")
    image.save(path) if suffix != "ppm" else path.write_bytes(b"P5 64 64 65535\n" + ramp.astype(">u2").tobytes())
    assert np.abs(read_pixels(path)[0].numpy() - ramp / 257).max() <= 0.5


def test_a_grey_value_can_be_transparent():
    Image.fromarray(np.array([[257, 5140]], np.uint16)).save("grey.png", transparency=5140)
    assert read_pixels(Path("grey.png"))[:, 0].T.tolist() == [[1, 1, 1], [0, 0, 0]]


def test_floats_lie_between_zero_and_one_and_other_ranges_are_refused():
    Image.fromarray(np.array([[0, 0.5, 1]], np.float32)).save("float.tif")
    assert read_pixels(Path("float.tif"))[0].tolist() == [[0, 128, 255]]
    for value in (1.5, -0.1, np.nan):
        Image.fromarray(np.array([[0, value]], np.float32)).save("float.tif")
        with pytest.raises(TinvError, match=r"float\.tif holds floats outside of 0\.\.1"):
            read_pixels(Path("float.tif"))
    Image.fromarray(np.array([[0, 1 << 30]], np.int32)).save("long.tif")
    with pytest.raises(TinvError, match=r"long\.tif holds 32-bit integers"):
        read_pixels(Path("long.tif"))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_images_are_read_upright(orientation):
    path = write("photo.jpg", size=(40, 30), quality=95, exif=Image.Exif())
    image = Image.open(path)
    exif = image.getexif()
    exif[0x0112] = orientation
    image.save("turned.jpg", quality="keep", exif=exif)
    upright = np.asarray(ImageOps.exif_transpose(Image.open("turned.jpg")))
    assert (read_pixels(Path("turned.jpg")).permute(1, 2, 0).numpy() == upright).all()
    assert upright.shape == ((40, 30, 3) if orientation > 4 else (30, 40, 3))


@pytest.mark.parametrize(("width", "height"), [(1, 90), (120, 2), (2, 61)])
def test_a_very_long_image_is_cut_before_it_is_enlarged(width, height):
    write("line.png", size=(width, height))
    pixels = read_pixels(Path("line.png"))
    whole = center_crop(resize_shorter(pixels, 64), [56, 48])
    assert resize_and_center(pixels, 64, 56, 48).shape == (3, 56, 48)
    assert (resize_and_center(pixels, 64, 56, 48).int() - whole.int()).abs().max() <= 1


def test_a_line_of_pixels_needs_no_memory_that_grows_with_its_length():
    long = torch.zeros(3, 200_000, 1, dtype=torch.uint8)
    assert resize_and_center(long, 256, 224, 224).shape == (3, 224, 224)  # 39 GB if all of it were enlarged


def test_hidden_folders_and_those_of_other_programs_hold_no_data():
    for name in ("cat/0.png", "cat/.ipynb_checkpoints/0.png", "cat/__MACOSX/0.png", "dog/0.png", ".git/0.png",
                 "__MACOSX/cat/0.png", "@eaDir/0.png"):  # fmt: skip
        write(f"photos/{name}")
    found = find_images(Path("photos"))
    assert (found.classes, found.listed()) == (("cat", "dog"), "cat/0.png\ndog/0.png\n")


def test_images_beside_class_folders_are_refused_and_other_files_left_out():
    write("photos/cat/0.png")
    Path("photos/labels.csv").write_text("")
    assert find_images(Path("photos")).classes == ("cat",)
    write("photos/preview.png")
    with pytest.raises(TinvError, match=r"photos holds images \(preview.png\) and folders of images \(cat\)"):
        find_images(Path("photos"))
    assert find_images(Path("photos"), ["cat"]).listed() == "cat/0.png\n"
    write("flat/0.png")
    Path("flat/notes").mkdir()
    assert find_images(Path("flat")).listed() == "0.png\n"


def test_pipes_and_dangling_links_are_refused_by_name():
    write("photos/a/0.jpg")
    os.mkfifo("photos/a/1.jpg")
    Path("photos/a/2.jpg").symlink_to("2.jpg")
    found = find_images(Path("photos"))
    assert len(found) == 3
    assert len(found.fingerprint()) == 64
    for number, reason in ((1, "is a named pipe, not a regular file"), (2, "cannot be read")):
        with pytest.raises(TinvError, match=reason):
            read_pixels(found.path(number))
