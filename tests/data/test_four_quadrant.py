from pathlib import Path

import pytest
import torch
from official_formats import write_image_folders
from torch.nn import functional as F

from tinv.cli import main
from tinv.data import FourQuadrant
from tinv.data.formats.images import find_images, read_pixels, resize_shorter
from tinv.errors import TinvError


@pytest.fixture(autouse=True)
def photographs() -> Path:
    write_image_folders(Path("photos"), classes=3, train=3, val=1, side=260)
    return Path("photos/train")


def data(**kwargs) -> FourQuadrant:
    return FourQuadrant(**{"root": "photos/train", "num_images": 9, "seed": 0, **kwargs})


def images(module: FourQuadrant, loader) -> tuple[torch.Tensor, torch.Tensor]:
    batches = [module.on_after_batch_transfer(batch, 0) for batch in loader]
    return torch.cat([b.image for b in batches]), torch.cat([b.target for b in batches])


def test_every_photograph_lies_in_both_places_on_black():
    module = data()
    shown, target = images(module, module.val_dataloader())
    assert shown.shape == (18, 3, 120, 120)
    assert target.tolist() == [0, 1] * 9
    first, second = shown[::2], shown[1::2]
    assert torch.equal(first[:, :, :56, :56], second[:, :, 64:, 64:])
    for each, rows in ((first, slice(56, None)), (second, slice(None, 64))):
        assert not each[:, :, rows].any()
        assert not each[:, :, :, rows].any()


def test_photographs_are_made_small_as_in_the_paper():
    module = data(num_images=1)
    shown, _ = images(module, module.train_dataloader())
    middle = resize_shorter(read_pixels(find_images(Path("photos/train")).path(0)), 256).float()
    left = (middle.shape[2] - 224) // 2
    middle = middle[None, :, 16:240, left : left + 224] / 255
    mean, std = (torch.tensor(v)[:, None, None] for v in (module.mean, module.std))
    expected = F.interpolate((middle - mean) / std, (56, 56), mode="bilinear", align_corners=False)[0]
    # kept as bytes, half a step of which is 0.5 / 255 / 0.224
    assert (module_image(shown) - expected).abs().max() < 0.6 / 255 / 0.224


def module_image(shown: torch.Tensor) -> torch.Tensor:
    return next(image for image in shown if image[:, :56, :56].any() and not image[:, 64:].any())[:, :56, :56]


def test_published_splits_are_alike_and_disjoint_ones_share_nothing():
    module = data()
    module.setup()
    assert module.splits.train is module.splits.val is module.splits.test["test"]
    module = data(splits="disjoint")
    module.setup()
    sets = [module.splits.train, module.splits.val, module.splits.test["test"]]
    assert [len(images.target) for images in sets] == [6, 6, 6]
    seen = {bytes(image.numpy().tobytes()) for images in sets for image in images.image}
    assert len(seen) == 9


def test_other_sides():
    module = data(side=64, canvas_size=128)
    shown, _ = images(module, module.val_dataloader())
    assert torch.equal(shown[0, :, :64, :64], shown[1, :, 64:, 64:])
    assert module.input_shape == (3, 128, 128)


def test_damaged_photographs_are_named_or_counted():
    bad = find_images(Path("photos/train")).path(4)
    bad.write_bytes(b"")
    with pytest.raises(TinvError, match=str(bad)):
        data().setup()
    module = data(on_error="skip")
    module.setup()
    assert module.provenance == {"skipped": 1, "skipped_files": [str(bad)]}
    assert len(module.splits.train.target) == 16


def test_bad_input_is_one_line(capsys):
    for option, message in (
        ("root=nowhere", "no image data: looked for nowhere or data/nowhere; get it"),
        ("num_images=10", "num_images=10 asked for, photos/train holds 9"),
        ("num_images=0", "--data.init_args.num_images must be 1 or more, not 0"),
        ("side=120", "side=120 must be smaller than canvas_size=120"),
        ("train_max_shift=1", "train_max_shift must be 0"),
    ):
        words = ["--data.init_args.root=photos/train", "--data.init_args.num_images=9", f"--data.init_args.{option}"]
        assert main(["fit", "--config=configs/four_quadrant.yaml", *words]) == 2
        captured = capsys.readouterr().err
        assert message in captured, captured
        assert captured.count("\n") == 1
