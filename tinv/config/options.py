"""Finds a mistyped option or configuration key at once, before torch is imported, which takes seconds.

What cannot be known from the source code (classes outside tinv and Lightning, values) is left to the full parser.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, get_args

from tinv.config import catalog
from tinv.config.merge import flatten, merge_configs, read_command_line
from tinv.errors import TinvError, nearest, unknown
from tinv.policies.cards import PADDINGS, Subsampling

TOP_LEVEL = {
    "config": "configuration file; give it again to merge another over it",
    "experiment": "name of the experiment, and of the folder of its runs",
    "published": "entry of the published numbers to set beside the results",
    "seed_everything": "seed of weights, order and training shifts",
    "runs": "folder of all runs",
    "run_dir": "folder of this run",
    "ckpt_path": "checkpoint: a file, or `last` to resume a stopped run",
    "wandb": "send the run to Weights & Biases: auto (only under its agents), off, online, offline",
    "untrained": "validate, test or predict with random weights",
    "debug": "show tracebacks",
    "trainer": "options of lightning.Trainer",
    "checkpoint": "which checkpoint is the best",
    "model": "the task: a LightningModule",
    "data": "the data: a LightningDataModule",
}
CHECKPOINT = {"monitor", "mode"}


def check(args: Sequence[str]) -> None:
    """Checks the options, configuration files and keys of a run.

    Raises:
        TinvError: For one that no run has, naming the nearest ones.
    """
    given = read_command_line(args)
    merged: dict[str, Any] = {}
    for path, content in given.files:
        # the keys of a file belong to the classes named so far: a later file may name others
        merged = merge_configs(merged, content)
        for key, value in flatten(content):
            _Key(f"{path}: ", key, dict(flatten(merged))).check(value)
    settings = {**dict(flatten(merged)), **given.options}
    for key, option in given.options.items():
        _Key("", key, settings).check(option)


class _Key:
    """One dotted key.

    Args:
        where: What the message of an error begins with; empty for an option.
        key: The dotted key.
        settings: Dotted keys and values that say which classes are meant.
    """

    def __init__(self, where: str, key: str, settings: Mapping[str, Any]) -> None:
        self.where, self.key, self.settings = where, key, settings
        self.dashes = "" if where else "--"

    def check(self, value: Any) -> None:
        """Raises TinvError if no run has the key, or its value is not among those that are known."""
        head, *rest = self.key.split(".")
        self._check_name(head, "", {*TOP_LEVEL, "help", "print_config", "print_shtab"})
        if head == "trainer" and rest:
            self._check_name(rest[0], "trainer.", catalog.trainer_options())
        elif head == "checkpoint" and rest:
            self._check_name(rest[0], "checkpoint.", CHECKPOINT)
        elif head in ("model", "data") and rest and rest[0] not in ("class_path", "dict_kwargs", "help"):
            path = rest[1:] if rest[0] == "init_args" else rest
            if path:
                prefix = f"{head}.init_args." if rest[0] == "init_args" else f"{head}."
                self._check_argument(head, prefix, path, value)

    def _check_argument(self, head: str, prefix: str, path: Sequence[str], value: Any) -> None:
        named = self.settings.get(head) or self.settings.get(f"{head}.class_path")
        self._check_name(path[0], prefix, catalog.class_options(named) if isinstance(named, str) else None)
        backbone = self.settings.get("model.init_args.backbone")
        own = self.settings.get("model.init_args.source", "tinv") == "tinv"
        if path[0] == "backbone_args" and len(path) > 1 and backbone and own:
            self._check_name(path[1], f"{prefix}backbone_args.", catalog.backbone_options(backbone))
        choices = {"padding": PADDINGS, "subsampling": get_args(Subsampling)}.get(path[0])
        is_name = isinstance(value, str) and not set("$.{") & set(value)
        if choices and is_name and len(path) == 1 and value not in choices:
            raise TinvError(f"{self.where}{self.dashes}{self.key}: {unknown(path[0], value, choices)}")

    def _check_name(self, name: str, prefix: str, known: Iterable[str] | None) -> None:
        if known is None or name in known:
            return
        options = [f"{self.dashes}{prefix}{choice}" for choice in sorted(known)]
        close = nearest(f"{self.dashes}{prefix}{name}", options)
        hint = close or (f"; choose from {', '.join(options)}" if options else "; there is nothing to choose here")
        word = "key" if self.where else "option"
        raise TinvError(f"{self.where}unknown {word} {self.dashes}{self.key}{hint}")
