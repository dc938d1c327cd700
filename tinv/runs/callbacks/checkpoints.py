"""The checkpoints of a run: the best epoch, and the state to resume from, with the table of epochs."""

from __future__ import annotations

import csv
import io
import sys
import time
from typing import Any

import torch
from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint

from tinv.runs.folder import RunFolder
from tinv.utils.io import write_atomically


class BestCheckpoint(ModelCheckpoint):
    """Keeps the weights of the best epoch as `checkpoints/best.ckpt`.

    Args:
        monitor: Logged value that decides.
        mode: `min` or `max`.
    """

    def __init__(self, folder: RunFolder, monitor: str, mode: str) -> None:
        super().__init__(
            dirpath=folder.checkpoints,
            filename="best",
            monitor=monitor,
            mode=mode,
            save_on_train_epoch_end=True,
            enable_version_counter=False,
        )


class LastCheckpoint(Checkpoint):
    """Keeps `checkpoints/last.ckpt`, the state at the latest beginning of an epoch, and the table `metrics.csv`.

    A run stopped at any moment resumes from there exactly: the epoch it was in is run again from its start, with the
    same order, shifts and random numbers. The rows of finished epochs travel in the checkpoint, so the table of a
    resumed run is that of an uninterrupted one. (A Checkpoint, so that Lightning calls it after the task has logged.)

    Lightning's own ModelCheckpoint and CSVLogger cannot take its place: the first saves an epoch before its plateau
    schedulers have stepped, and the second writes training and validation of one epoch into different rows.
    """

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self.rows: list[dict[str, float]] = []
        self.stopped_early = self.has_begun = False
        self.earlier_s = 0.0
        # the latest values by name: schedulers and other callbacks may look at those of an earlier validation
        self.latest: dict[str, torch.Tensor] = {}
        self.started = time.monotonic()

    @property
    def duration_s(self) -> float:
        """Seconds since the run began, without those between a stop and its resumption."""
        return self.earlier_s + time.monotonic() - self.started

    def state_dict(self) -> dict[str, Any]:
        """Returns the table so far, whether training has ended before its last epoch, and the time spent."""
        latest = {key: float(value) for key, value in self.latest.items()}
        return {
            "rows": self.rows, "stopped_early": self.stopped_early, "duration_s": self.duration_s, "latest": latest
        }  # fmt: skip

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes up the table."""
        self.rows, self.stopped_early = list(state_dict["rows"]), state_dict["stopped_early"]
        self.earlier_s = state_dict["duration_s"]
        # doubles, which hold any value exactly; checkpoints of earlier versions have none
        self.latest = {key: torch.tensor(v, dtype=torch.float64) for key, v in state_dict.get("latest", {}).items()}

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Ends at once if the stopped run had already decided to stop training."""
        self.has_begun = True
        trainer.callback_metrics.update(self.latest)
        if self.stopped_early:
            trainer.should_stop = True
        elif self.rows:
            print(f"resuming after epoch {len(self.rows)}", file=sys.stderr)

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Saves the state from which this epoch begins."""
        # Lightning sets these counters back a moment later; as they are they say that this epoch's batches are done
        loop = trainer.fit_loop.epoch_loop
        for progress in (loop.batch_progress, loop.scheduler_progress, loop.automatic_optimization.optim_progress):
            progress.reset_on_run()
        self.latest = dict(trainer.callback_metrics)
        trainer.save_checkpoint(self.folder.last)

    def on_train_batch_start(self, trainer: Trainer, pl_module: LightningModule, batch: Any, batch_idx: int) -> None:
        """Tells Lightning that a resumed epoch runs from its start: it would leave ReduceLROnPlateau's step out."""
        trainer.fit_loop._restarting = False

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Adds the epoch to the table."""
        # those logged in this epoch; Lightning keeps the values of an earlier validation too, the same objects
        values = {
            key: float(value)
            for key, value in sorted(trainer.callback_metrics.items())
            if self.latest.get(key) is not value
        }
        rates = {f"lr/{n}" if n else "lr": g["lr"] for n, g in enumerate(trainer.optimizers[0].param_groups)}
        self.rows.append({"epoch": trainer.current_epoch, "step": trainer.global_step, **values, **rates})
        if trainer.is_global_zero:
            write_atomically(self.folder.metrics, table_csv(self.rows))
            if trainer.progress_bar_callback is None:
                shown = "  ".join(f"{key} {value:.4g}" for key, value in values.items())
                print(f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}  {shown}", file=sys.stderr, flush=True)

    def on_train_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Saves the state after the last epoch."""
        self.stopped_early = trainer.should_stop
        trainer.save_checkpoint(self.folder.last)


def table_csv(rows: list[dict[str, float]]) -> str:
    """Returns rows as CSV text, columns in the order in which they first appear."""
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
