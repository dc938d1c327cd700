"""What a run's configuration may hold, and how files and options are put together into one."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import sys
import traceback
import warnings
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import torch
import yaml
from jsonargparse import ArgumentError
from lightning.fabric.utilities.exceptions import MisconfigurationException
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, RichProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI
from lightning.pytorch.plugins import CheckpointIO
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from tinv.config import yaml_files
from tinv.config.merge import CommandLine, read_command_line
from tinv.config.messages import short_message
from tinv.config.options import TOP_LEVEL, check_values, located
from tinv.errors import TinvError
from tinv.runs.callbacks.progress import ProgressLines
from tinv.runs.checkpoints import AtomicCheckpoints
from tinv.runs.ranks import trainer_options
from tinv.runs.wandb_run import WandbMode, wandb_logger
from tinv.utils.memory import NO_MEMORY

TRAINER_DEFAULTS: dict[str, Any] = {
    "logger": False,
    "num_sanity_val_steps": 0,  # it would draw random numbers and look at validation data before the first epoch
    "deterministic": "warn",  # the same seed gives the same result; an operation that cannot is named, not refused
    "max_epochs": 50,
    # our own callbacks keep the checkpoints
    "enable_checkpointing": True,
    "enable_model_summary": False,
    "log_every_n_steps": 1_000_000,
}

KNOWN_WARNINGS = [
    # torchmetrics has already summed over processes
    "It is recommended to use `self.log\\('(train|val|test)/.*sync_dist=True",
    # a resumed run keeps its own folder
    "Checkpoint directory .* exists and is not empty",
    # batches are made in memory, in this process
    "The '.*_dataloader' does not have many workers",
    # values are logged once an epoch
    "The number of training batches .* is smaller than the logging interval",
    # data without validation: the last weights are tested, which fit says itself
    "Total length of .* across ranks is zero",
    "`ModelCheckpoint\\(monitor=.*could not find the monitored key in the returned metrics",
    # what is frozen stays in evaluation mode
    "Found .* module\\(s\\) in eval mode at the start of training",
    # on a cluster: a run starts its own processes
    "The `srun` command is available on your system but is not used",
    # lightning 2.6 under torch 2.14
    "`isinstance\\(treespec, LeafSpec\\)` is deprecated",
]


class TinvCLI(LightningCLI):
    """Reads configuration files and options, and builds data, task and trainer from them.

    Args:
        args: The options, configuration files among them.
        command: Word after `tinv`, which the help names.

    Attributes:
        values: The configuration with every default filled in and interpolation resolved.

    Raises:
        TinvError: For a value that does not fit its key.
    """

    def __init__(self, args: Sequence[str], command: str = "fit") -> None:
        for message in KNOWN_WARNINGS:
            warnings.filterwarnings("ignore", message=message)
        # which accelerators there are, advice, advertisements
        for name in ("lightning.pytorch", "lightning.fabric"):
            logging.getLogger(name).setLevel(logging.WARNING)
        self.given = read_command_line(args)
        super().__init__(
            model_class=LightningModule,
            datamodule_class=LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            run=False,
            save_config_callback=None,
            seed_everything_default=0,
            trainer_defaults=TRAINER_DEFAULTS,
            parser_kwargs={"parser_mode": "omegaconf+", "exit_on_error": False, "prog": f"tinv {command}"},
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            args=_merged(self.given),
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds the keys that are tinv's own."""
        parser.add_argument("--experiment", type=str, default="run", help=TOP_LEVEL["experiment"])
        parser.add_argument("--published", type=str | None, default=None, help=TOP_LEVEL["published"])
        parser.add_argument("--runs", type=str, default="runs", help=TOP_LEVEL["runs"])
        parser.add_argument("--run_dir", type=str | None, default=None, help=TOP_LEVEL["run_dir"])
        parser.add_argument("--ckpt_path", type=str | None, default=None, help=TOP_LEVEL["ckpt_path"])
        parser.add_argument("--wandb", type=WandbMode, default="auto", help=TOP_LEVEL["wandb"])
        parser.add_argument("--untrained", action="store_true", help=TOP_LEVEL["untrained"])
        parser.add_argument("--checkpoint.monitor", type=str, default="val/loss", help="logged value that decides")
        parser.add_argument("--checkpoint.mode", type=Literal["min", "max"], default="min", help="which is better")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parses, and turns what the parser says of a bad value into one line."""
        shows_help = any(word in ("-h", "--help") or word.startswith(("--help=", "--print_config")) for word in args)
        # the parser prints its usage before it raises
        quiet = contextlib.nullcontext() if shows_help else contextlib.redirect_stderr(io.StringIO())
        with self._errors_located(), quiet:
            self.config = parser.parse_args(args)
            # the parser writes YAML 1.1, in which 1e5 is a string
            text = parser.dump(self.config, skip_unset=False, skip_validation=True)
            self.values: dict[str, Any] = yaml.safe_load(text)
            self.values.pop("config", None)
            self._keep_integers(self.values.get("trainer") or {})
            check_values(self.values)
            check_trainer(self.values.get("trainer") or {})

    def _keep_integers(self, trainer: Any) -> None:
        """Gives options of the trainer that are an integer or a float the kind of number that was given.

        `limit_train_batches: 1` is one batch, 1.0 are all. Python keeps one object for `Union[int, float]` and
        `Union[float, int]`, so that the parser may take an integer for a float, whichever of the two Lightning wrote.
        """
        for key, value in self.given.flat.items():
            name = key.removeprefix("trainer.")
            if key != name and type(value) is int and isinstance(trainer.get(name), float):
                trainer[name] = value

    def instantiate_classes(self) -> None:
        """Builds data and task; the trainer is built by `make_trainer`, when the run's folder is known."""
        self.values["seed_everything"] = self.config["seed_everything"]
        with self._errors_located():
            self.config_init = self.parser.instantiate(self.config, instantiators=[(_made, object, True)])
        self._keep_integers(self.config_init["trainer"])
        self.datamodule = self.config_init["data"]
        self.model = self.config_init["model"]

    @contextlib.contextmanager
    def _errors_located(self) -> Iterator[None]:
        """Turns what the parser raises into one line, with the file and line of the key."""
        try:
            yield
        except (ArgumentError, ValueError, TypeError, TinvError, OmegaConfBaseException) as error:
            reason: BaseException | None = error
            while reason is not None and not isinstance(reason, TinvError):
                reason = reason.__cause__ or reason.__context__
            message = str(reason) if reason else self._unresolved() or short_message(str(error))
            raise TinvError(located(message, self.given)) from error

    def _unresolved(self) -> str | None:
        """Returns which key holds an interpolation that cannot be resolved; None where there is none."""
        for key, value in self.given.flat.items():
            if "${" not in str(value):
                continue
            try:
                OmegaConf.create({"alone": value})
                config = OmegaConf.create(self.given.merged)
                OmegaConf.update(config, key, value)
                found = OmegaConf.select(config, key)
                if OmegaConf.is_config(found):
                    OmegaConf.to_container(found, resolve=True)
            except (OmegaConfBaseException, TypeError, ValueError) as reason:
                why = str(reason).partition("\n")[0][:120]
                return f"{key}: {str(value)[:100]!r} cannot be resolved ({why}); for the characters ${{ write \\${{"
        return None

    def make_trainer(self, callbacks: Sequence[Callback], folder: Path) -> Trainer:
        """Builds the trainer, with the callbacks of the configuration and those given.

        Args:
            callbacks: Put before those of the configuration.
            folder: Where Lightning writes what it writes unasked.
        """
        options = dict(self.config_init["trainer"])
        # a bar where it can be seen; elsewhere a line a minute, and LastCheckpoint prints a line an epoch
        bar = sys.stderr.isatty() and options["enable_progress_bar"] is not False
        options["enable_progress_bar"] = bar
        progress = RichProgressBar(refresh_rate=5) if bar else ProgressLines()
        options["callbacks"] = [*callbacks, progress, *_as_list(options.get("callbacks"))]
        if (logger := wandb_logger(self.values["wandb"], self.values, folder)) is not None:
            options["logger"] = [logger, *(_as_list(options["logger"]) if options["logger"] is not False else [])]
        options["default_root_dir"] = options.get("default_root_dir") or str(folder)
        plugins = _as_list(options.get("plugins"))
        if not any(isinstance(plugin, CheckpointIO) for plugin in plugins):
            options["plugins"] = [*plugins, AtomicCheckpoints()]
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", message=".*AMP with fp16 is not supported on CPU")
            with errors_with_keys(options):
                trainer = Trainer(**trainer_options(options))
        if str(options.get("precision")).startswith("16") and str(trainer.precision).startswith("bf16"):
            raise TinvError(
                f"trainer.precision={options['precision']}: a CPU has no mixed precision in float16; use bf16-mixed"
            )
        # `deterministic` would also fill every new tensor, which guards against a fault we do not have, at a cost
        torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
        return trainer


