"""Tables: in the terminal, and as Markdown, CSV and LaTeX."""

from __future__ import annotations

import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

from rich import box
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from tinv.report.collect import RunGroup
from tinv.report.intervals import interval, without_ends
from tinv.report.published import Value, format_value


@dataclass(frozen=True)
class Row:
    """One metric of one group; without metric for a group that has no numbers.

    Attributes:
        group: It belongs to.
        metric: Its name, or empty.
        published: The published value.
    """

    group: RunGroup
    metric: str
    published: Value | None

    @property
    def n(self) -> int:
        """The number of runs."""
        return len(self.group.values[self.metric]) if self.metric else 0

    @property
    def mean(self) -> float | None:
        """Over seeds."""
        return self.group.mean(self.metric) if self.metric else None

    @property
    def std(self) -> float | None:
        """Over seeds."""
        return self.group.std(self.metric) if self.metric else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """The bootstrap interval over images; none for several runs, whose spread over seeds says more."""
        if self.n != 1:
            return None
        return interval(self.metric, {name: values[0] for name, values in self.group.values.items()})

    @property
    def difference(self) -> float | None:
        """From the published mean."""
        return self.mean - self.published.mean if self.mean is not None and self.published else None

    def texts(self) -> list[str]:
        """Returns metric, n, mean ± std, interval, published, difference as people write them."""
        if self.mean is None:
            known = format_value(self.metric, self.published.mean, self.published.std) if self.published else ""
            return [self.metric, "0", self.group.status, "", known, ""]
        write = partial(format_value, self.metric, unit=self.group.unit(self.metric))
        texts = [self.metric, str(self.n), write(self.mean, self.std), ends(write, self.interval)]
        if self.published is None or self.difference is None:
            return [*texts, "", ""]
        return [*texts, write(self.published.mean, self.published.std), write(self.difference, sign="+")]


def ends(write: Callable[[float], str], both: tuple[float, float] | None) -> str:
    """Returns the ends of an interval as people write them; nothing for none."""
    return "" if both is None else " .. ".join(map(write, both))


def rows(groups: Sequence[RunGroup]) -> list[Row]:
    """Returns a row for every test metric of every group but ends of intervals, and one for a group without numbers."""
    found = []
    for group in groups:
        known = group.published
        metrics = without_ends([name for name in group.values if name.startswith("test/")])
        found += [Row(group, metric, known.get(metric)) for metric in metrics] or [Row(group, "", None)]
    return found


def headings(groups: Sequence[RunGroup]) -> list[str]:
    """Returns the keys in which groups differ, by their last words, or in full where those are the same."""
    keys = list(groups[0].setting)
    short = [key.rpartition(".")[2] for key in keys]
    return [name if short.count(name) == 1 else key for name, key in zip(short, keys, strict=True)]


COLUMNS = ("metric", "n", "mean ± std", "95% interval", "published", "difference", "note")
NUMBERS = COLUMNS[1:6]


def columns(groups: Sequence[RunGroup]) -> list[str]:
    """Returns the columns that follow the settings: intervals, published numbers and notes where there are any."""
    every = rows(groups)
    known = any(row.published for row in every)
    needed = {"95% interval": any(row.interval for row in every), "published": known, "difference": known}
    needed["note"] = any(group.note for group in groups)
    return [name for name in COLUMNS if needed.get(name, True)]


def _grid(groups: Sequence[RunGroup]) -> tuple[list[str], list[list[str]]]:
    """Returns headings and lines of text; a group's settings and its note stand in its first line only."""
    names = columns(groups)
    lines, previous = [], None
    for row in rows(groups):
        first = row.group is not previous
        settings = [str(value) if first else "" for value in row.group.setting.values()]
        texts = dict(zip(COLUMNS, [*row.texts(), row.group.note if first else ""], strict=True))
        lines.append([*settings, *(texts[name] for name in names)])
        previous = row.group
    return [*headings(groups), *names], lines


def print_results(
    metrics: Mapping[str, float],
    published: Mapping[str, Value] | None,
    where: str,
    units: Mapping[str, str] | None = None,
) -> None:
    """Prints the test metrics of one run in their units, beside the published numbers if there are any."""
    shown = {key: value for key, value in metrics.items() if key.startswith(("test/", "val/"))}
    if any(key.startswith("test/") for key in shown):
        shown = {key: value for key, value in shown.items() if key.startswith("test/")}
    names = ["metric", "this run", "95% interval", *(["published", "difference"] if published else [])]
    lines = []
    for key in without_ends(shown):
        write = partial(format_value, key, unit=(units or {}).get(key))
        line = [key, write(shown[key]), ends(write, interval(key, shown))]
        if known := (published or {}).get(key):
            line += [write(known.mean, known.std), write(shown[key] - known.mean, sign="+")]
        lines.append(line)
    if not any(line[2] for line in lines):
        names, lines = names[:2] + names[3:], [line[:2] + line[3:] for line in lines]
    table = Table("metric", box=box.SIMPLE_HEAD)
    for name in names[1:]:
        table.add_column(name, justify="right")
    for line in lines:
        table.add_row(*line)
    Console().print(table)
    print(f"results: {where}")


