"""The attribution prints each condition's accuracy, and marks shares of networks that a conversion damaged."""

import pytest
import torch
from torch import nn

from tinv.evaluation.attribution import Variant, explanation, is_marked, share
from tinv.metrics import ShiftConsistency


class Measured(ShiftConsistency):
    """A measure that is known."""

    def __init__(self, percent: float) -> None:
        super().__init__(8, "zero", 1)
        self.percent = percent

    def compute(self):
        return {self.name: torch.tensor(self.percent)}


def variant(name: str, percent: float, right: int, labelled: int = 100, partial: tuple[str, ...] = ()) -> Variant:
    return Variant(name, nn.Identity(), "", Measured(percent), partial, right, labelled)


def test_each_condition_is_told_with_its_accuracy_and_marked_where_it_fell():
    parts = [variant("unconverted", 77, 65), variant("padding full_zero", 72, 55), variant("both", 90, 61)]
    assert [is_marked(part, parts[0]) for part in parts] == [False, True, False]
    assert share(parts[2], parts[0]) == pytest.approx(100 * 13 / 23)
    lines = explanation(parts, "zero")
    assert lines[0] == "23.0% of the pairs get two answers; accuracy 65.0%."
    assert lines[1] == "With padding full_zero: 28.0%; 22% more of them; accuracy 55.0% (*)."
    assert "accuracy 61.0%." in lines[2]
    assert any(line.startswith("(*) Accuracy fell by more than 5 points") for line in lines)


def test_what_is_left_is_not_attributed_to_the_head_of_a_damaged_network():
    lines = explanation([variant("unconverted", 80, 60), variant("both", 90, 20)], "zero")
    assert any("Left with both, 10.0%, cannot be attributed" in line for line in lines)
    assert not any("is due to" in line for line in lines)


def test_without_labels_damage_is_said_to_be_unknown_and_a_partial_conversion_is_named():
    lines = explanation([variant("unconverted", 80, 0, 0), variant("both", 90, 0, 0, ("layer4",))], "zero")
    assert any(line.startswith("Without labels accuracy is not known") for line in lines)
    assert "With both: 10.0%; 50% of them disappear; partial, without layer4." in lines


def test_only_labelled_images_count():
    part = variant("both", 90, 0, 0)
    part.count(torch.eye(3), torch.tensor([0, 2, -1]))
    assert (part.right, part.labelled, part.accuracy) == (1, 2, 50)


def test_answers_that_are_not_finite_are_said_and_are_no_number():
    nan = float("nan")
    assert explanation([variant("unconverted", nan, 0), variant("both", 90, 0)], "zero") == [
        "The network's answers are not finite: there is nothing to attribute."
    ]
    broken = variant("both", nan, 0, 0)
    broken.count(torch.tensor([[nan, nan], [0.0, 1.0]]), torch.tensor([0, 1]))
    assert (broken.percent, broken.accuracy, share(broken, variant("unconverted", 80, 60))) == (None, None, None)
    lines = explanation([variant("unconverted", 80, 60), broken], "zero")
    assert "With both: the network's answers are not finite." in lines
    assert "nan" not in " ".join(lines)
