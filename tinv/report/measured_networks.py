"""Networks that `tinv measure` has measured, side by side: a row each, and a picture with a panel a measure."""

from __future__ import annotations

import json
import sys
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinv.errors import TinvError
from tinv.evaluation.measure_page import network_title, policies
from tinv.evaluation.measured_numbers import AXES, Number, dots, numbers_of
from tinv.report.published import guess_unit
from tinv.report.tables import latex_table, markdown_table, print_grid
from tinv.utils.html_pages import figure_source
from tinv.utils.io import read_json

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TITLE = "Measured networks"
PICTURE = "measured_networks"
"""Name of the picture's file, without its ending."""

MAIN = (
    *("acc", "consistency", "consistency_corrected", "diagonal_acc", "worst_case_acc", "worst_case_consistency"),
    *("ring_never_changed", "ring_robust_acc", "map/consistency", "consistency_cosine", "layer_error_last", "lie"),
)
"""The numbers that tables and the picture show, in this order, where a network has them; CSV has all."""
HEADINGS = ("network", "backbone", "policies", "images")
COMPARED = ("images", "protocol", "as_published", "mode", "offset_range", "passes", "seed", "input_size")
"""Options in which networks must agree for their numbers to compare."""
PANELS = 3
"""Panels in a row of the picture."""


@dataclass(frozen=True)
class MeasuredNetwork:
    """One measure.json.

    Attributes:
        name: Name of its folder; the whole path if another one has the same name.
        path: Its folder.
        found: What the file holds.
    """

    name: str
    path: Path
    found: Mapping[str, Any]

    @property
    def options(self) -> Mapping[str, Any]:
        """The options it was measured with; empty if they were not written."""
        options: Mapping[str, Any] = self.found.get("options") or {}
        return options

    @property
    def numbers(self) -> dict[str, Number]:
        """The numbers by name; files of earlier versions name no units, which are guessed."""
        metrics, units = self.found["metrics"], self.found.get("units") or {}
        guessed = {name: "cosine" if "cosine" in name or "mcs" in name else guess_unit(name) for name in metrics}
        return {number.name: number for number in numbers_of(metrics, guessed | units)}

    @property
    def heading(self) -> list[str]:
        """What HEADINGS name."""
        return [self.name, network_title(self.found), policies(self.found), str(self.found.get("images", ""))]


def collect_measured(folders: Iterable[Path]) -> list[MeasuredNetwork]:
    """Returns what `tinv measure` has written below some folders; a folder that is not there holds nothing.

    A damaged measure.json is named on stderr and left out.
    """
    found: dict[Path, tuple[Path, Mapping[str, Any]]] = {}
    for folder in folders:
        for path in sorted(folder.rglob("measure.json")):
            if (own := path.parent.resolve()) in found:
                continue  # folders may hold each other: a network counts once
            try:
                found[own] = path.parent, _read(path)
            except TinvError as error:
                print(f"note: {error}; it is left out", file=sys.stderr)
    counts = Counter(own.name for own in found)
    return [
        MeasuredNetwork(own.name if counts[own.name] == 1 else str(path), path, content)
        for own, (path, content) in found.items()
    ]


def _read(path: Path) -> Mapping[str, Any]:
    """Returns what a measure.json holds; TinvError if it is damaged or nothing that `tinv measure` has written."""
    content = read_json(path)
    if not isinstance(content, dict) or not isinstance(content.get("metrics"), dict):
        raise TinvError(f"{path} is damaged (no numbers under metrics)")
    for key in ("options", "units"):
        if not isinstance(content.get(key) or {}, dict):
            raise TinvError(f"{path} is damaged ({key} is not a mapping)")
    return content


def measures(networks: Sequence[MeasuredNetwork]) -> list[str]:
    """Returns the main numbers that any of the networks has, and those of their protocols; all if there are none."""
    there = list(dict.fromkeys(name for network in networks for name in network.numbers))
    protocols = [network.found.get("protocol") or {} for network in networks]
    main = dict.fromkeys([*MAIN, *(name for protocol in protocols for name in protocol.get("reports") or {})])
    return [name for name in main if name in there] or there


def differences(networks: Sequence[MeasuredNetwork]) -> list[str]:
    """Returns a line for each option in which networks were not measured alike, and one for the number of images."""
    values = {key: [network.options.get(key) for network in networks] for key in COMPARED}
    values["number of images"] = [network.found.get("images") for network in networks]
    lines = []
    for key, given in values.items():
        named: dict[str, list[str]] = {}
        for network, value in zip(networks, given, strict=True):
            text = (
                "x".join(map(str, value)) if isinstance(value, list) else "not given" if value is None else str(value)
            )
            named.setdefault(text, []).append(network.name)
        if len(named) > 1:
            said = "; ".join(f"{text} ({', '.join(names)})" for text, names in named.items())
            lines.append(f"Not measured alike, so that numbers may not compare: {key} is {said}")
    return lines


