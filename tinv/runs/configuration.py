"""What a run's configuration may hold, and how files and options are put together into one."""

from __future__ import annotations

import contextlib
import io
import logging
import re
import sys
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import yaml
from jsonargparse import ArgumentError
from lightning.pytorch import LightningDataModule, LightningModule, Trainer
from lightning.pytorch.callbacks import Callback, RichProgressBar
from lightning.pytorch.cli import LightningArgumentParser, LightningCLI

from tinv.errors import TinvError
from tinv.runs.options import TOP_LEVEL, find_config, option_pairs

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
    "Checkpoint directory .* exists and is not empty",  # a resumed run goes on in its own folder
    "The '.*_dataloader' does not have many workers",  # batches are made in memory, in this process
    "`isinstance\\(treespec, LeafSpec\\)` is deprecated",  # lightning 2.6 under torch 2.14
]


class Configuration(LightningCLI):
    """Reads configuration files and options, and builds data, task and trainer from them.

    Args:
        args: the options, configuration files among them.

    Attributes:
        values: the configuration with every default filled in and interpolation resolved.

    Raises:
        TinvError: for a value that does not fit its key.
    """

    def __init__(self, args: Sequence[str]) -> None:
        self.extra_callbacks: list[Callback] = []
        for message in KNOWN_WARNINGS:
            warnings.filterwarnings("ignore", message=message)
        # which accelerators there are, advice, advertisements
        for name in ("lightning.pytorch", "lightning.fabric"):
            logging.getLogger(name).setLevel(logging.WARNING)
        super().__init__(
            model_class=LightningModule,
            datamodule_class=LightningDataModule,
            subclass_mode_model=True,
            subclass_mode_data=True,
            run=False,
            save_config_callback=None,
            seed_everything_default=0,
            trainer_defaults=TRAINER_DEFAULTS,
            parser_kwargs={"parser_mode": "omegaconf+", "exit_on_error": False, "prog": "tinv fit"},
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            args=[*_resolved(args)],
        )

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        """Adds the keys that are tinv's own."""
        parser.add_argument("--experiment", type=str, default="run", help=TOP_LEVEL["experiment"])
        parser.add_argument("--published", type=str | None, default=None, help=TOP_LEVEL["published"])
        parser.add_argument("--runs", type=str, default="runs", help=TOP_LEVEL["runs"])
        parser.add_argument("--run_dir", type=str | None, default=None, help=TOP_LEVEL["run_dir"])
        parser.add_argument("--ckpt_path", type=str | None, default=None, help=TOP_LEVEL["ckpt_path"])
        parser.add_argument("--untrained", action="store_true", help=TOP_LEVEL["untrained"])
        parser.add_argument("--checkpoint.monitor", type=str, default="val/loss", help="logged value that decides")
        parser.add_argument("--checkpoint.mode", type=Literal["min", "max"], default="min", help="which is better")

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parses, and turns what the parser says of a bad value into one line."""
        if any(word in ("-h", "--help") or word.startswith(("--help=", "--print_config")) for word in args):
            self.config = parser.parse_args(args)
        # the parser prints its usage before it raises
        with contextlib.redirect_stderr(io.StringIO()):
            try:
                self.config = parser.parse_args(args)
            except (ArgumentError, ValueError, TypeError) as error:
                raise TinvError(short_message(str(error))) from error
        self.values: dict[str, Any] = yaml.safe_load(parser.dump(self.config, skip_none=False, skip_validation=True))
        self.values.pop("config", None)

    def instantiate_classes(self) -> None:
        """Builds data and task; the trainer is built by `make_trainer`, when the run's folder is known."""
        self.values["seed_everything"] = self.config["seed_everything"]
        self.config_init = self.parser.instantiate_classes(self.config)
        self.datamodule = self.config_init["data"]
        self.model = self.config_init["model"]

    def make_trainer(self, callbacks: Sequence[Callback], folder: Path) -> Trainer:
        """Builds the trainer, with the callbacks of the configuration and those given.

        Args:
            callbacks: put before those of the configuration.
            folder: where Lightning writes what it writes unasked.
        """
        options = dict(self.config_init["trainer"])
        # a bar where it can be seen; elsewhere LastCheckpoint prints a line an epoch
        bar = sys.stderr.isatty() and options["enable_progress_bar"] is not False
        options["enable_progress_bar"] = bar
        bars = [RichProgressBar(refresh_rate=5)] if bar else []
        options["callbacks"] = [*callbacks, *bars, *_as_list(options.get("callbacks"))]
        options["default_root_dir"] = options.get("default_root_dir") or str(folder)
        return Trainer(**options)


def _as_list(value: Any) -> list[Any]:
    return [] if value is None else value if isinstance(value, list) else [value]


def _resolved(args: Sequence[str]) -> list[str]:
    """Returns the options with every configuration file replaced by where it was found."""
    words = list(args)
    for name, value, position in option_pairs(words):
        if name == "config" and value:
            found = str(find_config(value))
            if "=" in words[position]:
                words[position] = f"--config={found}"
            else:
                words[position + 1] = found
    return words


def short_message(message: str) -> str:
    """Returns the gist of what jsonargparse says, on one line."""
    lines = [line.strip(" -") for line in message.splitlines() if line.strip()]
    # the innermost reason comes last, after a list of all types that were tried
    key = re.search(r'(?:Parser key|Problem with given class_path|key) "?([\w.]+)"?', message)
    gist = lines[-1] if lines else message
    return f"{key.group(1)}: {gist}" if key and key.group(1) not in gist else gist
