"""Types read from the source code are those that Python finds when it imports it."""

from importlib import import_module
from typing import Any, get_type_hints

import pytest
from lightning.pytorch import Trainer

from tinv.config import catalog
from tinv.utils.arguments import misfit

VALUES = [None, True, 0, 1, 3, -1, 2.5, float("nan"), "abc", "same_zero", "keep", "raise", "", [], [1], ["a"], [-1], {}]
CLASSES = [
    *(f"tinv.data.{name}" for name in catalog.data_sets()),
    *("tinv.tasks.Classification", "tinv.tasks.Descriptors"),
    *(f"tinv.metrics.{name}" for name in ("ShiftConsistency", "MeanCosineSimilarity", "ClipShiftMap")),
]


def hints_of(made: type) -> dict[str, Any]:
    owners = [base for base in reversed(made.__mro__) if "__init__" in vars(base) and base is not object]
    return {name: hint for base in owners for name, hint in get_type_hints(vars(base)["__init__"]).items()}


def agree(found: dict[str, Any], hints: dict[str, Any]) -> int:
    """Checks that both refuse the same values; returns how many types the source code tells."""
    known = {name: hint for name, hint in found.items() if hint is not Any}
    for name, hint in known.items():
        for value in VALUES:
            # what the source code does not tell is taken for a fit; it never refuses more
            refused, right = misfit(name, value, hint), misfit(name, value, hints[name])
            assert refused is None or right is not None, (name, value, hint, hints[name])
    return len(known)


@pytest.mark.parametrize("path", CLASSES)
def test_a_class(path):
    module, _, name = path.rpartition(".")
    found = catalog.class_arguments(path)
    assert found is not None
    assert agree(found, hints_of(getattr(import_module(module), name))) > len(found) / 2


def test_the_trainer():
    found = catalog.trainer_arguments()
    assert found is not None
    assert agree(found, get_type_hints(Trainer.__init__)) > len(found) / 2


@pytest.mark.parametrize("name", catalog.own_backbones())
def test_a_network(name):
    made = getattr(import_module(f"tinv.models.backbones.{name}"), name)
    found = catalog.backbone_arguments(name)
    assert found is not None
    assert agree(found, get_type_hints(made)) == len(found)
