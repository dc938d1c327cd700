"""Weights & Biases: whether a run is sent there, and under which name."""

from __future__ import annotations

import os
import re
import sys
from pathlib import Path
from typing import Any, Literal

WandbMode = Literal["auto", "off", "online", "offline"]
"""auto: online under a W&B agent, off elsewhere."""


def wandb_logger(mode: WandbMode, config: dict[str, Any], folder: Path) -> Any:
    """Returns Lightning's logger for Weights & Biases, or None if the run is not sent there.

    Only the first process of a distributed run makes a W&B run; its configuration is the full resolved one. A run that
    is resumed stays the same W&B run.

    Args:
        mode: Value of `wandb` in the configuration.
        config: Configuration with every default filled in.
        folder: Folder of the run; W&B's own files lie in `wandb/` in it.
    """
    under_agent = "WANDB_SWEEP_ID" in os.environ
    if mode == "off" or (mode == "auto" and not under_agent):
        return None
    from tinv.runs.lasting_logger import LastingWandbLogger

    options: dict[str, Any] = {"mode": "offline"} if mode == "offline" else {}
    return LastingWandbLogger(
        name=f"{config['experiment']}/{folder.name}",
        # an agent gives the run's id, and the project of the sweep
        id=None if under_agent else earlier_id(folder),
        project=os.environ.get("WANDB_PROJECT", "tinv"),
        group=None if under_agent else config["experiment"],
        save_dir=str(folder),
        config=config,
        **options,
    )


def earlier_id(folder: Path) -> str | None:
    """Returns the id of the W&B run that a run folder already belongs to, None for a new one."""
    # run-DATE_TIME-ID or offline-run-DATE_TIME-ID; an id may have hyphens of its own
    named = (
        re.fullmatch(r"(?:offline-)?run-(\d{8}_\d{6})-(.+)", path.name) for path in (folder / "wandb").glob("*run-*")
    )
    found = sorted(match.groups() for match in named if match is not None)
    return found[-1][1] if found else None


def end_wandb(ok: bool) -> None:
    """Ends the W&B run of this process, if there is one, so that its summary is complete."""
    if "wandb" in sys.modules:
        from tinv.runs.lasting_logger import end_run

        end_run(ok)
