"""Whether a grid of kernel sizes and subsampling factors has the shape that Mouton et al. (2020) found."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from tinv.report.collect import RunGroup

KERNEL, FACTOR = "kernel_size", "subsampling_factor"
METRIC = "test/mcs"


@dataclass(frozen=True)
class TrendCheck:
    """One statement on a row or column of a grid.

    Attributes:
        claim: What should hold.
        values: Means over seeds, in order of the key that varies.
        holds: Whether it does: `yes, at every step`, `yes, from first to last, not at every step`, or `no`.
    """

    claim: str
    values: tuple[float, ...]
    holds: str

    def __str__(self) -> str:
        return f"{self.claim}: {self.holds} ({' '.join(f'{value:.3f}' for value in self.values)})"


def trend_checks(groups: Sequence[RunGroup]) -> list[TrendCheck]:
    """Returns what can be said: similarity rises with the kernel size at factors of 2 and more, and with the factor at
    kernel sizes of 3 and more, or, where it alone varies, with the factor. Empty for other groups, also where one
    has no number for either key."""
    if not all(isinstance(value, int | float) for group in groups for value in group.setting.values()):
        return []
    short = {key.rpartition(".")[2]: key for key in groups[0].setting}
    if set(short) == {FACTOR}:
        row = [group for group in groups if METRIC in group.values]
        means = tuple(group.mean(METRIC) for group in sorted(row, key=lambda group: group.setting[short[FACTOR]]))
        return [TrendCheck(f"{METRIC} rises with {FACTOR}", means, _rises(means))] if len(means) > 1 else []
    if set(short) != {KERNEL, FACTOR}:
        return []
    found = []
    for fixed, least, varied in ((FACTOR, 2, KERNEL), (KERNEL, 3, FACTOR)):
        values = sorted({group.setting[short[fixed]] for group in groups})
        for value in values:
            row = [c for c in groups if c.setting[short[fixed]] == value and METRIC in c.values]
            row.sort(key=lambda group: group.setting[short[varied]])
            if value >= least and len(row) > 1:
                means = tuple(group.mean(METRIC) for group in row)
                found.append(TrendCheck(f"{METRIC} rises with {varied} at {fixed} {value}", means, _rises(means)))
    return found


def _rises(values: Sequence[float]) -> str:
    if all(after > before for before, after in pairwise(values)):
        return "yes, at every step"
    return "yes, from first to last, not at every step" if values[-1] > values[0] else "no"
