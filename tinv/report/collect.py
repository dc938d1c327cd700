"""Finds the results of runs and puts those that differ only in the seed together."""

from __future__ import annotations

import itertools
import math
import statistics
import sys
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from tinv.config.identity import PRECISION, is_identity, is_machine_key, with_later_keys
from tinv.config.merge import flatten
from tinv.errors import TinvError
from tinv.policies.cards import ACTIVATIONS, PADDINGS, SUBSAMPLINGS, TOKENS
from tinv.report.published import Value, published_for, tables, unmet_conditions
from tinv.runs.results import RunResult
from tinv.sweeps.ledger import LEDGER, read_entries

LARGEST = 1e300
"""Larger numbers, whose sums overflow, are no measures."""

GroupStatus = Literal["finished", "failed", "excluded", "missing"]

POLICIES = tuple(f"model.init_args.{option}" for option in ("padding", "subsampling", "activation", "tokens"))
"""Keys whose value is a name or a class."""

ABSENT = "-"
"""Stands for a key that a group's configuration does not have."""


@dataclass(frozen=True, kw_only=True)
class Run(RunResult):
    """One results.json and its place; of its metrics those that are finite.

    Attributes:
        path: Path of its folder.
    """

    path: Path


@dataclass
class RunGroup:
    """All runs of one configuration.

    Attributes:
        setting: The keys in which the experiment's groups differ, with this group's values.
        runs: Runs of every seed, in order of the seed.
        seeds: Number of seeds of the best-filled group of the experiment.
        precisions: Precisions of the runs, where runs of the experiment differ in it.
        differing: Other keys of the machine in which its runs differ, which make no group.
    """

    setting: dict[str, Any]
    runs: list[Run] = field(default_factory=list)
    seeds: int = 0
    precisions: tuple[str, ...] = ()
    differing: tuple[str, ...] = ()

    @property
    def finished(self) -> list[Run]:
        """The runs that have metrics."""
        return [run for run in self.runs if run.status == "finished"]

    @property
    def failed(self) -> list[Run]:
        """The runs that failed."""
        return [run for run in self.runs if run.status == "failed"]

    @property
    def status(self) -> GroupStatus:
        """finished if any run is, else what the runs are; missing without any."""
        if self.finished or not self.runs:
            return "finished" if self.finished else "missing"
        return "failed" if self.failed else "excluded"

    @property
    def config(self) -> dict[str, Any]:
        """The configuration of one of the runs, a finished one if there is any."""
        return (self.finished or self.runs)[0].config if self.runs else {}

    @property
    def values(self) -> dict[str, list[float]]:
        """Each metric's value in every finished run, seeds in order."""
        found: dict[str, list[float]] = {}
        for run in self.finished:
            for metric, value in run.metrics.items():
                found.setdefault(metric, []).append(value)
        return found

    @property
    def published(self) -> dict[str, Value]:
        """The published value of each metric, where there is one."""
        return published_for(self.config) if self.runs else {}

    @property
    def note(self) -> str:
        """What is to be said beside the numbers: failures, seeds that are missing, why there are no numbers."""
        parts = []
        if self.status == "excluded":
            parts.append(f"excluded: {self.runs[0].error}")
        elif self.status == "missing":
            parts.append("missing")
        if self.failed:
            parts.append(f"{len(self.failed)} failed: {self.failed[0].error}")
        counts = Counter(str(run.seed) for run in self.finished if run.seed is not None)
        if repeated := [f"{count} of seed {seed}" for seed, count in counts.items() if count > 1]:
            parts.append(f"runs are not independent: {', '.join(repeated)}")
        lacking = self.seeds - len(self.finished) - len(self.failed)
        if lacking > 0 and self.status in ("finished", "failed"):
            parts.append(f"{lacking} of {self.seeds} seeds missing")
        if self.precisions:
            parts.append(f"precision {' and '.join(self.precisions)}")
        if self.differing:
            parts.append(f"runs differ in {', '.join(self.differing)}")
        if partial := next((run.partial for run in self.finished if run.partial), None):
            layers = ", ".join(note["layer"] for note in partial[:3])
            parts.append(f"partial: {len(partial)} layers not converted ({layers})")
        if self.finished and (reason := unmet_conditions(self.config)):
            parts.append(reason)
        return "; ".join(parts)

    def unit(self, metric: str) -> str | None:
        """Returns the unit that a metric declares; None in results of earlier versions."""
        return next((run.units[metric] for run in self.finished if metric in run.units), None)

    def mean(self, metric: str) -> float:
        """Returns the mean over seeds."""
        return statistics.fmean(self.values[metric])

    def std(self, metric: str) -> float | None:
        """Returns the standard deviation over seeds (n - 1), None for a single run."""
        values = self.values[metric]
        return statistics.stdev(values) if len(values) > 1 else None


