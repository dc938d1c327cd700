"""One HTML page that holds everything: tables that sort by a click, pictures, each run's configuration."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from html import escape
from typing import TYPE_CHECKING, Any

from tinv.nested import flatten
from tinv.report.collect import Cell, Run
from tinv.report.intervals import without_ends
from tinv.report.published import written
from tinv.report.tables import COLUMNS, Row, columns, headings, rows

if TYPE_CHECKING:
    from matplotlib.figure import Figure

STYLE = """
:root { color-scheme: light dark; --line: #8884; --soft: #8881; --bad: #c0392b }
* { box-sizing: border-box }
body { font: 16px/1.5 system-ui, sans-serif; margin: 0 auto; padding: 1rem; max-width: 70rem }
h1 { font-size: 1.4rem; margin: 0 } h2 { font-size: 1.15rem; margin: 2.5rem 0 .3rem } p { margin: .3rem 0 }
nav a { margin-right: 1rem; white-space: nowrap } nav { display: flex; flex-wrap: wrap }
.wide { overflow-x: auto; margin: .8rem 0 }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th, td { padding: .25rem .7rem; border-bottom: 1px solid var(--line); text-align: left; white-space: nowrap }
td.n, th.n { text-align: right } td.note { white-space: normal; min-width: 14rem; color: var(--bad) }
th { position: sticky; top: 0; background: Canvas }
th button { all: unset; cursor: pointer; font-weight: 600 } th button:focus-visible { outline: 2px solid }
th[aria-sort=ascending] button::after { content: " \\2191" }
th[aria-sort=descending] button::after { content: " \\2193" }
tbody tr:hover { background: var(--soft) }
figure { margin: 1rem 0 } img { max-width: 100%; height: auto; background: white; border-radius: 4px }
details { border-bottom: 1px solid var(--line) } summary { cursor: pointer; padding: .35rem 0; overflow-wrap: anywhere }
details details { margin-left: 1rem }
pre { overflow-x: auto; background: var(--soft); padding: .7rem; border-radius: 4px; font-size: .8rem }
.bad { color: var(--bad) }
@media (max-width: 40rem) {
  body { padding: .6rem } table { font-size: .8rem }
  th, td { padding: .2rem .3rem } th { white-space: normal }
}
"""

SCRIPT = """
for (const button of document.querySelectorAll('th button')) button.addEventListener('click', () => {
  const head = button.closest('th'), body = head.closest('table').tBodies[0]
  const column = [...head.parentNode.children].indexOf(head)
  const down = head.getAttribute('aria-sort') === 'ascending'
  for (const other of head.parentNode.children) other.removeAttribute('aria-sort')
  head.setAttribute('aria-sort', down ? 'descending' : 'ascending')
  const key = row => row.children[column].dataset.value ?? row.children[column].textContent
  const compare = (a, b) => {
    if (a === '' || b === '') return (a === '') - (b === '') || 0
    const sign = down ? -1 : 1, difference = Number(a) - Number(b)
    return sign * (Number.isNaN(difference) ? a.localeCompare(b) : difference)
  }
  body.append(...[...body.rows].sort((a, b) => compare(key(a), key(b))))
})
"""


def page(
    experiments: Mapping[str, Sequence[Cell]],
    titles: Mapping[str, str],
    remarks: Mapping[str, Sequence[str]],
    figures: Mapping[str, Mapping[str, Figure]],
) -> str:
    """Returns one HTML page that refers to no other file.

    Args:
        experiments: cells by experiment.
        titles: what stands over each.
        remarks: lines below its table.
        figures: its pictures.
    """
    links = "".join(f'<a href="#{escape(name, quote=True)}">{escape(name)}</a>' for name in experiments)
    sections = []
    for name, cells in experiments.items():
        pictures = "".join(
            f'<figure><img alt="{escape(f"{name} {kind}".strip(), quote=True)}" src="{_data(figure)}"></figure>'
            for kind, figure in figures[name].items()
        )
        said = "".join(f"<p>{escape(line)}</p>" for line in remarks[name])
        sections.append(
            f'<section id="{escape(name, quote=True)}"><h2>{escape(titles[name])}</h2>'
            f'{pictures}<div class="wide">{_table(cells)}</div>{said}'
            f"<details><summary>{sum(len(c.runs) for c in cells)} runs and their configurations</summary>"
            f"{''.join(_run(cell, run) for cell in cells for run in cell.runs)}</details></section>"
        )
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>tinv report</title>'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f"<style>{STYLE}</style></head><body><h1>tinv report</h1><nav>{links}</nav>"
        f"{''.join(sections)}<script>{SCRIPT}</script></body></html>\n"
    )


def _table(cells: Sequence[Cell]) -> str:
    names = [*headings(cells), *columns(cells)]
    head = "".join(f'<th{_right(name)} scope="col"><button>{escape(name)}</button></th>' for name in names)
    body = "".join(_row(row, columns(cells)) for row in rows(cells))
    return f"<table><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"


def _row(row: Row, names: Sequence[str]) -> str:
    settings = "".join(_cell(str(value), value) for value in row.cell.setting.values())
    known = row.published.mean if row.published else None
    low = row.interval[0] if row.interval else None
    values = dict(zip(COLUMNS, [row.metric, row.n, row.mean, low, known, row.difference, row.cell.note], strict=True))
    texts = dict(zip(COLUMNS, [*row.texts(), row.cell.note], strict=True))
    return f"<tr>{settings}{''.join(_cell(texts[name], values[name], name) for name in names)}</tr>"


def _cell(text: str, value: Any, column: str = "") -> str:
    sort = "" if value is None else escape(str(value), quote=True)
    return f'<td{_right(column)} data-value="{sort}">{escape(text)}</td>'


def _right(column: str) -> str:
    return ' class="note"' if column == "note" else ' class="n"' if column in COLUMNS[1:] else ""


def _run(cell: Cell, run: Run) -> str:
    settings = " ".join(f"{key.rpartition('.')[2]}={value}" for key, value in cell.setting.items())
    tested = without_ends([key for key in run.metrics if key.startswith("test/")])
    short = [f"{key.removeprefix('test/')} {written(key, run.metrics[key])}" for key in tested]
    tail = "  ".join(short) if run.status == "finished" else f"{run.status}: {run.error}"
    mark = "" if run.status == "finished" else ' class="bad"'
    config = "\n".join(f"{key}: {json.dumps(value)}" for key, value in flatten(run.config))
    took = f"\nduration_s: {run.duration_s}" if run.duration_s is not None else ""
    return (
        f"<details><summary{mark}>{escape(settings)} seed {escape(str(run.seed))}: {escape(tail)}</summary>"
        f"<pre>{escape(str(run.path))}{took}\n{escape(config)}</pre></details>"
    )


def _data(figure: Figure) -> str:
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=130)
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
