"""Tables for the terminal."""

from __future__ import annotations

from collections.abc import Mapping

from rich import box
from rich.console import Console
from rich.table import Table

from tinv.report.published import Value


def print_results(metrics: Mapping[str, float], published: Mapping[str, Value] | None, where: str) -> None:
    """Prints the test metrics of one run, beside the published numbers if there are any."""
    shown = {key: value for key, value in metrics.items() if key.startswith(("test/", "val/"))}
    if any(key.startswith("test/") for key in shown):
        shown = {key: value for key, value in shown.items() if key.startswith("test/")}
    table = Table(box=box.SIMPLE_HEAD, caption=where, caption_justify="left")
    table.add_column("metric")
    table.add_column("this run", justify="right")
    if published:
        table.add_column("published", justify="right")
        table.add_column("difference", justify="right")
    for key, value in shown.items():
        row = [key, f"{value:.4f}" if abs(value) <= 1.5 else f"{value:.2f}"]
        if published:
            known = published.get(key)
            row += [str(known), f"{value - known.mean:+.3g}"] if known else ["", ""]
        table.add_row(*row)
    Console().print(table)