def collect(folders: Iterable[Path], needed: bool = True) -> dict[str, list[RunGroup]]:
    """Returns the groups of every experiment with `fit` runs below the folders.

    A damaged results.json is named on stderr and left out.

    Args:
        folders: Folders to look through.
        needed: Whether there must be a run.

    Raises:
        TinvError: If a folder is not there, or no run was found although one is needed.
    """
    experiments: dict[str, list[Run]] = {}
    looked_at, seen = [], set()
    for folder in folders:
        if not folder.is_dir():
            raise TinvError(f"no folder {folder}; name one that holds runs, such as runs/red_green")
        looked_at.append(str(folder))
        for path in sorted(folder.rglob("results.json")):
            # folders may hold each other: a run counts once
            if (own := path.parent.resolve()) in seen:
                continue
            seen.add(own)
            try:
                found = RunResult.read(path)
            except TinvError as error:
                print(f"note: {error}; it is left out", file=sys.stderr)
                continue
            if found.command == "fit":
                checked = {"metrics": _measured(path, found.metrics), "config": _published_checked(path, found.config)}
                run = Run(**{**vars(found), **checked, "path": path.parent})
                experiments.setdefault(found.experiment, []).append(run)
    if not experiments and needed:
        raise TinvError(f"no finished run in {', '.join(looked_at)}; run tinv fit or tinv measure first")
    return {name: _groups(runs) for name, runs in sorted(experiments.items())}


def _measured(path: Path, values: dict[str, float]) -> dict[str, float]:
    """Returns the metrics that are finite; the others are named and left out."""
    # not so for NaN either
    usable = {key: value for key, value in values.items() if abs(value) <= LARGEST}
    if len(usable) < len(values):
        names = ", ".join(f"{key} {values[key]:g}" for key in values if key not in usable)
        print(f"note: {path}: {names} left out: not finite, or beyond {LARGEST:g}", file=sys.stderr)
    return usable


def _published_checked(path: Path, config: dict[str, Any]) -> dict[str, Any]:
    """Returns a configuration that names a published table that exists, or none."""
    name = config.get("published")
    if name is None or (isinstance(name, str) and name in tables()):
        return config
    print(f"note: {path}: there is no published table {name!r}; its numbers are shown alone", file=sys.stderr)
    return {**config, "published": None}


def settings_of(config: dict[str, Any]) -> dict[str, Any]:
    """Returns the dotted keys and values of a configuration that say what a run is, without its seed.

    A policy that is a class without arguments is one value, its path, as one that has a name is.
    """
    found = with_later_keys({key: value for key, value in flatten(config) if is_identity(key)})
    for key in POLICIES:
        if f"{key}.class_path" in found and not any(name.startswith(f"{key}.init_args.") for name in found):
            found[key] = found.pop(f"{key}.class_path")
            found.pop(f"{key}.init_args", None)
    return found


def _groups(runs: list[Run]) -> list[RunGroup]:
    import pandas

    runs = sorted(runs, key=lambda run: _seed_order(run.seed))
    flat = [settings_of(run.config) for run in runs]
    common = _common(runs, flat)
    # the configuration of a run that failed early lacks its defaults
    flat = [c if run.status == "finished" else _completed(c, common) for run, c in zip(runs, flat, strict=True)]
    written = pandas.DataFrame([{key: repr(value) for key, value in config.items()} for config in flat])
    written = written.fillna(repr(ABSENT))
    varying = [key for key in sorted(map(str, written)) if written[key].nunique() > 1]
    parts = written.groupby(varying, sort=False).indices.values() if varying else [range(len(runs))]
    found = []
    for part in parts:
        setting = {key: _plain(flat[part[0]].get(key, ABSENT)) for key in varying}
        found.append(RunGroup(setting, [runs[number] for number in part]))
    _name_differences(runs, found)
    found += _missing(found, runs)
    seeds = max(len(group.runs) for group in found)
    for group in found:
        group.seeds = seeds
    return sorted(found, key=lambda group: tuple(order(value) for value in group.setting.values()))


