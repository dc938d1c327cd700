"""What a run came to: the only reader and writer of `results.json`."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

from tinv.config.merge import with_new_names
from tinv.errors import TinvError
from tinv.utils.io import read_json, write_atomically

RunStatus = Literal["finished", "failed", "excluded"]


@dataclass(frozen=True)
class RunResult:
    """One `results.json`.

    Attributes:
        status: `finished`; of a cell of a sweep also `failed`, or `excluded` as impossible.
        command: Command that made the file.
        experiment: Experiment of the configuration.
        seed: Seed of the run.
        config: Configuration with every default filled in; of a run that failed early only what was given.
        metrics: Test metrics by name.
        duration_s: Seconds; None for a run that did not finish.
        data: What the data module tells of itself, such as the checksum of a list of images.
        units: Unit of those metrics that declare one: percent, cosine, ratio, pixels or per square pixel.
        partial: Layers that the policies were not put on, where that was allowed, each with the reason.
        versions: Versions of what the numbers depend on.
        error: Why it failed or is excluded.
    """

    status: RunStatus
    command: str
    experiment: str
    seed: Any
    config: dict[str, Any]
    metrics: dict[str, float]
    duration_s: float | None = None
    data: dict[str, Any] = field(default_factory=dict)
    units: dict[str, str] = field(default_factory=dict)
    partial: list[dict[str, Any]] = field(default_factory=list)
    versions: dict[str, str] = field(default_factory=dict)
    error: str = ""

    @staticmethod
    def read(path: Path) -> RunResult:
        """Reads a file.

        Raises:
            TinvError: If there is none, it cannot be read, or it is damaged.
        """
        try:
            return RunResult.from_dict(printable(read_json(path)))
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError, OverflowError) as error:
            raise TinvError(f"{path} is damaged ({type(error).__name__}: {error})") from error

    @staticmethod
    def read_if_there(path: Path) -> RunResult | None:
        """Reads a file; returns None if there is none.

        Raises:
            TinvError: If it cannot be read, or is damaged.
        """
        return RunResult.read(path) if path.exists() else None

    @staticmethod
    def from_dict(found: dict[str, Any]) -> RunResult:
        """Returns what a file holds.

        Raises:
            ValueError: For an unknown status; KeyError, TypeError or AttributeError for other damage.
        """
        if found["status"] not in get_args(RunStatus):
            raise ValueError(f"status {found['status']!r}")
        duration = found.get("duration_s")
        return RunResult(
            status=found["status"],
            command=str(found.get("command", "fit")),
            experiment=str(found.get("experiment") or "") or "(no name)",
            seed=found.get("seed"),
            config=with_new_names(dict(found["config"])),
            metrics={str(key): float(value) for key, value in found["metrics"].items()},
            duration_s=None if duration is None else float(duration),
            data=dict(found.get("data") or {}),
            units={str(key): str(unit) for key, unit in (found.get("units") or {}).items()},
            partial=[{**note, "layer": str(note["layer"])} for note in found.get("partial") or []],
            versions=dict(found.get("versions") or {}),
            error=str(found.get("error") or ""),
        )

    def to_dict(self) -> dict[str, Any]:
        """Returns what is written: everything that is there."""
        optional = ("duration_s", "data", "units", "partial", "versions", "error")
        return {
            key: value for key, value in vars(self).items() if key not in optional or value not in (None, {}, [], "")
        }

    def write(self, path: Path) -> None:
        """Writes a file, whole or not at all.

        Raises:
            OSError: If the disk does not take it.
        """
        write_atomically(path, json.dumps(self.to_dict(), indent=2) + "\n")


def printable(value: Any) -> Any:
    """Returns JSON without characters that a terminal or a file cannot take: control characters, surrogates."""
    if isinstance(value, str):
        text = value.encode("utf-8", "replace").decode()
        return "".join(c if c.isprintable() else " " for c in text)
    if isinstance(value, list):
        return [printable(item) for item in value]
    if isinstance(value, dict):
        return {printable(key): printable(item) for key, item in value.items()}
    return value
