"""The folder of a run: `config.yaml`, `metrics.csv`, `checkpoints/`, and last of all `results.json`."""

from __future__ import annotations

import contextlib
import json
import os
import platform
import secrets
import shutil
from collections.abc import Mapping, Sequence
from datetime import datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any, ClassVar

from filelock import FileLock, Timeout

from tinv.config import yaml_files
from tinv.config.identity import may_change_numbers, with_later_keys, without_location
from tinv.config.merge import flatten, with_new_names
from tinv.errors import TinvError
from tinv.runs.ranks import agreed, rank, ranks
from tinv.runs.results import RunResult
from tinv.utils.io import write_atomically

RUN_DIR_VARIABLE = "TINV_RUN_DIR"
"""Tells the other processes of a distributed run, which parse the same command line, where the first one writes."""


class RunFolder:
    """The folder of one run.

    Args:
        path: Path of the folder; made if it is not there.

    Raises:
        TinvError: If it cannot be made or written to.
    """

    current: ClassVar[RunFolder | None] = None
    """Folder of the run that this process works on."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.config = path / "config.yaml"
        self.metrics = path / "metrics.csv"
        self.results = path / "results.json"
        self.predictions = path / "predictions.csv"
        self.checkpoints = path / "checkpoints"
        self.best = self.checkpoints / "best.ckpt"
        self.last = self.checkpoints / "last.ckpt"
        self._lock = FileLock(path / ".lock", timeout=0)
        self._owner = path / ".owner"
        self._made: list[Path] = []

    def make(self) -> None:
        """Makes the folder, and holds it until `release` or the end of the process.

        Raises:
            TinvError: If it cannot be written to, or another process holds it.
        """
        try:
            self._made = [folder for folder in (self.path, *self.path.parents) if not folder.exists()]
            self.path.mkdir(parents=True, exist_ok=True)
            RunFolder.current = self
            if rank():
                return  # the first process of a distributed run holds it for all
            self._lock.acquire()
            self._owner.write_text(f"process {os.getpid()} on {platform.node()}")
        except Timeout as error:
            owner = self._owner.read_text() if self._owner.is_file() else "another process"
            raise TinvError(f"{owner} is writing to {self.path}; wait for it, or choose another --run_dir") from error
        except OSError as error:
            raise TinvError(
                f"cannot write to the run folder {self.path} ({error.strerror}); choose another with "
                "--run_dir or --runs"
            ) from error

    def release(self) -> None:
        """Lets go of the folder."""
        if self._lock.is_locked:
            self._owner.unlink(missing_ok=True)
            (self.path / ".lock").unlink(missing_ok=True)
            self._lock.release()

    def remove(self) -> None:
        """Removes the folder of a run that has not begun, and the folders that were made to hold it."""
        shutil.rmtree(self.path, ignore_errors=True)
        for folder in self._made[1:]:
            with contextlib.suppress(OSError):  # it holds something else
                folder.rmdir()

    def save_config(self, config: dict[str, Any]) -> None:
        """Writes `config.yaml`, the configuration with every default filled in; one process does."""
        if rank():
            return
        write_atomically(self.config, yaml_files.dump(config, width=120))

    def load_config(self) -> dict[str, Any]:
        """Reads `config.yaml`."""
        found: dict[str, Any] = with_new_names(yaml_files.read_mapping(self.config))
        return found

    def write_results(
        self,
        command: str,
        config: dict[str, Any],
        metrics: dict[str, float],
        duration_s: float,
        data: dict[str, Any],
        partial: Sequence[dict[str, Any]] = (),
        units: Mapping[str, str] | None = None,
    ) -> None:
        """Writes `results.json`: what everything downstream reads, and the sign that the run is finished.

        `data` is what the data module tells of itself, such as the checksum of a list of images; `partial` names the
        layers that the policies asked for were not put on, where that was allowed; `units` are those that metrics
        declare.
        """
        RunResult(
            status="finished",
            command=command,
            experiment=config.get("experiment") or "",
            seed=config.get("seed_everything"),
            config=config,
            metrics=metrics,
            duration_s=round(duration_s, 3),
            data=data,
            partial=list(partial),
            units=dict(units or {}),
            versions=versions(),
        ).write(self.results)


def versions() -> dict[str, str]:
    """Returns the versions that the numbers of a run depend on."""
    found = {"python": platform.python_version()}
    for name in ("tinv", "torch", "torchvision", "lightning", "torchmetrics", "timm", "numpy"):
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = "not installed"
    return found


def new_folder(command: str, config: dict[str, Any]) -> RunFolder:
    """Returns the folder that a new run writes to.

    `run_dir` if it is given, else a new one, `RUNS/EXPERIMENT/[COMMAND-]TIME-seedN-XXXX`.

    Raises:
        TinvError: If the folder already holds a run.
    """
    shared = os.environ.get(RUN_DIR_VARIABLE)
    if shared and rank() and ranks() < 2:
        return RunFolder(Path(shared))
    folder = RunFolder(Path(agreed("run_dir", lambda: str(_new_folder(command, config).path))))
    os.environ[RUN_DIR_VARIABLE] = str(folder.path)
    return folder


def _new_folder(command: str, config: dict[str, Any]) -> RunFolder:
    if config["run_dir"]:
        folder = RunFolder(Path(config["run_dir"]))
        if folder.results.exists():
            raise TinvError(f"{folder.path} already holds a finished run; choose another --run_dir")
        if folder.predictions.exists():
            raise TinvError(f"{folder.path} already holds predictions; choose another --run_dir")
        if folder.last.exists():
            raise TinvError(
                f"{folder.path} holds an unfinished run; resume it with --ckpt_path last, or choose another --run_dir"
            )
    else:
        name = f"{datetime.now():%Y%m%d-%H%M%S}-seed{config['seed_everything']}-{secrets.token_hex(2)}"
        name = name if command == "fit" else f"{command}-{name}"
        folder = RunFolder(Path(config["runs"]) / config["experiment"] / name)
    return folder


def unfinished_folder(config: dict[str, Any]) -> RunFolder:
    """Returns the folder of the run to resume: `run_dir`, else the newest stopped run of the same configuration.

    Raises:
        TinvError: If there is none, or it was configured differently (which keys is said).
    """
    shared = os.environ.get(RUN_DIR_VARIABLE)
    if shared and rank() and ranks() < 2:
        return RunFolder(Path(shared))
    folder = RunFolder(Path(agreed("run_dir", lambda: str(_unfinished_folder(config).path))))
    os.environ[RUN_DIR_VARIABLE] = str(folder.path)
    return folder


def _unfinished_folder(config: dict[str, Any]) -> RunFolder:
    if config["run_dir"]:
        folder = RunFolder(Path(config["run_dir"]))
        if folder.results.exists():
            raise TinvError(f"{folder.path} is finished, its results.json is there; leave out --ckpt_path")
        if not folder.last.exists():
            raise TinvError(f"there is no {folder.last} to resume from; leave out --ckpt_path to begin anew")
        if differing := differences(folder.load_config(), config):
            raise TinvError(
                f"{folder.path} was begun with another configuration ({', '.join(differing)}); give the same one, or "
                "leave out --ckpt_path for a new run"
            )
        return folder
    parent = Path(config["runs"]) / config["experiment"]
    candidates = sorted(parent.glob("*/checkpoints/last.ckpt"), key=lambda path: path.stat().st_mtime, reverse=True)
    for last in candidates:
        folder = RunFolder(last.parent.parent)
        if not folder.results.exists() and folder.config.exists() and not differences(folder.load_config(), config):
            return folder
    raise TinvError(
        f"no stopped run of this configuration in {parent}; name its folder with --run_dir, or leave out --ckpt_path"
    )


def differences(old: dict[str, Any], new: dict[str, Any], within: tuple[str, ...] = ()) -> list[str]:
    """Returns the dotted keys whose values differ between two configurations and may change its numbers.

    Args:
        old: A configuration.
        new: Another.
        within: Compares only these top-level keys; empty for all.
    """
    # through JSON, so that a tuple and the list that YAML makes of it are the same
    plain = [json.loads(json.dumps(without_location(config))) for config in (old, new)]
    sides = [with_later_keys(dict(flatten(config))) for config in plain]
    keys = sorted(sides[0].keys() | sides[1].keys())
    missing = object()
    return [
        key
        for key in keys
        if sides[0].get(key, missing) != sides[1].get(key, missing)
        and (not within or key.partition(".")[0] in within)
        and may_change_numbers(key)
    ]
