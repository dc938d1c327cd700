"""The page of which networks of timm take which policies, from the files that benchmarks/coverage.py writes."""

from __future__ import annotations

import csv
import re
from collections import Counter
from itertools import groupby
from pathlib import Path

from generate.text import code, heading, table

DATA = Path(__file__).parents[2] / "docs" / "experiments" / "data"
MEASURED, BEFORE = DATA / "coverage.csv", DATA / "coverage_before.csv"

INTRODUCTION = """---
hide: [navigation, toc]
---

# Coverage of timm

The network of fewest parameters of each of timm's NETWORKS model modules, with random weights, under six policies at
its own input size. `full_*` policies stand with `pool=full`; `blur3` keeps the network's padding. A pair counts as
converted if `tinv.convert` takes it, the parameters keep their names, and the output for an image is finite; REFUSED of
PAIRS pairs are refused by an error of one line that names a layer. Converted does not mean invariant: that is what the
verdict of `tinv inspect` says.

```
python benchmarks/coverage.py
```

This takes MINUTES on one core that others share, and keeps the rows that the file has already. Networks whose
converted form needs more than 50 GFLOPs an image, and two whose weights take a gigabyte, are converted and not
run.AGAIN

## Converted pairs by class of network { #classes }

Percentage of networks, before and after control flow that depends on sizes was followed.

"""

CAUSES = (
    ("the policy changes a map's size, which a layer's control flow depends on", "control flow depends on the size"),
    ("the policy changes a map's size, and a layer has a fixed number of positions or reads the size of an earlier map",
     r"fixed number of positions|model \(|shape '\[|must match|Expected size|fixed size|to broadcast"),
    ("branches that were subsampled by different adaptive choices meet", "different adaptive choices"),
    ("control flow depends on values, or assigns to parts of a map", "cannot be traced"),
    ("blocks are taken out of the map (`unfold`, halo attention)",
     "takes patches of the map|read by layers that are no"),
    ("padding that moves a map, which `valid` leaves no way for", "pads some sides and crops others"),
    ("transposed convolutions whose blocks overlap", "blocks overlap"),
    ("positions are joined with others, mixed or put in another order before a window or where branches meet",
     "positions of its input|has no order|begin at the first one|unusual order"),
    ("the background cannot be followed", "follow the background"),
    ("the map is too small under `valid`, or the image has to be larger than the network takes",
     "Kernel size|smaller than its kernel|too small"),
)  # fmt: skip
"""What refusals have in common, and how their messages are known."""
NOT_AGAIN = "not tried again"
"""How the reason of a pair ends whose row is that of the measurement before."""
LONGEST = 240
"""Characters of a message that are shown."""


def page() -> str:
    """Returns the page."""
    rows, before = _rows(MEASURED), _rows(BEFORE)
    policies = list(dict.fromkeys(row["policy"] for row in rows))
    seconds = sum(float(row["seconds"] or 0) for row in rows)
    again = sum(row["reason"].endswith(NOT_AGAIN) for row in rows)
    refused = [row for row in rows if row["result"] != "converts"]
    numbers = {
        "NETWORKS": len({row["network"] for row in rows}),
        "REFUSED": len(refused),
        "PAIRS": len(rows),
        "MINUTES": f"{seconds / 60:.0f} minutes",
        "AGAIN": f" Of {again} pairs the result is that of the measurement before." if again else "",
    }
    text = INTRODUCTION
    for key, value in numbers.items():
        text = text.replace(key, str(value))
    classes = list(dict.fromkeys(row["class"] for row in rows))
    text += table(("class", "networks", *map(code, policies)), [_class(rows, before, c, policies) for c in classes])
    text += heading(2, "Refused pairs by cause", "causes")
    counts = [Counter(map(_cause, (r for r in part if r["result"] != "converts"))) for part in (before, rows)]
    text += table(
        ("cause", "pairs before", "pairs now"),
        [(cause, str(counts[0][cause]), str(counts[1][cause])) for cause in sorted({*counts[0], *counts[1]},
         key=lambda cause: -counts[1][cause])],
    )  # fmt: skip
    text += heading(2, "Networks that are refused", "refused")
    for kind, group in groupby(refused, lambda row: row["class"]):
        text += heading(3, kind, f"refused-{kind.partition(' ')[0]}") + table(
            ("network", "policies", "message of the first"), _refusals(list(group))
        )
    return text


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def _class(rows: list[dict[str, str]], before: list[dict[str, str]], kind: str, policies: list[str]) -> tuple[str, ...]:
    def share(part: list[dict[str, str]], policy: str) -> str:
        found = [row["result"] == "converts" for row in part if (row["class"], row["policy"]) == (kind, policy)]
        return f"{100 * sum(found) / len(found):.0f}" if found else "-"

    networks = {row["network"] for row in rows if row["class"] == kind}
    return (kind, str(len(networks)), *(f"{share(before, p)} -> {share(rows, p)}" for p in policies))


def _cause(row: dict[str, str]) -> str:
    return next((cause for cause, pattern in CAUSES if re.search(pattern, row["reason"])), "other")


def _refusals(rows: list[dict[str, str]]) -> list[tuple[str, str, str]]:
    found = []
    for network, group in groupby(rows, lambda row: row["network"]):
        for _, same in groupby(sorted(group, key=_cause), _cause):
            pairs = list(same)
            reason = pairs[0]["reason"]
            shown = reason if len(reason) <= LONGEST else f"{reason[:LONGEST]} ..."
            # a bracket or an angle is no link and no tag
            said = re.sub(r"([\[\]<>*_`])", r"\\\1", shown)
            found.append((code(network), ", ".join(code(row["policy"]) for row in pairs), said))
    return found
