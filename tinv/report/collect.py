"""Finds the results of finished runs and puts those that differ only in the seed together."""

from __future__ import annotations

import json
import statistics
import sys
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tinv.errors import TinvError
from tinv.nested import flatten
from tinv.report.published import Value, published_for

NOT_COMPARED = ("seed_everything", "run_dir", "runs", "ckpt_path", "untrained", "wandb")
"""Keys in which the runs of one cell may differ."""


@dataclass
class Cell:
    """All finished runs of one configuration.

    Attributes:
        setting: the keys in which the experiment's cells differ, with this cell's values.
        config: of one of its runs.
        values: each metric's value in every run, seeds in order.
    """

    setting: dict[str, Any]
    config: dict[str, Any]
    values: dict[str, list[float]] = field(default_factory=dict)

    @property
    def published(self) -> dict[str, Value]:
        """The published value of each metric, where there is one."""
        return published_for(self.config)

    def mean(self, metric: str) -> float:
        """Returns the mean over seeds."""
        return statistics.fmean(self.values[metric])

    def std(self, metric: str) -> float | None:
        """Returns the standard deviation over seeds (n - 1), None for a single run."""
        return statistics.stdev(self.values[metric]) if len(self.values[metric]) > 1 else None


def collect(folders: Iterable[Path]) -> dict[str, list[Cell]]:
    """Returns the cells of every experiment with finished `fit` runs below the folders.

    A damaged results.json is named on stderr and left out.

    Raises:
        TinvError: if a folder is not there, or nothing finished was found.
    """
    experiments: dict[str, list[dict[str, Any]]] = {}
    looked_at = []
    for folder in folders:
        if not folder.is_dir():
            raise TinvError(f"no folder {folder}; name one that holds runs, such as runs/red_green")
        looked_at.append(str(folder))
        for path in sorted(folder.rglob("results.json")):
            try:
                results = json.loads(path.read_text())
                if results["command"] == "fit" and results["status"] == "finished":
                    experiments.setdefault(str(results["experiment"]), []).append(results)
                    _ = dict(results["metrics"]), dict(results["config"])
            except (OSError, ValueError, KeyError, TypeError) as error:
                print(f"note: {path} is damaged and left out ({type(error).__name__}: {error})", file=sys.stderr)
    if not experiments:
        raise TinvError(f"no finished run in {', '.join(looked_at)}; run tinv fit first")
    return {name: _cells(runs) for name, runs in sorted(experiments.items())}


def _cells(runs: list[dict[str, Any]]) -> list[Cell]:
    flat = [{k: v for k, v in flatten(run["config"]) if k.partition(".")[0] not in NOT_COMPARED} for run in runs]
    keys = sorted({key for config in flat for key in config})
    varying = [key for key in keys if len({repr(config.get(key)) for config in flat}) > 1]
    cells: dict[str, Cell] = {}
    order = sorted(range(len(runs)), key=lambda n: str(runs[n]["seed"]))
    for number in order:
        setting = {key: flat[number].get(key) for key in varying}
        cell = cells.setdefault(repr(setting), Cell(setting, runs[number]["config"]))
        for metric, value in runs[number]["metrics"].items():
            cell.values.setdefault(metric, []).append(float(value))
    return sorted(cells.values(), key=lambda cell: _order(cell))


def _order(cell: Cell) -> tuple[Any, ...]:
    """Numbers by size, then names; paddings in the order of the papers."""
    from tinv.policies.cards import PADDINGS

    def key(value: Any) -> tuple[int, Any]:
        if isinstance(value, int | float) and not isinstance(value, bool):
            return (0, value)
        return (1, PADDINGS.index(value)) if value in PADDINGS else (2, str(value))

    return tuple(key(value) for value in cell.setting.values())
