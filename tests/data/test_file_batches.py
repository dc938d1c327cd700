from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torchvision.transforms import RandomResizedCrop as Reference

from tinv.data.batching import DistributedBatchSampler
from tinv.data.file_batches import FileLoader, ImageDataset
from tinv.data.formats.image_preparation import RandomResizedCrop
from tinv.data.formats.images import ImageFiles, resize, resize_shorter
from tinv.errors import TinvError
from tinv.translation import uniform


def test_parts_have_the_distribution_of_torchvisions():
    ours = np.array([RandomResizedCrop.part(300, 400, draws) for draws in uniform(np.arange(4000), 41, 0).tolist()])
    image = torch.zeros(3, 300, 400)
    theirs = np.array([Reference.get_params(image, [0.08, 1.0], [3 / 4, 4 / 3]) for _ in range(4000)])
    top, left, height, width = ours.T
    assert top.min() >= 0
    assert left.min() >= 0
    assert (top + height).max() <= 300
    assert (left + width).max() <= 400
    for quantile in (0.05, 0.25, 0.5, 0.75, 0.95):
        np.testing.assert_allclose(np.quantile(ours, quantile, axis=0), np.quantile(theirs, quantile, axis=0), atol=14)


@pytest.mark.parametrize("size", [(20, 1000), (1000, 20)])
def test_of_images_too_long_for_any_part_the_middle_is_taken(size):
    top, left, height, width = RandomResizedCrop.part(*size, [0.999] * 41)
    assert abs(2 * top + height - size[0]) <= 1
    assert abs(2 * left + width - size[1]) <= 1
    assert max(height / width, width / height) == pytest.approx(4 / 3, rel=0.05)


def test_half_of_the_images_are_flipped():
    image = torch.arange(64, dtype=torch.uint8).repeat(3, 64, 1).permute(1, 2, 0).contiguous().permute(2, 0, 1)
    crop = RandomResizedCrop(32, seed=0)
    made = [crop(image, draws) for draws in uniform(np.arange(400), 41, 0).tolist()]
    flipped = [bool(m[0, 0, 0] > m[0, 0, -1]) for m in made]
    assert 160 < sum(flipped) < 240
    assert all(m.shape == (3, 32, 32) and m.dtype == torch.uint8 for m in made)


@pytest.mark.parametrize(("height", "width"), [(20, 30), (97, 64)])
def test_resizing_is_that_of_pil(height, width):
    pixels = np.random.default_rng(0).integers(0, 256, (48, 64, 3), dtype=np.uint8)
    ours = resize(torch.from_numpy(pixels).permute(2, 0, 1), height, width).permute(1, 2, 0).numpy()
    theirs = np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR))
    assert np.abs(ours.astype(int) - theirs).max() <= 1


def test_the_shorter_side_is_the_one_asked_for():
    assert resize_shorter(torch.zeros(3, 48, 64, dtype=torch.uint8), 24).shape == (3, 24, 32)
    assert resize_shorter(torch.zeros(3, 100, 50, dtype=torch.uint8), 60).shape == (3, 120, 60)


def loader(damaged: set[int], even: bool = True, count: int = 8) -> FileLoader:
    """Reads files in batches of two, of which some are damaged."""
    files = ImageFiles(Path(), [f"{n}.png" for n in range(count)], np.arange(count), ["a"])

    def prepare(path: Path) -> torch.Tensor:
        if int(path.stem) in damaged:
            raise TinvError(f"{path} is damaged")
        return torch.full((3, 2, 2), int(path.stem), dtype=torch.uint8)

    order = DistributedBatchSampler(count, 2, lambda: torch.arange(count), even=even)
    return FileLoader(ImageDataset(files, prepare), order, on_error="skip")


def targets(of: FileLoader) -> list[list[int]]:
    return [batch.target.tolist() for batch in of]


def test_damaged_files_are_left_out_and_nothing_at_all_is_an_error():
    assert targets(loader({0, 1, 2})) == [[3], [4, 5], [6, 7]]
    for even in (True, False):
        with pytest.raises(TinvError, match=r"none of 8 files could be read, although on_error: skip; 0.png is dam"):
            targets(loader(set(range(8)), even))


@pytest.mark.parametrize("damaged", [{0, 2}, {4, 6}, {0, 2, 4}, {2, 4, 6}, {0, 4}])
def test_processes_that_train_together_take_equally_many_steps_whatever_is_damaged(damaged, monkeypatch):
    # of rank 0, whose files are 0, 2, 4, 6; the other one's are whole
    steps = []
    for rank in (0, 1):
        for place in ("tinv.data.file_batches", "tinv.data.batching"):
            monkeypatch.setattr(f"{place}.rank_and_ranks", lambda rank=rank: (rank, 2))
        steps.append(targets(loader(damaged)))
    assert len(steps[0]) == len(steps[1]) == 2
    assert {t for batch in steps[0] for t in batch} == {0, 2, 4, 6} - damaged
    assert steps[1] == [[1, 3], [5, 7]]
    # an image may count once only where nothing is learned
    monkeypatch.setattr("tinv.data.file_batches.rank_and_ranks", lambda: (0, 2))
    monkeypatch.setattr("tinv.data.batching.rank_and_ranks", lambda: (0, 2))
    found = [t for batch in targets(loader(damaged, even=False)) for t in batch]
    assert found == sorted({0, 2, 4, 6} - damaged)
