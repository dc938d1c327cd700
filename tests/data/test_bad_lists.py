"""Lists of classes, images and videos, and folders of frames: damaged ones are one line that names the file."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from boundary import Input, judge, numbers, seeded
from official_formats import write_hmdb51, write_image_folders
from PIL import Image

MODEL, DATA = "--model.init_args.", "--data.init_args."
SHORT = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=1", "--trainer.limit_val_batches=1"]
IMAGES = [
    *("fit", "--config=configs/imagenet_shift.yaml", f"{MODEL}metrics=[]", f"{DATA}root=data/images"),
    *(f"{DATA}size=32", f"{DATA}test_resolution=40", f"{DATA}batch_size=2", f"{DATA}num_workers=0"),
    *(f"{MODEL}backbone=rook_net", f"{MODEL}backbone_args=null", "--trainer.precision=32-true", *SHORT),
]
VIDEOS = [
    *("fit", "--config=configs/moving_shapes.yaml", f"{MODEL}metrics=[]", "--data=tinv.data.HMDB51"),
    *(f"{DATA}root=data", f"{DATA}size=16", f"{DATA}num_frames=4", f"{DATA}batch_size=2", *SHORT),
]


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("whole")
    write_image_folders(root / "images", classes=2, side=40)
    write_hmdb51(root)
    return root


def damage(path: Path, random) -> str:
    """Damages a list so that it names something else, or cannot be read; returns how."""
    lines = path.read_bytes().splitlines()
    at = random.randrange(len(lines))
    before, line, after = lines[:at], lines[at], lines[at + 1 :]
    texts = {
        "empty": b"",
        "blank": b" \n\t\n\r\n",
        "UTF-16": path.read_text().encode("utf-16"),
        "NUL": b"\n".join([*before, line + b"\0", *after]),
        "other name": b"\n".join([*before, b"no-such " + line, *after]),
        "latin-1": b"\n".join([*before, b"caf\xe9 1", *after]),
        "absolute": b"\n".join([*before, b"/etc/passwd", *after]),
        "very long": b"\n".join([*before, b"x" * 200_000, *after]),
        "page": b"<!doctype html><html>404 Not Found</html>\n",
    }
    files = {
        "folder": lambda: (path.unlink(), path.mkdir()),
        "pipe": lambda: (path.unlink(), os.mkfifo(path)),
        "loop": lambda: (path.unlink(), path.symlink_to(path)),
        "missing": path.unlink,
    }
    kind = random.choice(sorted([*texts, *files]))
    files[kind]() if kind in files else path.write_bytes(texts[kind])
    return kind


def respell(path: Path, random) -> str:
    """Writes a list in another spelling that means the same; returns which."""
    text = path.read_text()
    texts = {
        "CRLF": text.replace("\n", "\r\n").encode(),
        "BOM": b"\xef\xbb\xbf" + text.encode(),
        "no last newline": text.rstrip("\n").encode(),
        "blank lines": ("\n" + text.replace("\n", "\n\n") + "\n\n").encode(),
        "reversed": "".join(reversed(text.splitlines(keepends=True))).encode(),
    }
    kind = random.choice(sorted(texts))
    path.write_bytes(texts[kind])
    return kind


def list_of_images(key: str) -> tuple[Path, list[str]]:
    """Writes a list of all classes or training images; returns it and the run that reads it."""
    train = Path("data/images/train")
    names = [path.name for path in train.iterdir()]
    if key == "train_list":
        names = [str(path.relative_to(train)) for path in train.rglob("*.JPEG")]
    path = Path(f"{key}.txt")
    path.write_text("".join(f"{name}\n" for name in sorted(names)))
    classes = [] if key == "classes" else [f"{DATA}classes=null"]
    return path, [*IMAGES, *classes, f"{DATA}{key}={path}"]


@numbers(8, 150)
def test_a_damaged_list_is_one_line(number, whole, capfd):
    random = seeded("lists", number)
    kind = ["classes", "train_list", "hmdb51"][number % 3]
    if kind == "hmdb51":
        shutil.copytree(whole / "hmdb51", "data/hmdb51")
        path, words = random.choice(sorted(Path("data").rglob("*_test_split1.txt"))), VIDEOS
    else:
        shutil.copytree(whole / "images", "data/images")
        path, words = list_of_images(kind)
    valid = random.random() < 0.25
    how = respell(path, random) if valid else damage(path, random)
    # a list without one of its classes is a list of the others; of "no-such NAME" the first word is the class
    names = (path.name, path.name.partition("_test")[0], str(path.parent), "list")
    judge(Input(words, names, "taken" if valid else "refused", f"{path}: {how}"), capfd)


def damage_frames(folder: Path, random) -> tuple[str, str]:
    """Damages a folder of frames; returns how, and what is to be expected."""
    frames = sorted(folder.iterdir())
    frame = random.choice(frames)
    size = Image.open(frame).size
    kinds = {
        "all gone": ("refused", lambda: [path.unlink() for path in frames]),
        "another size": ("refused", lambda: Image.new("RGB", (size[0] + 1, size[1])).save(frame)),
        "empty": ("refused", lambda: frame.write_bytes(b"")),
        "text": ("refused", lambda: frame.write_text("404")),
        "pipe": ("refused", lambda: (frame.unlink(), os.mkfifo(frame))),
        "folder": ("refused", lambda: (frame.unlink(), frame.mkdir())),
        "cut": ("either", lambda: frame.write_bytes(frame.read_bytes()[:200])),  # found where the frame is read
        "one gone": ("taken", frame.unlink),  # the frames that are there are the video
        "hidden file": ("taken", lambda: (folder / ".hidden.png").write_text("")),
        "other file": ("taken", lambda: (folder / "notes.txt").write_text("")),
        "gray": ("taken", lambda: Image.new("L", size).save(frame)),
        "Unicode": ("taken", lambda: frame.rename(folder / "größe 0001.png")),
    }
    kind = random.choice(sorted(kinds))
    expected, act = kinds[kind]
    act()
    return kind, expected


@numbers(7, 150)
def test_damaged_folders_of_frames_are_one_line(number, whole, capfd):
    random = seeded("frames", number)
    shutil.copytree(whole / "hmdb51", "data/hmdb51")
    pixels = np.random.default_rng(0).integers(0, 256, (4, 24, 32, 3), dtype=np.uint8)
    videos = sorted(path for path in Path("data").rglob("*.avi") if not path.stem.endswith("2"))
    for video in videos:
        video.unlink()
        video.with_suffix("").mkdir()
        for at, frame in enumerate(pixels):
            Image.fromarray(frame).save(video.with_suffix("") / f"frame{at}.png")
    folder = random.choice(videos).with_suffix("")
    kind, expected = damage_frames(folder, random)
    judge(Input(VIDEOS, (folder.name,), expected, f"{folder}: {kind}"), capfd)
