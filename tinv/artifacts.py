"""Writes what metrics hold beyond numbers."""

from __future__ import annotations

import io
import warnings
from pathlib import Path
from typing import Any

import numpy as np

from tinv.metrics.base import ReportedMetric
from tinv.utils.io import png, write_bytes_atomically


def write_artifacts(metric: ReportedMetric, folder: Path, stem: str) -> list[Path]:
    """Writes the arrays of a metric as `STEM.npz` and its plot as `STEM.png`; nothing if it holds no arrays.

    Args:
        metric: Metric that has seen its images.
        folder: Folder to write to, which is there.
        stem: Name of the files without their endings.

    Returns:
        The files.
    """
    if (own := getattr(metric, "save", None)) is not None:
        warnings.warn(f"{type(metric).__name__}.save is now arrays and plot", DeprecationWarning, stacklevel=2)
        return list(own(folder, stem))
    arrays: dict[str, Any] = metric.arrays()
    if not arrays:
        return []
    files = [folder / f"{stem}.npz", folder / f"{stem}.png"]
    numbers = io.BytesIO()
    np.savez(numbers, **arrays)
    # first of all, so that a figure that cannot be drawn costs no numbers
    write_bytes_atomically(files[0], numbers.getvalue())
    write_bytes_atomically(files[1], png(metric.plot()[0]))
    return files
