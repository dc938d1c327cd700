"""The network that is looked at is described by values that are checked wherever they come from."""

import pytest

from tinv.errors import TinvError
from tinv.evaluation.networks import NetworkSpec


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_classes": 0}, "num_classes must be 1 or more, not 0"),
        ({"seed": -1}, "seed must be a seed from 0 to 4294967295, not -1"),
        ({"source": "hub"}, "source: unknown source 'hub'; choose from tinv, timm, torchvision"),
    ],
)
def test_values_out_of_range_are_named(options, message):
    with pytest.raises(TinvError, match=f"^{message}$"):
        NetworkSpec("resnet18", **options)
