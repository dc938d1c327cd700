"""What a run does: trains and tests the best checkpoint, or scores a checkpoint, or writes its predictions."""

from __future__ import annotations

import contextlib
import math
import signal
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from tinv.data.base import described
from tinv.errors import TinvError
from tinv.runs.callbacks.checkpoints import BestCheckpoint, LastCheckpoint
from tinv.runs.callbacks.checks import CheckSets, Command
from tinv.runs.callbacks.process_group import LeaveProcessGroup
from tinv.runs.callbacks.sigterm import DistributedSigterm, end_processes, resume_hint, stopped_by
from tinv.runs.callbacks.training import CheckBf16Conv3d, SeedEachEpoch, StopOnNaN
from tinv.runs.checkpoints import check_resumable, disk_message, load_weights
from tinv.runs.configuration import TinvCLI, errors_with_keys
from tinv.runs.folder import RunFolder, differences, new_folder, unfinished_folder
from tinv.runs.predictions import write_predictions
from tinv.runs.ranks import rank
from tinv.runs.wandb_run import end_wandb
from tinv.tasks.base import BaseTask
from tinv.utils.outputs import DISK_FULL


@dataclass(frozen=True)
class Outcome:
    """What a command came to.

    Attributes:
        code: Exit code.
        metrics: Metrics by name; None where this process reports none.
        folder: Folder of the run.
        units: Units that metrics declare, by the names of the metrics.
    """

    code: int
    metrics: dict[str, float] | None = None
    folder: Path = Path()
    units: dict[str, str] = field(default_factory=dict)


def fit(configuration: TinvCLI) -> Outcome:
    """Trains, tests the best checkpoint, and writes `results.json` last.

    Raises:
        TinvError: For what can be corrected in the configuration, the data or the run folder.
    """
    values, model = configuration.values, configuration.model
    _check_fit(values)
    resume = values["ckpt_path"] == "last"
    folder = unfinished_folder(values) if resume else new_folder("fit", values)
    begun = folder.path.exists()
    last = LastCheckpoint(folder)
    trainer = configuration.make_trainer(_callbacks(folder, last, resume, values), folder.path)
    folder.make()
    if not resume:
        folder.save_config(values)
    ok = False
    try:
        with _resuming(last) if resume else contextlib.nullcontext(), errors_with_keys(values["trainer"]):
            start = str(folder.last) if resume else None
            trainer.fit(model, datamodule=configuration.datamodule, ckpt_path=start, weights_only=True)
        if values["trainer"]["fast_dev_run"]:
            if not begun and trainer.is_global_zero:
                folder.remove()
            print("a fast_dev_run keeps nothing and reports no numbers")
            return Outcome(0)
        _test_best(configuration, trainer, folder)
        if trainer.is_global_zero:
            _finish("fit", trainer, model, folder, values, last.duration_s)
        ok = True
    except SystemExit:
        return Outcome(_stopped(trainer, folder))
    except OSError as error:
        if error.errno not in DISK_FULL:
            raise
        print(f"tinv: error: {disk_message(error, folder)}", file=sys.stderr)
        return Outcome(1)
    except RuntimeError as error:
        if trainer.world_size < 2 or not any(word in str(error) for word in LOST_CONNECTION):
            raise
        if trainer.is_global_zero:
            hint = resume_hint(folder)
            print(f"tinv: error: another process of this run failed; see what it said{hint}", file=sys.stderr)
        return Outcome(1)
    except TinvError:
        if not begun and not folder.checkpoints.exists() and not rank():
            folder.remove()  # nothing was run: leave nothing behind
        raise
    finally:
        if not ok:
            end_processes(trainer)
        end_wandb(ok)
        folder.release()
    return Outcome(0, _metrics(trainer) if trainer.is_global_zero else None, folder.path, _units(model))


