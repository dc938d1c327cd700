"""What happens around training: checkpoints to resume from, the table of epochs, one random state an epoch, NaN."""

from __future__ import annotations

import csv
import io
import os
import signal
import socket
import sys
import threading
import time
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import Checkpoint, ModelCheckpoint

from tinv.errors import TinvError
from tinv.files import write_atomically
from tinv.progress import MinuteLines
from tinv.runs.folder import RunFolder


class BestCheckpoint(ModelCheckpoint):
    """Keeps the weights of the best epoch as `checkpoints/best.ckpt`.

    Args:
        monitor: logged value that decides.
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
    """

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self.rows: list[dict[str, float]] = []
        self.stopped_early = False
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


class ProgressLines(Callback):
    """Stands in for the progress bar in a log file: a line a minute within long epochs and tests."""

    def __init__(self) -> None:
        self.lines = MinuteLines()

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Counts the batches of an epoch."""
        what = f"epoch {trainer.current_epoch + 1}, training batches"
        self._tell(trainer, what, batch_idx, trainer.num_training_batches)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Counts the batches of a validation."""
        self._tell(trainer, "validation batches", batch_idx, trainer.num_val_batches[dataloader_idx])

    def on_test_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Counts the batches of a test set."""
        self._tell(trainer, "test batches", batch_idx, trainer.num_test_batches[dataloader_idx])

    def _tell(self, trainer: Trainer, what: str, batch_idx: int, total: float) -> None:
        if trainer.is_global_zero:
            self.lines(what, batch_idx + 1, total)


class SeedEachEpoch(Callback):
    """Sets torch's random state from the run's seed and the epoch, so that a resumed run draws what it would have.

    Args:
        seed: of the run.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Seeds; ranks draw different numbers."""
        torch.manual_seed(hash((self.seed, trainer.current_epoch, trainer.global_rank)) % 2**63)


class StopOnNaN(Callback):
    """Ends training when the loss is no longer finite, before anything of it reaches a checkpoint.

    On a CPU every step is looked at. On other devices, where looking means waiting, every 50th and an epoch's last.
    """

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder
        self.losses: list[torch.Tensor] = []

    def on_train_batch_end(
        self, trainer: Trainer, pl_module: LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        """Looks at the losses since the last look."""
        self.losses.append(outputs["loss"].detach())
        if self.losses[0].device.type == "cpu" or len(self.losses) == 50 or trainer.is_last_batch:
            bad = (~torch.isfinite(torch.stack(self.losses))).nonzero()
            if len(bad):
                step = trainer.global_step - len(self.losses) + 1 + int(bad[0])
                kept = [str(path) for path in (self.folder.best, self.folder.last) if path.exists()]
                raise TinvError(
                    f"the loss is {float(self.losses[int(bad[0])])} at step {step} "
                    f"(epoch {trainer.current_epoch + 1}); "
                    f"lower the learning rate (model.init_args.optimizer.init_args.lr). Checkpoints from before it: "
                    f"{', '.join(kept) or 'none'}"
                )
            self.losses.clear()

    def on_train_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Looks at the weights that the epoch ends with, which its last step may have spoiled."""
        bad = next((name for name, p in pl_module.named_parameters() if not torch.isfinite(p).all()), None)
        if bad is not None:
            raise TinvError(
                f"the weights {bad} are no longer finite after epoch {trainer.current_epoch + 1} under "
                f"trainer.precision={trainer.precision}; use another precision, a lower learning rate or, in float16, "
                "a larger eps of the optimizer"
            )