def print_groups(title: str, groups: Sequence[RunGroup]) -> None:
    """Prints one experiment: a line a group and metric, mean ± standard deviation over seeds, beside the published."""
    head, lines = _grid(groups)
    if head[-1] == "note":
        # in lines of their own below, where there is room
        head, lines = head[:-1], [line[:-1] for line in lines]
    print_grid(title, head, lines, NUMBERS, COLUMNS[:6])
    for group in (group for group in groups if group.note):
        settings = [f"{name}={value}" for name, value in zip(head, group.setting.values(), strict=False)]
        print(f"{' '.join(settings) or 'all runs'}: {group.note}")


def print_grid(
    title: str,
    head: Sequence[str],
    lines: Sequence[Sequence[str]],
    numbers: Collection[str],
    unbroken: Collection[str] = (),
) -> None:
    """Prints a table.

    Args:
        title: What stands over it.
        head: Headings.
        lines: Texts of each line.
        numbers: Headings of the columns that hold numbers, which end at one edge.
        unbroken: Headings of the columns whose texts are not broken into lines.
    """
    table = Table(title=escape(title), title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in head:
        right = name in numbers
        table.add_column(escape(name), justify="right" if right else "left", no_wrap=name in unbroken, overflow="fold")
    for line in lines:
        table.add_row(*map(escape, line))
    # a file or another program has room; rich would take it for 80 columns
    Console(width=None if sys.stdout.isatty() else 160).print(table)


def markdown(title: str, groups: Sequence[RunGroup]) -> str:
    """Returns one experiment as a section with a Markdown table."""
    return markdown_table(title, *_grid(groups), NUMBERS)


def markdown_table(title: str, head: Sequence[str], lines: Sequence[Sequence[str]], numbers: Collection[str]) -> str:
    """Returns a section with a Markdown table; see `print_grid` for the arguments."""
    body = [head, ["---:" if name in numbers else "---" for name in head], *lines]
    table = "\n".join("| " + " | ".join(text.replace("|", "\\|") for text in line) + " |" for line in body)
    return f"## {title}\n\n{table}\n"


LATEX = str.maketrans({c: f"\\{c}" for c in "&%$#_{}"} | {"±": "$\\pm$", "~": "\\textasciitilde{}", "^": "\\^{}"})


def latex(title: str, groups: Sequence[RunGroup]) -> str:
    """Returns one experiment as a LaTeX table for the package booktabs."""
    return latex_table(title, *_grid(groups), NUMBERS)


def latex_table(title: str, head: Sequence[str], lines: Sequence[Sequence[str]], numbers: Collection[str]) -> str:
    """Returns a LaTeX table for the package booktabs; see `print_grid` for the arguments."""
    columns = "".join("r" if name in numbers else "l" for name in head)
    body = [" & ".join(_latex(text) for text in line) + r" \\" for line in [head, *lines]]
    return "\n".join(
        [
            r"\begin{table}",
            rf"\caption{{{_latex(title)}}}",
            rf"\begin{{tabular}}{{{columns}}}",
            r"\toprule",
            body[0],
            r"\midrule",
            *body[1:],
            r"\bottomrule",
            r"\end{tabular}",
            r"\end{table}",
            "",
        ]
    )


def _latex(text: str) -> str:
    return text.replace("\\", "/").translate(LATEX)


def comma_separated(experiments: Mapping[str, Sequence[RunGroup]]) -> str:
    """Returns all experiments as one CSV table of full numbers: a line a group and metric.

    Settings are the columns of all keys in which the groups of any experiment differ.
    """
    import pandas

    keys = list(dict.fromkeys(key for groups in experiments.values() for key in groups[0].setting))
    table = []
    for name, groups in experiments.items():
        for row in rows(groups):
            low, high = row.interval or (None, None)
            known = row.published or Value(float("nan"))
            numbers: dict[str, Any] = {"n": row.n, "mean": row.mean, "std": row.std, "low": low, "high": high}
            numbers |= {"published": known.mean, "published_std": known.std, "difference": row.difference}
            settings = {key: row.group.setting.get(key, "") for key in keys}
            notes = {"status": row.group.status, "note": row.group.note}
            table.append({"experiment": name, **settings, "metric": row.metric, **numbers, **notes})
    return pandas.DataFrame(table, dtype=object).to_csv(index=False)
