"""The logger for Weights & Biases, which costs a run nothing but its own log when the server is out of reach."""

from __future__ import annotations

import contextlib
import io
import os
import sys
from typing import Any

import wandb
from lightning.fabric.loggers.logger import rank_zero_experiment
from lightning.pytorch.loggers import WandbLogger

from tinv.errors import TinvError

LIMITS_S = {"INIT": 20.0, "FINISH": 45.0}
"""Seconds that W&B may take to begin a run (about ten more pass before its client gives up) and to receive its end."""


def _settings() -> wandb.Settings:
    # the user's own limits stand
    start, end = (_seconds(f"WANDB_{key}_TIMEOUT", limit) for key, limit in LIMITS_S.items())
    return wandb.Settings(init_timeout=start, finish_timeout=end, finish_timeout_raises=True)


def _seconds(name: str, default: float) -> float:
    text = os.environ.get(name, str(default))
    try:
        return float(text)
    except ValueError as error:
        raise TinvError(f"environment variable {name}={text!r} is no number of seconds; unset it") from error


class LastingWandbLogger(WandbLogger):
    """Sends a run to W&B; where the server is out of reach or refuses the run, keeps its log on disk.

    Args:
        options: Options of `lightning.pytorch.loggers.WandbLogger`.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._wandb_init.pop("anonymous", None)  # the client warns of it

    @property
    @rank_zero_experiment
    def experiment(self) -> Any:
        """Returns the W&B run; begins it at the first call, offline if there is no other way."""
        if self._experiment is None:
            try:
                self._wandb_init["settings"] = _settings()
                return super().experiment
            except (wandb.Error, OSError, ValueError) as error:
                self._begin_offline(error)
        return super().experiment

    def _begin_offline(self, error: Exception) -> None:
        reason = " ".join((str(error).partition("Consider increasing")[0].strip() or type(error).__name__).split())
        if "base_url" in reason:
            # a malformed address is refused offline too
            reason = f"WANDB_BASE_URL={os.environ.pop('WANDB_BASE_URL', '')} is no address"
        self._wandb_init |= {"mode": "offline", "settings": _settings()}
        with contextlib.redirect_stderr(io.StringIO()):
            run = super().experiment
        print(
            f"warning: W&B takes no run ({reason}); the log is kept offline, send it later with: wandb sync "
            f"{run.settings.sync_dir}",
            file=sys.stderr,
        )


def end_run(ok: bool) -> None:
    """Ends the W&B run of this process, if there is one, so that its summary is complete.

    Args:
        ok: Whether the run has finished.
    """
    run = wandb.run
    if run is None:
        return
    output = io.StringIO()
    try:
        with contextlib.redirect_stderr(output):
            run.finish(exit_code=0 if ok else 1)
    except (wandb.Error, OSError) as error:
        reason = " ".join(str(error).split()).rstrip(".") or type(error).__name__
        print(
            f"warning: W&B has not received the whole log ({reason}); it is kept, send it later with: wandb sync "
            f"{run.settings.sync_dir}",
            file=sys.stderr,
        )
        return
    print(output.getvalue(), file=sys.stderr, end="")