def _name_differences(runs: Sequence[Run], groups: Iterable[RunGroup]) -> None:
    """Notes the keys of the machine in which the runs of a group differ: they make no group.

    The precision, which changes numbers a little, is noted where any runs of the experiment differ in it.
    """

    def values(some: Iterable[Run]) -> dict[str, set[str]]:
        found: dict[str, set[str]] = {}
        for run in (run for run in some if run.status == "finished"):
            for key, value in flatten(run.config):
                if is_machine_key(key):
                    found.setdefault(key, set()).add(str(value))
        return found

    everywhere = values(runs)
    for group in groups:
        own = values(group.runs)
        if len(everywhere.get(PRECISION, ())) > 1:
            group.precisions = tuple(sorted(own.get(PRECISION, ())))
        group.differing = tuple(key for key in own if len(own[key]) > 1 and key != PRECISION)


def _common(runs: Sequence[Run], flat: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Returns the keys and values on which all finished runs agree."""
    finished = [config for run, config in zip(runs, flat, strict=True) if run.status == "finished"]
    if not finished:
        return {}
    return {
        key: value
        for key, value in finished[0].items()
        if all(key in config and config[key] == value for config in finished)
    }


def _completed(config: dict[str, Any], common: dict[str, Any]) -> dict[str, Any]:
    """Returns a configuration with the defaults that finished runs have in common filled in."""
    return {**common, **{k: common[k] if k in common and _is_part(v, common[k]) else v for k, v in config.items()}}


def _is_part(given: Any, whole: Any) -> bool:
    """Returns whether two values differ only in keys that one of them leaves out."""
    if isinstance(given, dict) and isinstance(whole, dict):
        return all(key in whole and _is_part(value, whole[key]) for key, value in given.items())
    if isinstance(given, list) and isinstance(whole, list):
        return len(given) == len(whole) and all(map(_is_part, given, whole))
    return bool(given == whole)


def _missing(groups: Sequence[RunGroup], runs: Sequence[Run]) -> list[RunGroup]:
    """Returns the groups of which there is no run: those in the ledger of a sweep, else those that complete a grid."""
    keys = list(groups[0].setting)
    ledgers = {run.path.parent.parent / LEDGER for run in runs}
    if all(path.is_file() for path in ledgers):
        entries = [entry for path in ledgers for entry in read_entries(path).values()]
        settings = [{key: _plain(value) for key, value in flatten(entry.settings)} for entry in entries]
        wanted = [{key: setting[key] for key in keys} for setting in settings if all(key in setting for key in keys)]
    else:
        axes = [list({repr(group.setting[key]): group.setting[key] for group in groups}.values()) for key in keys]
        size = math.prod(len(axis) for axis in axes)
        if len(keys) < 2 or not len(groups) < size <= 2 * len(groups):
            return []
        wanted = [dict(zip(keys, values, strict=True)) for values in itertools.product(*axes)]
    there = {repr(group.setting) for group in groups}
    return [RunGroup(setting) for text, setting in {repr(s): s for s in wanted}.items() if text not in there]


def _plain(value: Any) -> Any:
    """Returns a value as tables and figures show it: a list or a mapping as its text."""
    return str(value) if isinstance(value, list | dict) else value


def _seed_order(seed: Any) -> tuple[int, Any]:
    return (0, seed) if isinstance(seed, int) else (1, str(seed))


def order(value: Any) -> tuple[int, Any]:
    """Returns what values are sorted by: nothing, numbers by size, policies as in the papers, then names."""
    if value is None or value == ABSENT:
        return (-1, 0)
    if isinstance(value, int | float) and not isinstance(value, bool):
        return (0, value)
    value = "dilated" if value == "dense" else value  # as in results of an older version
    for policies in (PADDINGS, SUBSAMPLINGS, ACTIVATIONS, TOKENS):
        if value in policies:
            return (1, policies.index(value))
    return (2, str(value))
