"""Protocols of papers, by name: which photographs are laid out how, and what is measured on them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal, get_args

import yaml

import tinv.metrics
from tinv.metrics import CenterAccuracy, InvarianceMetric
from tinv.translation import ShiftMode

ProtocolName = Literal["zhang2019", "kayhan2020", "chaman2021", "lps2022", "afc2023", "rics2024", "mouton2020"]
"""Each is a file of `protocols/`."""


@dataclass(frozen=True)
class Protocol:
    """What a paper did to its images, and what it counted.

    Attributes:
        name: Its name.
        what: What is compared, in a sentence.
        source: The paper, and where in it or in its code the protocol is described.
        input_size: Pixels a side that the network sees.
        resize: Pixels of the photograph's shorter side before its middle is cut out; None for as many as are kept.
        mode: How views differ.
        offset_range: The largest offset of a view in pixels.
        metrics: Options of the metrics by their names; `class` is that of `tinv.metrics`.
        reports: What the paper calls each number, by its name here.
        peculiarities: What the public code does that is no part of the question, with options that make metrics do so.
        assumed: What the paper leaves open, and what is done here.
    """

    name: str
    what: str
    source: str
    input_size: int
    mode: ShiftMode
    offset_range: int
    metrics: Mapping[str, Mapping[str, Any]]
    reports: Mapping[str, str]
    resize: int | None = None
    peculiarities: tuple[Mapping[str, Any], ...] = ()
    assumed: tuple[str, ...] = field(default=())

    def make_metrics(self, seed: int, as_published: bool = False) -> dict[str, InvarianceMetric]:
        """Returns the metrics of the protocol by name, and the accuracy on unmoved images.

        Args:
            seed: Seed of their shifts and intervals.
            as_published: Whether the peculiarities of the public code are repeated.
        """
        found: dict[str, InvarianceMetric] = {"acc": CenterAccuracy(seed)}
        for name, options in self.metrics.items():
            given = {key: value for key, value in options.items() if key != "class"}
            if as_published:
                for peculiarity in self.peculiarities:
                    given |= peculiarity.get("options", {}).get(name, {})
            seeded = {} if options["class"] == "TranslationSensitivityMap" else {"seed": seed}
            found[name] = getattr(tinv.metrics, options["class"])(**given, **seeded, name=name)
        return found

    def card(self, as_published: bool = False) -> dict[str, Any]:
        """Returns what is said of the protocol in `measure.json`."""
        return {
            "name": self.name,
            "what": self.what,
            "source": self.source,
            "input_size": self.input_size,
            "resize": self.resize,
            "mode": self.mode,
            "offset_range": self.offset_range,
            "metrics": {name: dict(options) for name, options in self.metrics.items()},
            "reports": dict(self.reports),
            "peculiarities": [
                {"what": each["what"], "repeated": as_published and "options" in each} for each in self.peculiarities
            ],
            "assumed": list(self.assumed),
        }


@cache
def load_protocol(name: ProtocolName) -> Protocol:
    """Returns a protocol by its name."""
    content = yaml.safe_load((Path(__file__).parent / "protocols" / f"{name}.yaml").read_text(encoding="utf-8"))
    content |= {key: tuple(content.get(key, ())) for key in ("peculiarities", "assumed")}
    return Protocol(name=name, **content)


def list_protocols() -> list[Protocol]:
    """Returns all protocols."""
    return [load_protocol(name) for name in get_args(ProtocolName)]
