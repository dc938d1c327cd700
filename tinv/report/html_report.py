"""One HTML page that holds everything: tables that sort by a click, figures, each run's configuration."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tinv.config.merge import flatten
from tinv.report.collect import Run, RunGroup
from tinv.report.intervals import without_ends
from tinv.report.published import format_value
from tinv.report.tables import COLUMNS, Row, columns, headings, rows
from tinv.utils.html_pages import figure_source, page_template

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def html_report(
    experiments: Mapping[str, Sequence[RunGroup]],
    titles: Mapping[str, str],
    remarks: Mapping[str, Sequence[str]],
    figures: Mapping[str, Mapping[str, Figure]],
    more: Sequence[Mapping[str, Any]] = (),
) -> str:
    """Returns one HTML page that refers to no other file; `html/` beside this file holds its template.

    Args:
        experiments: Groups by experiment.
        titles: What stands over each.
        remarks: Lines below its table.
        figures: Its figures.
        more: Sections beside those of experiments, as the template takes them.
    """
    sections = [
        {
            "name": name,
            "title": titles[name],
            "figures": [
                {"alt": f"{name} {kind}".strip(), "source": figure_source(figure)}
                for kind, figure in figures[name].items()
            ],
            "columns": [{"name": column, "style": _style(column)} for column in [*headings(groups), *columns(groups)]],
            "rows": [_row(row, columns(groups)) for row in rows(groups)],
            "remarks": remarks[name],
            "details": f"{sum(len(group.runs) for group in groups)} runs and their configurations",
            "runs": [_run(group, run) for group in groups for run in group.runs],
        }
        for name, groups in experiments.items()
    ]
    return page_template("tinv.report", "page.html").render(sections=[*sections, *more]) + "\n"


def _row(row: Row, names: Sequence[str]) -> list[dict[str, Any]]:
    known = row.published.mean if row.published else None
    low = row.interval[0] if row.interval else None
    values = dict(zip(COLUMNS, [row.metric, row.n, row.mean, low, known, row.difference, row.group.note], strict=True))
    texts = dict(zip(COLUMNS, [*row.texts(), row.group.note], strict=True))
    settings = [_cell(str(value), value) for value in row.group.setting.values()]
    return settings + [_cell(texts[name], values[name], name) for name in names]


def _cell(text: str, value: Any, column: str = "") -> dict[str, Any]:
    return {"text": text, "value": "" if value is None else value, "style": _style(column)}


def _style(column: str) -> str:
    return "note" if column == "note" else "n" if column in COLUMNS[1:] else ""


def _run(group: RunGroup, run: Run) -> dict[str, Any]:
    settings = " ".join(f"{key.rpartition('.')[2]}={value}" for key, value in group.setting.items())
    tested = without_ends([key for key in run.metrics if key.startswith("test/")])
    numbers = {key: format_value(key, run.metrics[key], unit=run.units.get(key)) for key in tested}
    short = [f"{key.removeprefix('test/')} {number}" for key, number in numbers.items()]
    tail = "  ".join(short) if run.status == "finished" else f"{run.status}: {run.error}"
    config = "\n".join(f"{key}: {json.dumps(value)}" for key, value in flatten(run.config))
    took = f"\nduration_s: {run.duration_s}" if run.duration_s is not None else ""
    return {
        "bad": run.status != "finished",
        "title": f"{settings} seed {run.seed}: {tail}",
        "text": f"{run.path}{took}\n{config}",
    }
