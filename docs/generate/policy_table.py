"""The page of what every policy does to five networks, from the file that benchmarks/policy_table.py writes."""

from __future__ import annotations

import csv
from itertools import groupby
from pathlib import Path

from generate.text import code, heading, table

MEASURED = Path(__file__).parents[2] / "docs" / "experiments" / "data" / "policy_table.csv"

INTRODUCTION = """---
hide: [navigation, toc]
---

# Policies on five networks

Every policy on five networks of timm, untrained. Paddings are put on all convolutions and, under `full_*`, on the pools
too (`pool=full`). Subsamplings stand under `same_circular` with `stem=convert`, activations under `same_circular` and
`ideal`. Columns:

- *trains*: whether one training step gives every parameter a finite gradient.
- *circular*, *zero canvas*: shifts of a 224x224 image that leave the output exactly unchanged, as the verdict of
  `tinv inspect` says: `every`, multiples of so many pixels, or `none`.
- *FLOPs*, *memory*: floating-point operations and activations on a 224x224 image, over those of the unconverted
  network.
- *step*, *latency*: time of a training step and of a forward pass on two 128x128 images, over those of the unconverted
  network timed in turn, on one of two cores of a shared machine. They are good to about a fifth.

`dilated` was not run on ResNet-50 and EfficientNet-B0, where it takes more than ten gigabytes.

The table is made by a command, which keeps the rows that the file has already:

```
python benchmarks/policy_table.py
```

"""

COLUMNS = ("policy", "trains", "circular", "zero canvas", "FLOPs", "memory", "parameters", "step", "latency")


def page() -> str:
    """Returns the page."""
    with MEASURED.open(newline="") as file:
        measured = list(csv.DictReader(file))
    text = INTRODUCTION
    for network, group in groupby(measured, lambda row: row["network"]):
        rows = list(group)
        text += heading(2, network, network) + table(COLUMNS, [_row(row) for row in rows])
        for row in rows:
            if row["converts"] != "yes":
                text += f"{_name(row)} is {row['converts']}.\n\n"
    return text


def _name(row: dict[str, str]) -> str:
    return code(f"{row['option']}={row['policy']}")


def _row(row: dict[str, str]) -> tuple[str, ...]:
    if row["converts"] != "yes":
        return (_name(row), "refused", *[""] * (len(COLUMNS) - 2))
    more = f"{int(row['parameters']):+,}" if row["parameters"] != "0" else "same"
    costs = (f"{float(row[key]):.2f}x" for key in ("flops", "memory"))
    times = (f"{float(row[key]):.1f}x" for key in ("step", "latency"))
    return (_name(row), row["trains"], row["circular"], row["zero_canvas"], *costs, more, *times)
