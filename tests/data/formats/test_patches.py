import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from official_formats import write_brown
from PIL import Image
from torchvision.datasets import phototour

from tinv.data.formats import patches as patch_set
from tinv.data.formats.patches import read_pairs, read_patch_set, write_patch_set
from tinv.errors import TinvError


@pytest.fixture
def folder(tmp_path) -> Path:
    write_brown(tmp_path / "liberty")
    return tmp_path / "liberty"


def read(folder: Path) -> patch_set.PatchSet:
    return read_patch_set(folder, folder.parent / "caches")


def caches(folder: Path) -> list[str]:
    return sorted(os.listdir(folder.parent / "caches"))


def test_patches_points_and_pairs_are_those_torchvision_reads(folder):
    found = read(folder)
    patches = phototour.read_image_file(str(folder), "bmp", len(found))
    assert torch.equal(found.patches, patches)
    assert found.points.tolist() == phototour.read_info_file(str(folder), "info.txt").tolist()
    pairs = read_pairs(found, 40)
    theirs = phototour.read_matches_files(str(folder), "m50_40_40_0.txt")
    assert pairs[:, :2].tolist() == theirs[:, :2].tolist()
    assert (pairs[:, 2] >= 0).tolist() == theirs[:, 2].bool().tolist()
    assert (pairs[pairs[:, 2] >= 0, 2] == found.points[pairs[pairs[:, 2] >= 0, 0]]).all()


def test_sheets_are_read_once(folder, monkeypatch):
    first = read(folder)
    monkeypatch.setattr(patch_set, "_parse", None)
    assert torch.equal(read(folder).patches, first.patches)


def test_a_changed_sheet_is_read_again(folder):
    read(folder)
    Image.fromarray(np.full((1024, 1024), 9, dtype=np.uint8)).save(folder / "patches0000.bmp")
    assert (read(folder).patches[0] == 9).all()


