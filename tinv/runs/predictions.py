"""Writes `predictions.csv`."""

from __future__ import annotations

import csv
import io
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from tinv.runs.folder import RunFolder
from tinv.utils.io import write_atomically


def write_predictions(folder: RunFolder, predictions: Any, test_sets: Sequence[str]) -> Path:
    """Writes `predictions.csv`: a line an image or pair, with its test set and number, and what the task says of it.

    Probabilities of classes become the class predicted and a column each.
    """
    per_set = predictions if isinstance(predictions[0], list) else [predictions]
    text = io.StringIO(newline="")
    writer = csv.writer(text)
    writer.writerow(["set", *_columns(per_set[0][0])])
    for name, batches in zip(test_sets, per_set, strict=True):
        for batch in batches:
            for values in zip(*_columns(batch).values(), strict=True):
                writer.writerow([name, *(f"{v:.6g}" if isinstance(v, float) else v for v in values)])
    write_atomically(folder.predictions, text.getvalue())
    return folder.predictions


def _columns(batch: dict[str, Tensor]) -> dict[str, list[Any]]:
    """Returns the columns of the table, by name."""
    columns = {}
    for name, values in batch.items():
        if name == "probability":
            columns["prediction"] = values.argmax(dim=1).tolist()
            columns |= {f"p{number}": column.tolist() for number, column in enumerate(values.unbind(1))}
        else:
            columns[name] = values.tolist()
    return columns
