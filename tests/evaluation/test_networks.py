"""The network that is looked at is described by values that are checked wherever they come from."""

import pytest

from tinv.errors import TinvError
from tinv.evaluation.networks import NetworkSpec
from tinv.policies.conversion import ConversionPolicy


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


def test_a_policy_that_changes_the_size_of_the_head_is_refused():
    """The weights of the plain network, of which every position has its own, fit no map of another size."""
    spec = NetworkSpec("pooling_cnn", "tinv", num_classes=10)
    plain = spec.plain((32, 32))
    with pytest.raises(TinvError, match=r"pooling_cnn under padding=full_zero.*classifier.weight is 10x1024, here"):
        spec.under(ConversionPolicy("full_zero", pool="full"), plain, (32, 32))
    spec.under(ConversionPolicy("same_circular"), plain, (32, 32))
