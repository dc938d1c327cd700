"""The planner against a simulation of maxima that are spread uniformly."""

import numpy as np
import pytest

from tinv.errors import TinvError
from tinv.select import expected_consistency, range_for


def simulated(k: int, d: int, axes: int, every: bool, draws: int = 20000) -> float:
    """Percent of random score maps whose maximum stays, by the positions of the maxima themselves."""
    random = np.random.default_rng(0)
    m = k + 2 * d if every else k + d
    sizes = (m, m) if axes == 2 else (m, k)
    kept = 0
    moves = [(a, b if axes == 2 else 0) for a in range(2 * d + 1) for b in range(2 * d + 1)] if every else [(0, 0)]
    moves += [(d, d if axes == 2 else 0)] * (not every)
    for _ in range(draws // 10):
        scores = random.random((10, *sizes))
        for one in scores:
            places = set()
            for top, left in moves:
                index = one[top : top + k, left : left + k].argmax()
                width = min(k, one.shape[1] - left)
                places.add((top + index // width, left + index % width))
            kept += len(places) == 1
    return 100 * kept / (draws // 10 * 10)


@pytest.mark.parametrize(
    ("k", "d", "axes", "every"),
    [(6, 1, 1, False), (9, 3, 1, False), (6, 1, 2, False), (8, 2, 2, False), (7, 1, 2, True), (7, 1, 1, True)],
)
def test_expectations_are_those_of_a_simulation(k, d, axes, every):
    draws = 4000 if every else 20000
    found = simulated(k, d, axes, every, draws)
    assert expected_consistency(k, d, axes, every) == pytest.approx(found, abs=4 * 50 / draws**0.5)


@pytest.mark.parametrize("every", [False, True])
@pytest.mark.parametrize("axes", [1, 2])
@pytest.mark.parametrize("d", [1, 2, 5])
def test_the_range_is_the_smallest_that_gives_it(d, axes, every):
    for consistency in (2.0, 30, 50, 89.4, 95, 99.5):
        k = range_for(consistency, d, axes, every)
        assert expected_consistency(k, d, axes, every) >= consistency
        assert k == 1 or expected_consistency(k - 1, d, axes, every) < consistency


def test_a_range_below_the_move_keeps_nothing():
    assert expected_consistency(1) == expected_consistency(3, 5, 2) == expected_consistency(4, 2, every=True) == 0


@pytest.mark.parametrize("wrong", [0, 0.95, 1, 100, 101, float("nan")])
def test_shares_that_no_range_gives_are_refused(wrong):
    with pytest.raises(TinvError, match="must be a percentage of more than 1 and less than 100"):
        range_for(wrong)
    with pytest.raises(TinvError, match="unknown axes '3'"):
        expected_consistency(5, axes=3)