def test_what_is_written_is_read(tmp_path):
    patches = np.random.default_rng(0).integers(0, 256, (300, 64, 64), dtype=np.uint8)
    points = [number // 3 for number in range(300)]
    write_patch_set(tmp_path / "mine", patches, points, np.array([[0, 1], [0, 5]]), [0] * 300)
    found = read(tmp_path / "mine")
    assert np.array_equal(found.patches.numpy(), patches)
    assert found.points.tolist() == points
    assert read_pairs(found, 2).tolist() == [[0, 1, 0], [0, 5, -1]]
    assert torch.equal(phototour.read_image_file(str(tmp_path / "mine"), "bmp", 300), found.patches)


@pytest.mark.parametrize("mode", ["RGB", "P"])
@pytest.mark.parametrize("number", [0, 1])
def test_sheets_of_one_set_may_be_written_in_different_ways(folder, number, mode):
    """Only sheets that begin as an official first one are read without Pillow."""
    official = read(folder).patches.clone()
    sheet = folder / f"patches{number:04d}.bmp"
    with Image.open(sheet) as image:
        other = image.convert(mode)
    if mode == "P":
        # entries of the palette in another order than the greys
        other = other.remap_palette([*range(255, -1, -1)])
    other.save(sheet)
    assert torch.equal(read(folder).patches, official)


def test_an_interrupted_build_leaves_no_cache(folder, monkeypatch):
    cut = patch_set._cut

    def interrupted(sheet: Path, *layout: Any) -> np.ndarray:
        if sheet.name == "patches0001.bmp":
            raise KeyboardInterrupt
        return cut(sheet, *layout)

    with monkeypatch.context() as patched:
        patched.setattr(patch_set, "_cut", interrupted)
        with pytest.raises(KeyboardInterrupt):
            read(folder)
    assert caches(folder) == []
    # as after a kill: a folder that no one finished
    (folder.parent / "caches" / ".building-x").mkdir()
    (folder.parent / "caches" / ".building-x" / "patches.bin").write_bytes(b"half")
    assert len(read(folder)) == 300
    [made] = [name for name in caches(folder) if not name.startswith(".")]
    # nor is a folder taken for a cache that lacks what is written last
    place = folder.parent / "caches" / made
    (place / "about.json").unlink()
    with pytest.raises(TinvError, match="is in the way of a cache of patches; remove it"):
        read(folder)


def break_sheet(folder: Path) -> None:
    sheet = folder / "patches0001.bmp"
    sheet.write_bytes(sheet.read_bytes()[:5000])


def no_image(folder: Path) -> None:
    (folder / "patches0001.bmp").write_bytes(b"nothing")


def no_file(folder: Path) -> None:
    (folder / "patches0001.bmp").unlink()
    (folder / "patches0001.bmp").mkdir()


def gap(folder: Path) -> None:
    shutil.move(folder / "patches0001.bmp", folder / "patches0002.bmp")


def odd_sheet(folder: Path) -> None:
    Image.new("L", (100, 64)).save(folder / "patches0000.bmp")


def small_sheet(folder: Path) -> None:
    Image.new("L", (512, 1024)).save(folder / "patches0001.bmp")


def no_info(folder: Path) -> None:
    (folder / "info.txt").unlink()


def words(folder: Path) -> None:
    with (folder / "info.txt").open("a") as file:
        file.write("seven 0\n")


def longer_info(folder: Path) -> None:
    with (folder / "info.txt").open("a") as file:
        file.write("3 0\n" * 300)


def shorter_info(folder: Path) -> None:
    (folder / "info.txt").write_text("3 0\n" * 256)


def no_sheets(folder: Path) -> None:
    for sheet in folder.glob("*.bmp"):
        sheet.unlink()


@pytest.mark.parametrize(
    ("fault", "message"),
    [
        (break_sheet, r"patches0001\.bmp cannot be read as an image"),
        (no_image, r"patches0001\.bmp cannot be read as an image"),
        (no_file, r"patches0001\.bmp is a folder"),
        (gap, r"patches0001\.bmp is missing: sheets are numbered without gaps, 2 are there"),
        (odd_sheet, r"patches0000\.bmp has 100x64 pixels, which are no sheet of 64x64 patches"),
        (small_sheet, r"patches0001\.bmp has 512x1024 pixels, the first sheet 1024x1024"),
        (no_info, r"info\.txt cannot be read \(No such file"),
        (words, r"info\.txt is not 1 integers a line.*seven"),
        (longer_info, r"info\.txt lists 600 patches, the 2 sheets beside it hold 257 to 512"),
        (shorter_info, r"info\.txt lists 256 patches, the 2 sheets beside it hold 257 to 512"),
        (no_sheets, r"liberty holds no patches0000\.bmp"),
        (shutil.rmtree, r"no folder of patches .*liberty"),
    ],
    ids=lambda value: getattr(value, "__name__", None),
)
def test_a_damaged_set_is_named_and_leaves_no_cache(folder, fault, message):
    fault(folder)
    with pytest.raises(TinvError, match=message):
        read(folder)
    assert not (folder.parent / "caches").exists() or caches(folder) == []


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("0 3 0 999 3 0", "line 2: patch 999 of point 3, but there are 300"),
        ("-1 3 0 1 3 0", "line 2: patch -1 of point 3, but there are 300"),
        ("0 3 0 1 5 0", "line 2: patch 1 of point 5, but info.txt says that it shows point 3"),
        ("0 3 0", "is not 5 integers a line"),
        ("0 3 0 one 3 0", "is not 5 integers a line"),
    ],
)
def test_pairs_of_patches_that_are_not_there_are_named(folder, line, message):
    (folder / "m50_40_40_0.txt").write_text(f"0 3 0 1 3 0\n{line}\n")
    with pytest.raises(TinvError, match=rf"m50_40_40_0\.txt.*{message}"):
        read_pairs(read(folder), 40)


def test_a_missing_list_of_pairs_says_which_there_are(folder):
    with pytest.raises(TinvError, match=r"m50_100000_100000_0\.txt; there are 40: set data.init_args.num_test_pairs"):
        read_pairs(read(folder), 100_000)