OWNERS = {
    "/torch/optim/lr_scheduler": "model.init_args.lr_scheduler",
    "/torch/optim/": "model.init_args.optimizer",
    "/torchvision/transforms/": "data.init_args.train_transforms",
    "/lightning/": "trainer",
}
"""Keys that the classes in the files of some folders are named by, the longest path first."""


@contextlib.contextmanager
def errors_with_keys(options: Mapping[str, Any]) -> Iterator[None]:
    """Turns what classes of the configuration raise when they are used into one line that names their key.

    Args:
        options: Options of the trainer: what Lightning raises names one of them, with its value, where it can.

    Raises:
        TinvError: For every error that is raised in the files of `OWNERS`.
    """
    try:
        yield
    except (TinvError, OSError):
        raise
    except Exception as error:  # the libraries' errors have no common class
        place = traceback.extract_tb(error.__traceback__)[-1].filename
        owner = next((key for part, key in OWNERS.items() if part in place), "")
        message = " ".join(str(error).split())
        if isinstance(error, MemoryError) or NO_MEMORY.search(message):
            raise  # no matter in whose code it ran out, the sizes asked for are the cause
        if isinstance(error, MisconfigurationException) or "Requirement" in message:
            owner = "trainer"
        if not owner:
            raise
        key = _option_meant(options, message) if owner == "trainer" else owner
        raise TinvError(f"{key}: {message[:200]}") from error