def _check_fit(values: dict[str, Any]) -> None:
    """Refuses options that fit does not take."""
    if values["ckpt_path"] not in (None, "last"):
        raise TinvError(
            f"fit resumes a stopped run (--ckpt_path last), not with {values['ckpt_path']}; to score a "
            "checkpoint use tinv test"
        )
    if values["untrained"]:
        raise TinvError("--untrained goes with validate, test and predict; fit trains the network")


def _callbacks(folder: RunFolder, last: LastCheckpoint, resume: bool, values: dict[str, Any]) -> list[Callback]:
    """Returns what goes along with a training."""
    return [
        CheckSets("fit"),
        _BuildAndLoad(folder.last if resume else None, "fit"),
        DistributedSigterm(folder),
        LeaveProcessGroup(),
        CheckBf16Conv3d(),
        StopOnNaN(folder),
        SeedEachEpoch(int(values["seed_everything"])),
        last,
        BestCheckpoint(folder, values["checkpoint"]["monitor"], values["checkpoint"]["mode"]),
    ]


def _test_best(configuration: TinvCLI, trainer: Trainer, folder: RunFolder) -> None:
    """Tests the best checkpoint, or the last one where nothing was validated."""
    if not folder.best.exists() and trainer.is_global_zero:
        print("note: no best checkpoint, since nothing was validated; the last weights are tested", file=sys.stderr)
    load_weights(configuration.model, folder.best if folder.best.exists() else folder.last)
    with errors_with_keys(configuration.values["trainer"]):
        trainer.test(configuration.model, datamodule=configuration.datamodule, verbose=False)


STATE_ERRORS = (LookupError, TypeError, ValueError, AttributeError, RuntimeError)
"""What Lightning and torch raise over a state that is not what they have saved."""


@contextlib.contextmanager
def _resuming(last: LastCheckpoint) -> Iterator[None]:
    """Turns what fails before training resumes from a checkpoint into one line that names the checkpoint."""
    try:
        yield
    except Exception as error:
        cause = error.__cause__ or error
        is_ours = isinstance(error, TinvError) and not str(error).startswith("trainer")
        if is_ours or last.has_begun or not isinstance(cause, STATE_ERRORS):
            raise
        reason = f"{type(cause).__name__}: {str(cause).partition(chr(10))[0][:120]}"
        raise TinvError(
            f"{last.folder.last} holds no state to resume training from ({reason}); begin again in another --run_dir"
        ) from error


LOST_CONNECTION = (
    "Connection closed by peer",
    "Connection reset by peer",
    "Broken pipe",
    "NCCL",
    "remote process exited",
)
"""In what torch says where another process of a distributed run is gone."""


def evaluate(command: Command, configuration: TinvCLI) -> Outcome:
    """Scores a checkpoint (validate, test), or writes its predictions.

    Raises:
        TinvError: For what can be corrected in the configuration, the data, the checkpoint or the run folder.
    """
    values, model, data = configuration.values, configuration.model, configuration.datamodule
    checkpoint, started = _checkpoint(command, values), time.monotonic()
    differing = [] if checkpoint is None else _differing_keys(checkpoint, values)
    folder = new_folder(command, values)
    begun = folder.path.exists()
    parting = [DistributedSigterm(folder), LeaveProcessGroup()]
    callbacks = [CheckSets(command), *parting, _BuildAndLoad(checkpoint, command)]
    trainer = configuration.make_trainer(callbacks, folder.path)
    if command == "predict" and trainer.world_size > 1:
        raise TinvError(
            f"predict would write the predictions of one of the {trainer.world_size} processes alone; run it in one, "
            "with --trainer.devices=1 --trainer.num_nodes=1"
        )
    folder.make()  # a folder that cannot be written to is found now, not after the test
    ok = False
    try:
        with errors_with_keys(values["trainer"]):
            if command == "predict":
                predictions = trainer.predict(model, datamodule=data)
            else:
                getattr(trainer, command)(model, datamodule=data, verbose=False)
        if trainer.is_global_zero:
            if differing:
                print(f"note: not as {checkpoint} was trained: {', '.join(differing)}", file=sys.stderr)
            folder.save_config(values)
            if command == "predict":
                path = write_predictions(folder, predictions, described(data).test_sets)
                print(f"predictions: {path}")
            else:
                _finish(command, trainer, model, folder, values, time.monotonic() - started)
        ok = True
    except (SystemExit, TinvError) as error:
        if not begun and not rank():
            folder.remove()  # nothing was found: leave nothing behind
        if isinstance(error, TinvError):
            raise
        return Outcome(_stopped(trainer, folder))
    finally:
        if not ok:
            end_processes(trainer)
        end_wandb(ok)
        folder.release()
    reports = trainer.is_global_zero and command != "predict"
    return Outcome(0, _metrics(trainer) if reports else None, folder.path, _units(model))


