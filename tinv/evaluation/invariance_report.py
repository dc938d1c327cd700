"""What `tinv.measure` found, as an object: numbers with intervals, tables, files."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tinv.artifacts import write_artifacts
from tinv.evaluation.running import print_table
from tinv.metrics import InvarianceMetric
from tinv.utils.io import write_atomically


@dataclass
class InvarianceReport:
    """What `tinv.measure` found.

    Attributes:
        images: Number of images that were measured.
        labelled: Whether the folders were the network's classes.
        metrics: Numbers by name, with `NAME_low` and `NAME_high` the ends of 95% bootstrap intervals over images.
            Accuracies and consistencies are percentages, cosine similarities lie in -1..1. What is not defined is left
            out.
        skipped: Paths of damaged files.
        partial: Layers that a policy asked for was not put on.
        attribution: Shares of padding, aliasing and the rest by real context, with the inconsistency and accuracy of
            each condition, and `explanation` in sentences; where `method` is `conversion`, what
            `attribution_by_conversion` holds, since real context cannot be had. Empty if it was not asked for.
        attribution_by_conversion: Consistency, accuracy and share of each network that was made exact in part, and
            `explanation` in sentences; empty if it was not asked for.
        layers: `shift` in pixels, and relative equivariance errors of every layer; empty if they were not asked for.
        shifts: How images were moved, for titles.
        measured: The metrics themselves, with what they hold beyond numbers, by name.
    """

    images: int
    labelled: bool
    metrics: dict[str, float]
    skipped: list[str] = field(default_factory=list)
    partial: list[dict[str, str]] = field(default_factory=list)
    attribution: dict[str, Any] = field(default_factory=dict)
    attribution_by_conversion: dict[str, Any] = field(default_factory=dict)
    layers: dict[str, Any] = field(default_factory=dict)
    shifts: str = ""
    measured: dict[str, InvarianceMetric] = field(default_factory=dict, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Returns everything but the metrics themselves, as JSON can hold it."""
        found = {key: getattr(self, key) for key in ("images", "skipped", "labelled", "partial", "metrics")}
        more = ("attribution", "attribution_by_conversion", "layers")
        return found | {key: part for key in more if (part := getattr(self, key))}

    @property
    def explanation(self) -> list[str]:
        """What the attributions say, in sentences."""
        parts = (self.attribution, self.attribution_by_conversion)
        return [line for part in parts for line in part.get("explanation", [])]

    def save(self, folder: Path, **more: Any) -> None:
        """Writes `measure.json`, then figures and arrays of the metrics.

        Args:
            folder: To write to, which is there.
            **more: Put into `measure.json` first.
        """
        write_atomically(folder / "measure.json", json.dumps({**more, **self.to_dict()}, indent=2) + "\n")
        for name, metric in self.measured.items():
            write_artifacts(metric, folder, name)

    def rows(self) -> list[tuple[str, str, str]]:
        """Returns a line for each number: its name, its value and the ends of its interval, as they are printed."""
        units = {key: metric.unit_of(key) for metric in self.measured.values() for key in metric.compute()}
        found = []
        for key in (k for k in self.metrics if not k.endswith(("_low", "_high"))):
            digits = 1 if units.get(key) == "percent" else 3
            ends = [self.metrics[f"{key}_{end}"] for end in ("low", "high") if f"{key}_{end}" in self.metrics]
            between = " .. ".join(f"{end:.{digits}f}" for end in ends) if len(ends) == 2 else ""
            found.append((key, f"{self.metrics[key]:.{digits}f}", between))
        return found

    def print(self, title: str) -> None:
        """Prints the numbers as a table, and what the attribution says.

        Args:
            title: Name of the network and its policy.
        """
        heading = f"{title}: {self.images} images, {self.shifts}"
        print_table(heading, ("measure", "value", "95% interval"), self.rows())
        for line in self.explanation:
            print(line)
        if self.skipped:
            print(f"{len(self.skipped)} damaged files were skipped; measure.json names them")

    def __str__(self) -> str:
        lines = [f"{self.images} images"]
        lines += [f"{name:<34}{value:>8}  {between}".rstrip() for name, value, between in self.rows()]
        return "\n".join([*lines, *self.explanation])
