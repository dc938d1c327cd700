"""Names of version 0.1 still work: arguments, attributes of data modules, and what is imported from here."""

import pytest
import torch
from lightning.pytorch import LightningDataModule

from tinv import data
from tinv.data.base import OLD_NAMES, InvarianceDataModule, described
from tinv.data.in_memory import InMemoryData
from tinv.deprecation import MODULES

COUNTS = {"train_size": "num_train", "val_size": "num_val", "test_size": "num_test"}
TRAIN_TEST = {**COUNTS, "split_seed": "data_seed", "canvas": "canvas_size"}
PAIRS = {"n_pairs": "num_pairs", "test_pairs": "num_test_pairs"}
ARGUMENTS = {
    "MNIST": TRAIN_TEST,
    "FashionMNIST": TRAIN_TEST,
    "CIFAR10": TRAIN_TEST,
    "CIFAR100": TRAIN_TEST,
    "Digits": TRAIN_TEST,
    "RedGreen": {**COUNTS, "canvas": "canvas_size"},
    "MovingShapes": COUNTS,
    "Rook": {"canvas": "canvas_size"},
    "FourQuadrant": {"images": "num_images", "canvas": "canvas_size"},
    "ImageNet": {"test_size": "test_resolution", "cache": "cache_resolution"},
    "UCF101": {"frames": "num_frames", "cache": "cache_resolution"},
    "HMDB51": {"frames": "num_frames", "cache": "cache_resolution"},
    "Brown": PAIRS,
    "PhotoPatches": {
        **PAIRS,
        "photographs": "num_images",
        "test_photographs": "num_test_images",
        "copies": "num_copies",
        "points": "num_points",
        "patch_seed": "data_seed",
    },
}


def plain(module: LightningDataModule) -> dict[str, object]:
    return {k: v for k, v in vars(module).items() if isinstance(v, (int, str, tuple, dict)) and not k.startswith("_")}


@pytest.mark.parametrize(("name", "old"), [(name, old) for name, names in ARGUMENTS.items() for old in names])
def test_arguments(name, old):
    kind, new = getattr(data, name), ARGUMENTS[name][old]
    with pytest.warns(DeprecationWarning, match=f"{old} is now {new}"):
        by_old_name = kind(**{old: 300})
    assert plain(by_old_name) == plain(kind(**{new: 300})) != plain(kind(**{new: 301}))


@pytest.mark.parametrize(("given", "augment"), [(True, "multi_scale_crop"), (False, "none")])
def test_augmentation_of_clips_by_a_truth_value(given, augment):
    with pytest.warns(DeprecationWarning, match=f"augment={given} is now augment={augment}"):
        clips = data.UCF101(augment=given)
    assert (clips.augment, clips.is_augmented) == (augment, given)


VALUES = {"facts": {"images": 3}, "augments": False, "video_of": torch.zeros(2), "room": 4, "margin": 2}


def test_attributes_of_data_modules_that_are_not_built_on_the_contract():
    module = LightningDataModule()
    vars(module).update(VALUES)
    for old, new in OLD_NAMES.items():
        with pytest.warns(DeprecationWarning, match=f"LightningDataModule: {old} is now {new}"):
            assert getattr(described(module), new) is VALUES[old]
    module.canvas_margin = 5
    assert described(module).canvas_margin == 5


@pytest.mark.parametrize("base", [InvarianceDataModule, InMemoryData])
def test_attributes_of_data_modules_that_are(base):
    with pytest.warns(DeprecationWarning, match="Own: margin is now canvas_margin"):

        class Own(base):
            margin = 7

    assert Own(batch_size=1).canvas_margin == 7
    for old, new in OLD_NAMES.items():
        module = data.ImageNet(test_resolution=240)
        if new in ("canvas_margin", "crop_margin", "is_augmented", "clip_to_video"):
            with pytest.warns(DeprecationWarning, match=f"ImageNet: {old} is now {new}"):
                assert getattr(module, old) == getattr(module, new)


def test_names_in_modules():
    from tinv.data.formats.image_cache import ImageCache

    assert MODULES["tinv.data.image_cache"] == "tinv.data.formats.image_cache"
    with pytest.warns(DeprecationWarning, match=r"image_cache.ImageCache is now tinv.data.formats.image_cache"):
        from tinv.data.image_cache import ImageCache as OldCache
    with pytest.warns(DeprecationWarning, match=r"in_memory.missing is now tinv.data.folders.data_not_found"):
        from tinv.data.in_memory import missing  # noqa: F401
    assert OldCache is ImageCache
