"""Damaged files of every data set: one line that names the file, before the first epoch; nothing of them is kept."""

import os
import random
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from boundary import Input, judge, numbers, seeded
from PIL import Image
from tiny_data import BASES, DATA, write_tiny_data

SHORT = ["--trainer.max_epochs=1"]  # all batches, so that all files are read
FILES = {
    "MNIST": ["MNIST/raw/*"],
    "CIFAR10": ["cifar-10-batches-bin/*.bin"],
    "Brown": ["brown/*/info.txt", "brown/*/m50_*.txt", "brown/*/*.bmp"],
    "UCF101": ["ucf101/ucfTrainTestlist/*", "ucf101/UCF-101/*/*.avi"],
    "ImageNet": ["imagenet/*/*/*.JPEG"],
    "FourQuadrant": ["photographs/*.jpg"],
    "PhotoPatches": ["photographs/*.jpg"],
}
"""What each data set reads."""


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    return write_tiny_data(tmp_path_factory.mktemp("whole"))


def damage(path: Path, random: random.Random) -> str:
    """Damages a file of any format, so that it cannot be read; returns how."""
    content = path.read_bytes()
    kinds: dict[str, Callable[[], Any]] = {
        "empty": lambda: path.write_bytes(b""),
        "cut": lambda: path.write_bytes(content[: max(1, len(content) * random.randrange(5, 60) // 100)]),
        "zeros": lambda: path.write_bytes(bytes(len(content))),
        "noise": lambda: path.write_bytes(random.randbytes(len(content))),
        "text": lambda: path.write_text("<!doctype html><html>404 Not Found</html>\n"),
        "missing": path.unlink,
        "folder": lambda: (path.unlink(), path.mkdir()),
        "pipe": lambda: (path.unlink(), os.mkfifo(path)),
        "loop of links": lambda: (path.unlink(), path.symlink_to(path)),
        "link to nothing": lambda: (path.unlink(), path.symlink_to("nothing")),
    }
    kind = random.choice(sorted(kinds))
    kinds[kind]()
    return kind


def damage_text(path: Path, random: random.Random) -> str:
    """Damages a list of a data set: encodings, words where numbers should be, lines too short."""
    lines = path.read_bytes().splitlines()
    at = random.randrange(len(lines))
    words = lines[at].split()
    kinds: dict[str, list[bytes]] = {
        "latin-1": [*lines[:at], b"caf\xe9 " + lines[at], *lines[at + 1 :]],
        "UTF-16": [path.read_text().encode("utf-16")],
        "NUL": [*lines[:at], b"\0" + lines[at], *lines[at + 1 :]],
        "word for a number": [*lines[:at], b" ".join(b"abc" if word.isdigit() else word for word in words)],
        "negative": [*lines[:at], b" ".join(b"-7" if word.isdigit() else word for word in words), *lines[at + 1 :]],
        "huge": [*lines[:at], b" ".join(b"9" * 30 if word.isdigit() else word for word in words), *lines[at + 1 :]],
        "too short": [*lines[:at], b"7", *lines[at + 1 :]],
        "float": [*lines[:at], b" ".join(word + b".5" if word.isdigit() else word for word in words)],
        "long": [*lines[:at], b"x" * 200_000, *lines[at + 1 :]],
    }
    kind = random.choice(sorted(kinds))
    path.write_bytes(b"\n".join(kinds[kind]) + b"\n")
    return kind


def damage_idx(path: Path, random: random.Random) -> str:
    """Changes the header of an IDX file, or the labels."""
    content = bytearray(path.read_bytes())
    kinds = {"type": (2, 0x0D), "axes": (3, 7), "count": (7, 255), "huge count": (4, 127), "magic": (0, 9)}
    if content[3] == 3:
        kinds |= {"rows": (11, 200), "no rows": (11, 0), "huge rows": (8, 127)}
    else:
        kinds["label"] = (8 + random.randrange(len(content) - 8), 200)
    kind = random.choice(sorted(kinds))
    place, value = kinds[kind]
    content[place] = value
    path.write_bytes(bytes(content))
    return kind


def damage_bmp(path: Path, random: random.Random) -> str:
    """Puts a sheet of another size, depth or format in the place of one."""
    kind = random.choice(["smaller", "larger", "RGB", "1 pixel", "JPEG", "huge header"])
    sheet = Image.open(path)
    match kind:
        case "smaller" | "larger" | "1 pixel":
            side = {"smaller": 512, "larger": 1100, "1 pixel": 1}[kind]
            sheet.resize((side, side)).save(path, format="BMP")
        case "RGB":
            sheet.convert("RGB").save(path, format="BMP")
        case "JPEG":
            sheet.save(path, format="JPEG")
        case "huge header":
            content = bytearray(path.read_bytes())
            content[18:26] = (32000).to_bytes(4, "little") * 2
            path.write_bytes(bytes(content))
    return kind


SOUND = (
    *(
        "missing",
        "JPEG: cut",
        "jpg: cut",
        "avi: cut",
        "JPEG: folder",
        "avi: folder",
    ),  # a picture less, or a part of one
    *("bmp: RGB", "bmp: JPEG", "bmp: larger", "bmp: smaller"),  # sheets of any format, that hold all patches
    *("txt: long", "txt: negative", "txt: huge", "txt: float", "info.txt: too short", "info.txt: cut"),  # still a list
    *("bin: zeros", "bin: cut"),  # black images of class 0; a cut between two images
    "yosemite/m50",  # the pairs of the set that is trained on are drawn, not read
)
"""Damage after which there may still be a sound set."""

USE_ALL = {"FourQuadrant": [f"{DATA}num_images=8"], "PhotoPatches": [f"{DATA}num_images=4"]}


def generate(name: str, random: random.Random) -> Input:
    """Damages a file of a data set in `data`; returns the run that reads it."""
    pattern = random.choice(FILES[name])
    path = random.choice(sorted(Path("data").glob(pattern)))
    special = {".txt": damage_text, ".bmp": damage_bmp}
    how = [damage, special.get(path.suffix, damage_idx if name == "MNIST" else damage)]
    what = f"{path}: {random.choice(how)(path, random)}"
    names = (path.name, str(path.parent), path.parent.name, "of the train list", "of the test list")
    expected = "either" if any(kind in what for kind in SOUND) else "refused"
    return Input(["fit", *BASES[name], *USE_ALL.get(name, []), *SHORT], names, expected, what)


@numbers(35, 700)
def test_a_damaged_file_is_one_line(number, whole, capfd):
    random = seeded("files", number)
    name = sorted(FILES)[number % len(FILES)]
    part = {"CIFAR10": "cifar-10-batches-bin", "Brown": "brown", "UCF101": "ucf101", "ImageNet": "imagenet"}
    folder = part.get(name, "MNIST" if name == "MNIST" else "photographs")
    shutil.copytree(whole / folder, Path("data") / folder)
    judge(generate(name, random), capfd)
    assert not list(Path().rglob("*.building*"))


@numbers(7, 60)
def test_damaged_pictures_and_videos_can_be_skipped(number, whole, capfd):
    random = seeded("skip", number)
    name = ["ImageNet", "UCF101"][number % 2]
    folder = {"UCF101": "ucf101", "ImageNet": "imagenet"}[name]
    shutil.copytree(whole / folder, Path("data") / folder)
    path = random.choice(sorted(Path("data").glob(FILES[name][-1])))
    what = f"{path}: {damage(path, random)}"
    # a set of which all are damaged is an error all the same
    words = ["fit", *BASES[name], *SHORT, f"{DATA}on_error=skip"]
    judge(Input(words, (path.name, path.parent.name, "is left", "all"), "either", what), capfd)


MODES = ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "I;16", "F")


@numbers(10, 60)
def test_every_kind_of_picture_is_read(number, whole, capfd):
    """Formats and modes that are legal, at the smallest sizes."""
    random = seeded("pictures", number)
    mode, side = MODES[number % len(MODES)], random.choice([1, 2, 7, 40, 300])
    rng = np.random.default_rng(number)
    array = rng.integers(0, 255, (side, random.choice([1, side, 3 * side]))).astype(np.uint8)
    image = Image.fromarray(array)
    shutil.copytree(whole / "imagenet", "data/imagenet")
    path = random.choice(sorted(Path("data").glob("imagenet/*/*/*.JPEG")))
    path.unlink()
    suffix = {"CMYK": ".jpg", "F": ".tiff"}.get(mode, ".png")
    if mode == "F":
        image = Image.fromarray(array.astype(np.float32) / 255)
    elif mode == "I;16":
        image = Image.fromarray(array.astype(np.uint16) * 257)
    else:
        image = image.convert(mode)
    image.save(path.with_name(f"ünïcödé {number}{suffix}"))
    judge(Input(["fit", *BASES["ImageNet"], *SHORT], (), "taken", f"{mode} {array.shape}"), capfd)
