"""What `tinv.measure` found, as an object: numbers with intervals, tables, files."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinv.artifacts import write_artifacts
from tinv.evaluation.gallery import Flip
from tinv.evaluation.measure_page import measure_page
from tinv.evaluation.measured_numbers import Number, numbers_figure, numbers_of, numbers_table
from tinv.evaluation.running import print_table
from tinv.metrics import InvarianceMetric
from tinv.utils.io import write_atomically

if TYPE_CHECKING:
    import pandas
    from matplotlib.figure import Figure


@dataclass
class InvarianceReport:
    """What `tinv.measure` found.

    Attributes:
        images: Number of images that were measured.
        labelled: Whether the folders were the network's classes.
        metrics: Numbers by name, with `NAME_low` and `NAME_high` the ends of 95% bootstrap intervals over images.
            Accuracies and consistencies are percentages, cosine similarities lie in -1..1. What is not defined is left
            out.
        without: The same numbers of the network outside of the module of `tinv.select`; empty without one.
        select: The module around the network and its options; empty without one.
        skipped: Paths of damaged files.
        partial: Layers that a policy asked for was not put on.
        attribution: Shares of padding, aliasing and the rest by real context, with the inconsistency and accuracy of
            each condition, and `explanation` in sentences; where `method` is `conversion`, what
            `attribution_by_conversion` holds, since real context cannot be had. Empty if it was not asked for.
        attribution_by_conversion: Consistency, accuracy and share of each network that was made exact in part, and
            `explanation` in sentences; empty if it was not asked for.
        layers: `shift` in pixels, and relative equivariance errors of every layer; empty if they were not asked for.
        ring: Curves over the size of the shift, see `ShiftRing.arrays`; empty if they were not asked for.
        comb: Consistency over the shift along the diagonal, see `ShiftComb.arrays`; empty if it was not asked for.
        protocol: What is said of the protocol that was followed, see `Protocol.card`; empty without one.
        shifts: How images were moved, for titles.
        measured: The metrics themselves, with what they hold beyond numbers, by name.
        gallery: Images that change their answer under the smallest move; None if they were not asked for.
        files: Path in the folder of every image, in order of the sample indices; None for damaged files.
        labels: Name of the class of each of them, None where it is not known.
    """

    images: int
    labelled: bool
    metrics: dict[str, float]
    without: dict[str, float] = field(default_factory=dict)
    select: dict[str, Any] = field(default_factory=dict)
    skipped: list[str] = field(default_factory=list)
    partial: list[dict[str, str]] = field(default_factory=list)
    attribution: dict[str, Any] = field(default_factory=dict)
    attribution_by_conversion: dict[str, Any] = field(default_factory=dict)
    layers: dict[str, Any] = field(default_factory=dict)
    ring: dict[str, Any] = field(default_factory=dict)
    comb: dict[str, Any] = field(default_factory=dict)
    protocol: dict[str, Any] = field(default_factory=dict)
    shifts: str = ""
    measured: dict[str, InvarianceMetric] = field(default_factory=dict, repr=False)
    gallery: list[Flip] | None = field(default=None, repr=False)
    files: list[str | None] = field(default_factory=list, repr=False)
    labels: list[str | None] = field(default_factory=list, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Returns everything but the metrics themselves, as JSON can hold it."""
        found = {key: getattr(self, key) for key in ("images", "skipped", "labelled", "partial", "shifts", "metrics")}
        found["units"] = {number.name: number.unit for number in self.numbers() if number.unit}
        if self.select:
            found |= {"select": self.select, "metrics_without": self.without}
        found |= {
            key: part
            for key in ("protocol", "attribution", "attribution_by_conversion", "layers", "ring", "comb")
            if (part := getattr(self, key))
        }
        return found if self.gallery is None else found | {"gallery": [flip.to_dict() for flip in self.gallery]}

    def to_json(self) -> str:
        """Returns what `to_dict` returns, as `measure.json` holds it."""
        return json.dumps(self.to_dict(), indent=2) + "\n"

    def to_html(self, **more: Any) -> str:
        """Returns one HTML page with everything, which refers to no other file.

        Args:
            **more: What else `measure.json` holds, such as `options`, for the title.
        """
        # the metrics with an array have something to draw beyond their numbers
        drawn = {name: metric.plot()[0] for name, metric in self.measured.items() if metric.arrays()}
        return measure_page({**more, **self.to_dict()}, drawn, self.gallery)

    @property
    def explanation(self) -> list[str]:
        """What the attributions say, in sentences."""
        parts = (self.attribution, self.attribution_by_conversion)
        return [line for part in parts for line in part.get("explanation", [])]

    def save(self, folder: Path, **more: Any) -> None:
        """Writes `measure.json`, then figures and arrays of the metrics, and `measure.html`.

        Args:
            folder: To write to, which is there.
            **more: Put into `measure.json` first.
        """
        write_atomically(folder / "measure.json", json.dumps({**more, **self.to_dict()}, indent=2) + "\n")
        for name, metric in self.measured.items():
            write_artifacts(metric, folder, name)
        write_atomically(folder / "measure.html", self.to_html(**more))

    def numbers(self) -> list[Number]:
        """Returns the numbers with their intervals and units."""
        return numbers_of(self.metrics, self._units())

    def numbers_without(self) -> list[Number]:
        """Returns the numbers of the network outside of the module of `tinv.select`; none without one."""
        return numbers_of(self.without, self._units())

    def _units(self) -> dict[str, str]:
        return {key: metric.unit_of(key) or "" for metric in self.measured.values() for key in metric.compute()}

    def table(self) -> pandas.DataFrame:
        """Returns the numbers as a table: a row a number, with the columns name, value, low, high and unit.

        Beside a `select` also without, without_low and without_high, of the network without it.
        """
        found = numbers_table(self.numbers())
        if not self.select:
            return found
        beside = numbers_table(self.numbers_without())[["name", "value", "low", "high"]]
        named = {"value": "without", "low": "without_low", "high": "without_high"}
        return found.merge(beside.rename(columns=named), on="name", how="left")

    def plot(self) -> Figure:
        """Returns a picture of the numbers with their intervals, those of one unit on one axis."""
        return numbers_figure(self.numbers())

    @property
    def per_image(self) -> pandas.DataFrame:
        """The numbers of single images that the metrics hold.

        A row an image, by its sample index: `file`, `label`, and `METRIC/FIELD` for each field of each metric, NaN for
        images that the metric did not look at.
        """
        import pandas

        frame = pandas.DataFrame({"file": self.files, "label": pandas.Series(self.labels, dtype=object)})
        columns = {}
        for name, metric in self.measured.items():
            rows, fields = getattr(metric, "per_image", None), getattr(metric, "fields", ())
            if rows is None or not len(index := metric.gathered("index")):
                continue
            numbers = index.sort().values.cpu().numpy()
            for field_name, values in zip(fields, rows().T, strict=True):
                columns[f"{name}/{field_name}"] = pandas.Series(values, index=numbers)
        frame = pandas.concat([frame, pandas.DataFrame(columns)], axis=1)
        return frame.dropna(subset="file")

    def rows(self) -> list[tuple[str, str, str]]:
        """Returns a line for each number: its name, its value and the ends of its interval, as they are printed."""
        return [(number.name, number.text, number.ends) for number in self.numbers()]

    def print(self, title: str) -> None:
        """Prints the numbers as a table, and what the attribution says.

        Args:
            title: Name of the network and its policy.
        """
        heading = f"{title}: {self.images} images, {self.shifts}"
        if self.select:
            beside = {number.name: (number.text, number.ends) for number in self.numbers_without()}
            columns = ("measure", "without", "95% interval", f"select {self.select['select']}", "95% interval")
            rows = [(name, *beside.get(name, ("", "")), value, ends) for name, value, ends in self.rows()]
            print_table(heading, columns, rows)
        else:
            print_table(heading, ("measure", "value", "95% interval"), self.rows())
        for line in self.explanation:
            print(line)
        if self.skipped:
            print(f"{len(self.skipped)} damaged files were skipped; measure.json names them")

    def __str__(self) -> str:
        lines = [f"{self.images} images"]
        lines += [f"{name:<34}{value:>8}  {between}".rstrip() for name, value, between in self.rows()]
        return "\n".join([*lines, *self.explanation])
