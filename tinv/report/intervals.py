"""Which numbers are the ends of another number's bootstrap interval: NAME_low and NAME_high, before any /SET."""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping

END = re.compile(r"(?P<name>.+?)_(?:low|high)(?P<set>/[^/]+)?")


def without_ends(metrics: Collection[str]) -> list[str]:
    """Returns the metrics that are not an end of another one's interval."""
    ends = (END.fullmatch(metric) for metric in metrics)
    return [
        metric
        for metric, end in zip(metrics, ends, strict=True)
        if end is None or f"{end['name']}{end['set'] or ''}" not in metrics
    ]


def interval(metric: str, values: Mapping[str, float]) -> tuple[float, float] | None:
    """Returns the ends (low, high) of a metric's interval; None if it has none."""
    name, slash, test_set = metric.rpartition("/") if metric.count("/") > 1 else (metric, "", "")
    for low, high in (
        (f"{metric}_low", f"{metric}_high"),
        (f"{name}_low{slash}{test_set}", f"{name}_high{slash}{test_set}"),
    ):
        if low in values and high in values:
            return values[low], values[high]
    return None
