"""What is looked at after the data is there and before the first step, so that bad input costs no training."""

from __future__ import annotations

from typing import Any

from lightning.pytorch import LightningModule, Trainer
from lightning.pytorch.callbacks import Callback

from tinv.errors import TinvError
from tinv.runs.ranks import forget


class CheckSets(Callback):
    """Refuses sets of which nothing is left, or less than one image for each process."""

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Looks at all sets that the run will use.

        Raises:
            TinvError: Naming the set.
        """
        forget("run_dir")
        if stage != "fit":
            return
        for name in ("train", "val", "test"):
            for loader in self._loaders(getattr(trainer, "datamodule", None), name):
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
        hint = f"see data.init_args.{name}_size, or the files that could be read"
        if count == 0 and name != "val":
            raise TinvError(f"no {what} image is left; {hint}")
        if count is not None and 0 < count < processes:
            raise TinvError(
                f"the {what} set has {count} images, less than the {processes} processes of this run; {hint}"
            )
