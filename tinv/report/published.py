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

    Raises:
        TinvError: If the configuration names an entry that does not exist.
    """
    name = config.get("published")
    if name is None:
        return {}
    if name not in tables():
        raise unknown("published", name, tables())
    table = tables()[name]
    keys = [lookup(config, key) for key in table["keys"]]
    for row in table["rows"]:
        if row[: len(keys)] == keys:
            values = row[len(keys) :]
            return {metric: Value.read(value) for metric, value in zip(table["metrics"], values, strict=True)}
    return {}


def source(name: str) -> str:
    """Returns the paper and table an entry was taken from."""
    return str(tables()[name]["source"])
