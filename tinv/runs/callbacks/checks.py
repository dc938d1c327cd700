"""What is looked at after the data is there and before the first step, so that bad input costs no training."""

from __future__ import annotations

import math
from typing import Any, Literal

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from tinv.data.base import InvarianceDataModule, described
from tinv.errors import TinvError, TooLargeError
from tinv.runs.ranks import forget
from tinv.utils.memory import memory_here

Command = Literal["fit", "validate", "test", "predict"]

USED: dict[Command, tuple[str, ...]] = {
    "fit": ("train", "val", "test"), "validate": ("val",), "test": ("test",), "predict": ("test",)
}  # fmt: skip
"""The sets that each stage of a run uses; a fit ends with a test."""


class CheckSets(Callback):
    """Refuses sets of which nothing is left, or less than one image for each process, and batches beyond memory.

    Args:
        command: Command of the run; its sets are looked at once, in its first stage.
    """

    def __init__(self, command: Command) -> None:
        self.command = command

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Looks at all sets that the run will use.

        Raises:
            TinvError: Naming the set.
        """
        forget("run_dir")
        if stage != self.command:
            return
        data = getattr(trainer, "datamodule", None)
        check_batch(described(data))
        for name in USED[self.command]:
            for loader in self._loaders(data, name):
                self._check(name, loader, trainer.world_size)

    def _loaders(self, data: Any, name: str) -> list[Any]:
        try:
            loaders = getattr(data, f"{name}_dataloader")()
        except TinvError:
            raise
        except Exception:
            # data that loads this set later, or has none; Lightning's own errors have no common class
            return []
        return list(loaders) if isinstance(loaders, (list, tuple)) else [loaders]

    def _check(self, name: str, loader: Any, processes: int) -> None:
        count = getattr(getattr(loader, "batches", None), "count", None)
        what = {"train": "training", "val": "validation", "test": "test"}[name]
        hint = f"see data.init_args.num_{name}, or the files that could be read"
        if count == 0 and (name != "val" or self.command == "validate"):
            raise TinvError(f"no {what} image is left; {hint}")
        if count is not None and 0 < count < processes:
            raise TinvError(
                f"the {what} set has {count} images, less than the {processes} processes of this run; {hint}"
            )


def check_batch(data: InvarianceDataModule) -> None:
    """Refuses batches that alone take more memory than there is.

    Raises:
        TooLargeError: Saying how large a batch would be.
    """
    shape, count = data.input_shape, data.batch_size
    if shape is None:
        return
    size, here = 4 * count * math.prod(shape), memory_here()
    if size > here:
        raise TooLargeError(
            f"a batch of {count} inputs of {'x'.join(map(str, shape))} takes {size / 1e9:.0f} GB, more than the memory "
            f"of this machine ({here / 1e9:.0f} GB); make data.init_args.batch_size or the inputs smaller"
        )
