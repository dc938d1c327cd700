"""What fits the type of an argument, in a configuration and from Python."""

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
import pytest

from tinv.deprecation import renamed
from tinv.errors import TinvError
from tinv.utils.arguments import (
    AtLeastTwo,
    Checked,
    NonNegativeInt,
    OpenUnitInterval,
    PositiveInt,
    Seed,
    checked,
    misfit,
)

Padding = Literal["same", "full"]


@pytest.mark.parametrize(
    ("value", "hint"),
    [
        *((1, PositiveInt), (0, NonNegativeInt), (2, AtLeastTwo), (2**32 - 1, Seed), (np.int64(3), PositiveInt)),
        *((3, int | None), (None, int | None), (3, float), (0.5, float), (True, bool), ("x", str), ("full", Padding)),
        (0.5, OpenUnitInterval),
        *(([1, 2], Sequence[PositiveInt]), ((), Sequence[int]), ({}, dict[str, int]), (object(), Any)),
        *(("own.Policy", Padding | Any), ({"class_path": "own.Policy"}, Padding | Any)),
    ],
)
def test_it_fits(value, hint):
    assert misfit("key", value, hint) is None


@pytest.mark.parametrize(
    ("value", "hint", "message"),
    [
        (0, PositiveInt, "key must be 1 or more, not 0"),
        (-1, NonNegativeInt | None, "key must be 0 or more, not -1"),
        (0, OpenUnitInterval, "key must be more than 0 and less than 1, not 0"),
        (1.0, OpenUnitInterval | None, "key must be more than 0 and less than 1, not 1"),
        (2**32, Seed, "key must be a seed from 0 to 4294967295"),
        (True, int, "key: 'True' is not of type int"),
        (1.5, int, "key: '1.5' is not of type int"),
        (float("nan"), float, "key must be a number, not nan"),
        (None, int, "key: is null, which it cannot be"),
        (None, Padding | Any, "key: is null, which it cannot be"),
        ("ful", Padding, "key: unknown key 'ful'; did you mean full"),
        ("ful", Padding | Any, "key: unknown key 'ful'"),
        ([1, 0], Sequence[PositiveInt], r"key[1] must be 1 or more, not 0"),
        ("abc", Sequence[int] | None, "key: 'abc' is not of type list"),
        ([], str, "key: '[]' is not of type str"),
    ],
)
def test_what_does_not_fit_is_named(value, hint, message):
    assert message in (misfit("key", value, hint) or "")


def test_a_class_checks_its_arguments_by_their_old_names_too():
    class Own(Checked):
        @renamed(size="side")
        def __init__(self, side: PositiveInt, padding: Padding = "same") -> None:
            self.side = side

    assert Own(3).side == 3
    for given in ({"side": 0}, {"side": 1, "padding": "none"}):
        with pytest.raises(TinvError, match=r"side must be 1 or more|unknown padding 'none'"):
            Own(**given)
    with pytest.warns(DeprecationWarning, match="size is now side") as caught, pytest.raises(TinvError, match="side"):
        Own(size=0)
    assert caught[0].filename == __file__


def test_a_function_checks_its_arguments_by_position_and_name():
    @checked
    def double(number: PositiveInt, factor: float = 2) -> float:
        return number * factor

    assert double(2, factor=3) == 6
    for args, options in (((0,), {}), ((), {"number": -1})):
        with pytest.raises(TinvError, match="number must be 1 or more"):
            double(*args, **options)