def _option_meant(options: Mapping[str, Any], message: str) -> str:
    """Returns the key, with its value, of the option of the trainer that a message of Lightning speaks of."""
    if "ModelCheckpoint(monitor=" in message:
        return "checkpoint.monitor"
    at = {name: found.start() for name in options if (found := re.search(rf"\b{name}\b", message))}
    given = (name for name, value in options.items() if isinstance(value, str) and value.replace("-", "_") in message)
    key = min(at, key=lambda name: at[name]) if at else next(given, None)
    return "trainer" if key is None else f"trainer.{key}={options[key]}"


LEAST: dict[str, float] = {
    **dict.fromkeys(("check_val_every_n_epoch", "accumulate_grad_batches", "num_nodes", "min_epochs", "min_steps"), 1),
    **dict.fromkeys(("log_every_n_steps", "gradient_clip_val", "fast_dev_run", "overfit_batches"), 0),
    **dict.fromkeys(("limit_val_batches", "limit_test_batches", "limit_predict_batches"), 0),
}
"""Smallest value of options of the trainer that Lightning takes smaller ones of, or fails over later."""

ABOVE_ZERO = ("max_epochs", "max_steps", "limit_train_batches", "val_check_interval")
"""Options of the trainer that are above 0; the first two may be -1, for no limit."""


def check_trainer(options: Mapping[str, Any]) -> None:
    """Checks the ranges of the trainer's options.

    Raises:
        TinvError: For a value out of its range, naming the key.
    """
    if options.get("max_epochs") is None and options.get("max_steps", -1) == -1 and options.get("max_time") is None:
        raise TinvError("trainer.max_epochs: is null, which Lightning takes for 1,000; give a number, or -1 for no end")
    for key, value in options.items():
        if isinstance(value, bool) or not isinstance(value, int | float):
            continue
        if key in LEAST and not value >= LEAST[key]:
            raise TinvError(f"trainer.{key}: must be {LEAST[key]:g} or more, not {value}")
        if key in ABOVE_ZERO and not value > 0 and not (key.startswith("max_") and value == -1):
            raise TinvError(f"trainer.{key}: must be above 0, or nothing is trained, not {value}")


def _as_list(value: Any) -> list[Any]:
    return [] if value is None else value if isinstance(value, list) else [value]


def _made(made: type, *args: Any, **options: Any) -> Any:
    """Makes an object of a class that a configuration names; what the class raises becomes one line that names it."""
    try:
        return made(*args, **options)
    except (TinvError, MemoryError, OSError):
        raise
    except Exception as error:  # what a class raises over its arguments
        reason = str(error).partition("\n")[0] or type(error).__name__
        owner = next((key for part, key in OWNERS.items() if part in f"/{made.__module__.replace('.', '/')}"), "")
        where = f"{owner}: " if owner not in ("", "trainer") else ""
        raise TinvError(f"{where}{made.__module__}.{made.__qualname__} cannot be made ({reason})") from error


def _merged(given: CommandLine) -> list[str]:
    """Returns the options with all configuration files merged, in order, as one."""
    # the parser takes a configuration's text in the place of its file name
    return ["--config", yaml_files.dump(given.merged), *given.words] if given.merged else list(given.words)
