"""Damaged caches of images, videos and patches: one line that names the file and says to remove the cache."""

import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from boundary import Input, judge, numbers, seeded
from official_formats import write_brown, write_image_folders, write_ucf101

from tinv.cli import main

MODEL, DATA = "--model.init_args.", "--data.init_args."
SHORT = ["--trainer.max_epochs=1", "--trainer.limit_train_batches=1", "--trainer.limit_val_batches=1"]
RUNS = {
    "images": [
        *("--config=configs/imagenet_shift.yaml", f"{MODEL}metrics=[]", f"{DATA}classes=null", f"{DATA}size=32"),
        *(f"{DATA}test_resolution=40", f"{DATA}batch_size=2", f"{DATA}num_workers=0", f"{DATA}cache_resolution=40"),
        *(f"{MODEL}backbone=rook_net", f"{MODEL}backbone_args=null", "--trainer.precision=32-true"),
    ],
    "videos": [
        *("--config=configs/moving_shapes.yaml", f"{MODEL}metrics=[]", "--data=tinv.data.UCF101"),
        *(f"{DATA}size=16", f"{DATA}num_frames=4", f"{DATA}batch_size=2"),
    ],
    "patches": [
        *("--config=configs/brown.yaml", f"{MODEL}metrics=[]", f"{DATA}num_pairs=8", f"{DATA}batch_size=8"),
        f"{DATA}num_test_pairs=40",
    ],
}


@pytest.fixture(scope="module")
def whole(tmp_path_factory) -> Path:
    """A data set of each kind."""
    root = tmp_path_factory.mktemp("whole")
    write_image_folders(root / "images", classes=2, side=40)
    write_ucf101(root / "videos")
    for number, name in enumerate(("yosemite", "notredame", "liberty")):
        write_brown(root / "patches" / name, points=12 + number)
    return root


def words(kind: str, root: Path, cache: Path) -> list[str]:
    return ["fit", *RUNS[kind], f"{DATA}root={root / kind}", f"{DATA}cache_dir={cache}", *SHORT]


@pytest.fixture
def built(whole, capfd):
    """A function that returns a fresh copy of the caches of a kind, which the first call makes."""

    def copy(kind: str) -> Path:
        cache = whole / "caches" / kind
        if not cache.exists():
            assert main(words(kind, whole, cache)) == 0
        shutil.copytree(cache, "copied")
        return Path("copied").absolute()

    return copy


def damage(path: Path, random) -> str:
    """Damages a file of a cache; returns how."""
    content = path.read_bytes()
    kinds = {
        "empty": lambda: path.write_bytes(b""),
        "cut": lambda: path.write_bytes(content[: random.randrange(len(content) * 9 // 10)]),
        "longer": lambda: path.write_bytes(content + content),
        "zeros": lambda: path.write_bytes(bytes(len(content))),
        "text": lambda: path.write_text("<html>404 Not Found</html>\n"),
        "objects": lambda: path.write_bytes(_objects()),
        "missing": path.unlink,
        "folder": lambda: (path.unlink(), path.mkdir()),
        "pipe": lambda: (path.unlink(), os.mkfifo(path)),
        "loop of links": lambda: (path.unlink(), path.symlink_to(path)),
    }
    kind = random.choice(sorted(kinds))
    kinds[kind]()
    return kind


def _objects() -> bytes:
    np.save("objects.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    return Path("objects.npy").read_bytes()


def sound(name: str, how: str) -> bool:
    """Returns whether a cache may still be used: no sums of pixels are kept, and what has no manifest is made again."""
    return (
        (name.endswith(".bin") and how == "zeros")
        or (name.endswith((".npy", ".npz")) and how == "longer")  # numpy reads what the header names
        or name == "about.json"  # without it the cache is made again; images and patches do not ask what it says
    )


@numbers(9, 200)
def test_a_damaged_cache_is_one_line(number, whole, built, capfd):
    random = seeded("caches", number)
    kind = sorted(RUNS)[number % len(RUNS)]
    cache = built(kind)
    path = random.choice(sorted(path for path in cache.rglob("*") if path.is_file()))
    how = damage(path, random)
    # which of the caches of a set a run of one batch asks is no matter of the cache
    expected = "either" if sound(path.name, how) else "refused"
    judge(Input(words(kind, whole, cache), (str(path), str(path.parent)), expected, f"{path}: {how}"), capfd)
