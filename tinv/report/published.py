"""Which published numbers belong to a configuration."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tinv.config.merge import lookup
from tinv.errors import unknown


@dataclass(frozen=True)
class Value:
    """A published number: its mean, and its standard deviation over initialisations where one was given."""

    mean: float
    std: float | None = None

    @classmethod
    def read(cls, text: float | str) -> Value:
        """Reads `89.7` or `89.7±0.5`."""
        mean, _, std = str(text).partition("±")
        return cls(float(mean), float(std) if std else None)


DIGITS = {"percent": 1, "pixels": 1, "count": 0}
"""Digits after the point by unit; 3 for others."""


def guess_unit(metric: str) -> str:
    """Returns the unit of a metric whose results do not name it, by the words in its name."""
    percent = any(word in metric for word in ("acc", "consistency")) and "cosine" not in metric
    return "percent" if percent else "count" if metric.endswith("_length") else "ratio"


def format_value(metric: str, mean: float, std: float | None = None, sign: str = "", unit: str | None = None) -> str:
    """Returns a value as people write it, with as many digits as its unit has; None guesses the unit by the name."""
    digits = DIGITS.get(unit or guess_unit(metric), 3)
    return f"{mean:{sign}.{digits}f}" + (f"±{std:.{digits}f}" if std is not None else "")


@cache
def tables() -> dict[str, dict[str, Any]]:
    """Returns all entries of published.yaml."""
    content: dict[str, dict[str, Any]] = yaml.safe_load(Path(__file__).with_name("published.yaml").read_text())
    return content


def published_for(config: dict[str, Any]) -> dict[str, Value]:
    """Returns the published value of each metric for a configuration; empty if it names none or no row fits.

    A metric whose own options differ from the paper's has none, and nothing has where a condition of the entry is not
    met; `unmet_conditions` says which.

    Raises:
        TinvError: If the configuration names an entry that does not exist.
    """
    values = _fitting_row(config)
    if not values or _unmet(config, tables()[config["published"]].get("only", {})):
        return {}
    options = tables()[config["published"]]["metrics"]
    return {metric: value for metric, value in values.items() if not _unmet(_metric(config, metric), options[metric])}


def unmet_conditions(config: dict[str, Any]) -> str | None:
    """Returns what keeps the published numbers of a row away from a configuration, None if nothing does.

    Such as "the published numbers are for model.init_args.padding=same_zero, not same_circular".
    """
    values = _fitting_row(config)
    if not values:
        return None
    table = tables()[config["published"]]
    unmet = _unmet(config, table.get("only", {}))
    for metric in values:
        found = _unmet(_metric(config, metric), table["metrics"][metric])
        unmet |= {f"{key} of {metric}": pair for key, pair in found.items()}
    if not unmet:
        return None
    wanted = ", ".join(f"{key}={_text(want)}, not {_text(given)}" for key, (want, given) in unmet.items())
    return f"the published numbers are for {wanted}"


def _fitting_row(config: dict[str, Any]) -> dict[str, Value]:
    """Returns the values by metric of the row that the entry's keys choose; empty if there is none."""
    name = config.get("published")
    if name is None:
        return {}
    if name not in tables():
        raise unknown("published", name, tables())
    table = tables()[name]
    keys = [lookup(config, key) for key in table["keys"]]
    for row in table["rows"]:
        if row[: len(keys)] == keys:
            return {metric: Value.read(text) for metric, text in zip(table["metrics"], row[len(keys) :], strict=True)}
    return {}


def _unmet(config: dict[str, Any], conditions: dict[str, Any] | None) -> dict[str, tuple[Any, Any]]:
    """Returns the wanted and the given value of each key that has another value than the conditions want.

    Keys that a configuration does not have are not counted: results of earlier versions lack later ones.
    """
    found = {key: (want, _given(config, key, want)) for key, want in (conditions or {}).items()}
    return {key: (want, given) for key, (want, given) in found.items() if want != given}


def _given(config: dict[str, Any], key: str, default: Any) -> Any:
    """Returns the value of a dotted key, which may be None; the default if it is not there."""
    path, _, name = key.rpartition(".")
    parent = lookup(config, path) if path else config
    return parent.get(name, default) if isinstance(parent, dict) else default


def _metric(config: dict[str, Any], key: str) -> dict[str, Any]:
    """Returns the options of the metric of a configuration that reports under a key such as test/mcs; empty if none."""
    for metric in lookup(config, "model.init_args.metrics") or []:
        options: dict[str, Any] = metric.get("init_args") or {}
        if options.get("name") == key.partition("/")[2]:
            return options
    return {}


def _text(value: Any) -> str:
    """Returns a value of a configuration as people write it; a class without its arguments."""
    if isinstance(value, dict) and "class_path" in value:
        return str(value["class_path"])
    return "null" if value is None else str(value)


def source(name: str) -> str:
    """Returns the paper and table an entry was taken from."""
    return str(tables()[name]["source"])