def _checkpoint(command: Command, values: dict[str, Any]) -> Path | None:
    """Returns the checkpoint that is to be scored; None for random weights, where those are asked for."""
    if values["ckpt_path"] is None and not values["untrained"]:
        raise TinvError(
            f"{command} needs a checkpoint: --ckpt_path runs/.../checkpoints/best.ckpt (or --untrained, to score "
            "random weights)"
        )
    if values["ckpt_path"] is not None and values["untrained"]:
        raise TinvError(f"--ckpt_path and --untrained both say which weights {command} takes; give one of them")
    checkpoint = Path(values["ckpt_path"]) if values["ckpt_path"] else None
    if checkpoint is not None and not checkpoint.is_file():
        raise TinvError(f"no checkpoint {checkpoint}; name a .ckpt file with --ckpt_path")
    return checkpoint


class _BuildAndLoad(Callback):
    """Loads the weights of a checkpoint in one stage, once the network is built for the data; that also checks them."""

    def __init__(self, checkpoint: Path | None, stage: Command) -> None:
        self.checkpoint, self.stage = checkpoint, stage

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        if self.checkpoint is not None and stage == self.stage:
            if isinstance(pl_module, BaseTask):
                pl_module.leave_out_weights()
            pl_module.configure_model()
            checkpoint = load_weights(pl_module, self.checkpoint, resumes=stage == "fit")
            if stage == "fit":
                check_resumable(checkpoint, self.checkpoint)


def _metrics(trainer: Trainer) -> dict[str, float]:
    numbers = {key: float(value) for key, value in trainer.callback_metrics.items()}
    # what is not defined is left out: agreement among right answers where none is right; JSON knows no NaN
    return {key: value for key, value in numbers.items() if not math.isnan(value)}


def _units(model: Any) -> dict[str, str]:
    return dict(getattr(model, "metric_units", {}))


def _finish(
    command: str, trainer: Trainer, model: Any, folder: RunFolder, values: dict[str, Any], duration_s: float
) -> None:
    """Writes what the run found; `results.json` last."""
    if hasattr(model, "save_artifacts"):
        model.save_artifacts(folder.path)
    data = trainer.datamodule  # type: ignore[attr-defined]
    if hasattr(data, "save_artifacts"):
        data.save_artifacts(folder.path)
    conversion = getattr(getattr(model, "network", None), "conversion", None)
    partial = [vars(note) for note in getattr(conversion, "partial", [])]
    metrics = _metrics(trainer)
    units = {key: unit for key, unit in _units(model).items() if key in metrics}
    folder.write_results(command, values, metrics, duration_s, described(data).provenance, partial, units)


def _stopped(trainer: Trainer, folder: RunFolder) -> int:
    """Says how to resume a run stopped by SIGTERM or Ctrl-C, and returns the exit code of that signal."""
    terminated = trainer.received_sigterm
    print(stopped_by("SIGTERM" if terminated else "Ctrl-C", folder), file=sys.stderr)
    return 128 + (signal.SIGTERM if terminated else signal.SIGINT)


def _differing_keys(checkpoint: Path, values: dict[str, Any]) -> list[str]:
    """Returns which keys of the network and the data differ from the run that the checkpoint was trained in."""
    own = RunFolder(checkpoint.parent.parent)
    return differences(own.load_config(), values, within=("model", "data")) if own.config.is_file() else []