def _lines(networks: Sequence[MeasuredNetwork], form: str = "{} ({})") -> tuple[list[str], list[list[str]]]:
    """Returns headings and a line for each network; `form` says how a number and its interval are put together."""
    names = measures(networks)
    return [*HEADINGS, *names], [
        [*network.heading, *(_text(network.numbers.get(name), form) for name in names)] for network in networks
    ]


def _text(number: Number | None, form: str = "{} ({})") -> str:
    if number is None:
        return ""
    return form.format(number.text, number.ends) if number.interval else number.text


def print_measured(networks: Sequence[MeasuredNetwork]) -> None:
    """Prints a row for each network, and in what they were not measured alike."""
    head, lines = _lines(networks, "{}\n{}")
    # words of a name break into lines, which keeps columns narrow
    head = [name.replace("_", " ").replace("/", "/ ") for name in head]
    print_grid(TITLE, head, lines, head[len(HEADINGS) - 1 :])
    print("".join(f"{line}\n" for line in differences(networks)), end="")


def measured_text(form: str, networks: Sequence[MeasuredNetwork]) -> str:
    """Returns the table as text.

    Args:
        form: `md`, `latex`, or `csv`, which holds every number and its interval, unrounded.
        networks: At least one.
    """
    if form == "csv":
        return _comma_separated(networks)
    head, lines = _lines(networks)
    numbers = head[len(HEADINGS) - 1 :]
    if form == "latex":
        return latex_table(TITLE, head, lines, numbers)
    notes = "".join(f"\n- {line}" for line in differences(networks))
    return markdown_table(TITLE, head, lines, numbers) + (f"{notes}\n" if notes else "")


def _comma_separated(networks: Sequence[MeasuredNetwork]) -> str:
    import pandas

    rows = []
    for network in networks:
        told = dict(zip(HEADINGS, network.heading, strict=True)) | {"path": str(network.path)}
        row: dict[str, Any] = dict(told)
        for name, number in network.numbers.items():
            low, high = number.interval or (None, None)
            row |= {name: number.value, f"{name}_low": low, f"{name}_high": high}
        rows.append(row)
    return pandas.DataFrame(rows, dtype=object).dropna(axis=1, how="all").to_csv(index=False)


def measured_figure(networks: Sequence[MeasuredNetwork]) -> Figure | None:
    """Draws a panel for each measure, with a dot and its interval for each network; None if there is no number."""
    from matplotlib.figure import Figure

    names = measures(networks)
    if not names:
        return None
    rows, columns = -(-len(names) // PANELS), min(PANELS, len(names))
    size = (2.2 + 2.7 * columns, rows * (1.2 + 0.3 * len(networks)))
    figure = Figure(figsize=size, layout="constrained", dpi=120)
    figure.get_layout_engine().set(h_pad=0.1)  # type: ignore[union-attr,call-arg]
    panels = figure.subplots(rows, columns, squeeze=False, sharey=True)
    for axes in panels.flat[len(names) :]:
        axes.set_visible(False)
    for axes, name in zip(panels.flat, names, strict=False):
        numbers = [network.numbers.get(name) for network in networks]
        dots(axes, [network.name for network in networks], numbers)
        unit = next(number.unit for number in numbers if number is not None)
        axes.set_title(name, fontsize=10)
        axes.set_xlabel(AXES.get(unit, unit), fontsize=9)
    return figure


def measured_section(networks: Sequence[MeasuredNetwork]) -> dict[str, Any]:
    """Returns the networks as a section of the page of `tinv report`, see `tinv.report.html_report.html_report`."""
    names = measures(networks)
    figures = []
    if (figure := measured_figure(networks)) is not None:
        figures.append({"alt": f"{TITLE}: {', '.join(names)}", "source": figure_source(figure), "wide": True})
    return {
        "name": PICTURE,
        "title": TITLE,
        "figures": figures,
        "columns": [{"name": name, "style": "" if name in HEADINGS[:-1] else "n"} for name in [*HEADINGS, *names]],
        "rows": [_row(network, names) for network in networks],
        "remarks": differences(networks),
        "details": f"{len(networks)} networks and their options",
        "runs": [
            {
                "bad": False,
                "title": f"{network.name}: {network_title(network.found)}",
                "text": f"{network.path}\n{json.dumps(network.options, indent=2, ensure_ascii=False)}",
            }
            for network in networks
        ],
    }


def _row(network: MeasuredNetwork, names: Sequence[str]) -> list[dict[str, Any]]:
    cells: list[dict[str, Any]] = [{"text": text, "value": text, "style": ""} for text in network.heading]
    cells[-1]["style"] = "n"
    for name in names:
        number = network.numbers.get(name)
        cells.append({"text": _text(number), "value": "" if number is None else number.value, "style": "n"})
    return cells
