"""Tables for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich import box
from rich.console import Console
from rich.table import Table

from tinv.report.collect import Cell
from tinv.report.published import Value, written


def print_results(metrics: Mapping[str, float], published: Mapping[str, Value] | None, where: str) -> None:
    """Prints the test metrics of one run, beside the published numbers if there are any."""
    shown = {key: value for key, value in metrics.items() if key.startswith(("test/", "val/"))}
    if any(key.startswith("test/") for key in shown):
        shown = {key: value for key, value in shown.items() if key.startswith("test/")}
    table = Table(box=box.SIMPLE_HEAD)
    table.add_column("metric")
    table.add_column("this run", justify="right")
    if published:
        table.add_column("published", justify="right")
        table.add_column("difference", justify="right")
    for key, value in shown.items():
        row = [key, written(key, value)]
        if published:
            known = published.get(key)
            row += (
                [written(key, known.mean, known.std), written(key, value - known.mean, sign="+")] if known else ["", ""]
            )
        table.add_row(*row)
    Console().print(table)
    print(f"results: {where}")


def print_cells(experiment: str, cells: Sequence[Cell], published_in: str | None) -> None:
    """Prints one experiment: a line a cell and metric, mean ± standard deviation over seeds, beside the published."""
    title = experiment + (f"  (published: {published_in})" if published_in else "")
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for key in cells[0].setting:
        table.add_column(key.rpartition(".")[2], overflow="fold")
    table.add_column("metric", no_wrap=True)
    for column in ("n", "mean ± std", *(["published", "difference"] if published_in else [])):
        table.add_column(column, justify="right")
    for cell in cells:
        settings = [str(value) for value in cell.setting.values()]
        known = cell.published
        for metric in (name for name in cell.values if name.startswith("test/")):
            mean = cell.mean(metric)
            row = [*settings, metric, str(len(cell.values[metric])), written(metric, mean, cell.std(metric))]
            if published_in and metric in known:
                value = known[metric]
                row += [written(metric, value.mean, value.std), written(metric, mean - value.mean, sign="+")]
            table.add_row(*row)
            settings = [""] * len(settings)
    Console().print(table)
