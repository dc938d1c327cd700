"""The contract of data modules, and data modules that are not built on it."""

import pytest
from lightning.pytorch import LightningDataModule

from tinv.data import (
    CIFAR10,
    HMDB51,
    MNIST,
    UCF101,
    Brown,
    Digits,
    FourQuadrant,
    ImageFolder,
    ImageNet,
    MovingShapes,
    RedGreen,
    Rook,
)
from tinv.data.base import InvarianceDataModule, described
from tinv.errors import TinvError


class Foreign(LightningDataModule):
    num_classes = 7
    input_shape = (1, 8, 8)

    @property
    def provenance(self):
        return {"images": 3}


def test_all_data_modules_declare_the_contract():
    of_images = (CIFAR10, MNIST, Digits, FourQuadrant, ImageFolder, ImageNet, RedGreen, Rook)
    for kind in (*of_images, HMDB51, UCF101, Brown, MovingShapes):
        assert issubclass(kind, InvarianceDataModule)
        assert described(data := kind.__new__(kind)) is data


def test_other_data_modules_say_what_they_know():
    known = described(Foreign())
    assert (known.num_classes, known.input_shape, known.provenance) == (7, (1, 8, 8), {"images": 3})
    assert (known.test_sets, known.canvas_margin, known.crop_margin, known.is_augmented, known.clip_to_video) == (
        ("test",),
        None,
        0,
        True,
        None,
    )
    assert known.epoch == 0
    nothing = described(None)
    assert (nothing.num_classes, nothing.input_shape, nothing.provenance) == (None, None, {})


def test_the_seed_is_that_of_the_run_unless_it_is_given(monkeypatch):
    monkeypatch.setenv("PL_GLOBAL_SEED", "11")
    assert (InvarianceDataModule(4).seed, InvarianceDataModule(4, 3).seed) == (11, 3)
    with pytest.raises(TinvError, match="batch_size must be 1 or more, not 0"):
        InvarianceDataModule(0)


def test_a_data_module_can_be_printed_before_and_after_it_is_loaded():
    data = Digits()
    assert str(data) == "Digits"
    data.setup()
    assert f"{data}" == "Digits"