class RefuseWrongGradients(Callback):
    """Refuses what torch computes wrongly: weights of 3D convolutions trained in bfloat16 on a CPU.

    Seen with torch 2.14.1 (oneDNN): where a map has two cells in time, gradients of 3x3x3 kernels are whatever the
    memory held; with one cell the process is aborted. Forward passes are right.
    """

    def on_fit_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Raises TinvError before the first step."""
        if trainer.strategy.root_device.type != "cpu" or not str(trainer.precision).startswith("bf16"):
            return
        for name, module in pl_module.named_modules():
            if isinstance(module, torch.nn.Conv3d) and module.weight.requires_grad:
                raise TinvError(
                    f"trainer.precision={trainer.precision}: on a CPU torch's bfloat16 gradients of 3D convolutions "
                    f"such as {name} are wrong; use --trainer.precision=32-true"
                )


class StopTogether(Callback):
    """Ends all processes of a distributed run at once on SIGTERM, whether one of them gets it or, as under Slurm, all.

    Lightning would send a message from one process to the others, which waits for ever when those are in the middle of
    a reduction or gone. The state to resume from is on disk already: that of the epoch's beginning.
    """

    def __init__(self, folder: RunFolder) -> None:
        self.folder = folder

    def _listen(self, trainer: Trainer) -> None:
        if trainer.world_size < 2 or threading.current_thread() is not threading.main_thread():
            return
        # a handler of Python's waits for the interpreter, which a reduction can hold up for ever: a thread listens too
        reading, writing = socket.socketpair()
        writing.setblocking(False)
        signal.signal(signal.SIGTERM, lambda *_: None)
        signal.set_wakeup_fd(writing.fileno(), warn_on_full_buffer=False)
        self.keep = writing
        threading.Thread(target=self._wait, args=(trainer, reading), daemon=True).start()

    def _wait(self, trainer: Trainer, reading: socket.socket) -> None:
        while signal.SIGTERM not in reading.recv(1):
            pass
        for process in getattr(trainer.strategy.launcher, "procs", []):
            process.terminate()
        if trainer.is_global_zero:
            print(stopped_by("SIGTERM", self.folder), file=sys.stderr, flush=True)
        # the interpreter's own end would wait for the other processes
        os._exit(128 + signal.SIGTERM)

    def on_train_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listens."""
        self._listen(trainer)

    def on_test_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Listens again: Lightning has put its own handlers back in place."""
        self._listen(trainer)


def stopped_by(name: str, folder: RunFolder) -> str:
    """Returns the line that says how to resume a stopped run."""
    return f"tinv: stopped by {name}{resume_hint(folder)}"


def resume_hint(folder: RunFolder) -> str:
    """Returns how to resume a run; empty where there is no checkpoint yet."""
    return f"; resume with: --run_dir {folder.path} --ckpt_path last" if folder.last.exists() else ""


def end_processes(trainer: Trainer) -> None:
    """Ends the other processes of a distributed run, which would wait for this one without end."""
    for process in getattr(trainer.strategy.launcher, "procs", []):
        process.terminate()


def load_weights(model: LightningModule, path: Path) -> dict[str, Any]:
    """Loads a checkpoint's weights into a built model and returns the rest of the checkpoint.

    Raises:
        TinvError: if the file is no checkpoint, or one of another network (which keys differ is said).
    """
    checkpoint = read_checkpoint(path)
    state, own = checkpoint["state_dict"], model.state_dict()
    shape = {key: tuple(value.shape) for key, value in own.items()}
    wrong = [
        *(f"{key} is missing" for key in own if key not in state),
        *(f"{key} is not in this network" for key in state if key not in own),
        *(
            f"{key} is {tuple(state[key].shape)}, here {shape[key]}"
            for key in own
            if key in state and tuple(state[key].shape) != shape[key]
        ),
    ]
    if wrong:
        more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
        raise TinvError(f"{path} is a checkpoint of another network: {'; '.join(wrong[:3])}{more}")
    model.load_state_dict(state)
    return checkpoint


def read_checkpoint(path: Path) -> dict[str, Any]:
    """Reads a checkpoint without running any code in it.

    Raises:
        TinvError: if it is not there or cannot be read as one.
    """
    if not path.is_file():
        raise TinvError(f"no checkpoint {path}; name a .ckpt file with --ckpt_path")
    try:
        checkpoint = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged files raise many kinds of error
        reason = str(error).partition("\n")[0]
        raise TinvError(f"{path} cannot be read as a checkpoint ({type(error).__name__}: {reason})") from error
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise TinvError(f"{path} is not a checkpoint of a run: it holds no state_dict")
    return checkpoint
