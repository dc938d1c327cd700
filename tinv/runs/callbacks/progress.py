"""How far a run is, in a log file."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lightning.pytorch import Callback, Trainer

from tinv.utils.progress import MinuteLines


class ProgressLines(Callback):
    """Stands in for the progress bar in a log file: a line a minute within long epochs and tests."""

    def __init__(self) -> None:
        self.lines = MinuteLines()

    def on_train_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        """Counts the batches of an epoch."""
        self._tell(
            trainer, f"epoch {trainer.current_epoch + 1}, training batches", args, [trainer.num_training_batches]
        )

    def on_validation_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        """Counts the batches of a validation."""
        self._tell(trainer, "validation batches", args, trainer.num_val_batches)

    def on_test_batch_end(self, trainer: Trainer, *args: Any, **kwargs: Any) -> None:
        """Counts the batches of a test set."""
        self._tell(trainer, "test batches", args, trainer.num_test_batches)

    def _tell(self, trainer: Trainer, what: str, args: Sequence[Any], totals: Sequence[float]) -> None:
        # Lightning gives the module, outputs, the batch, its number and, of several sets, the number of the set
        _, _, _, batch_idx, *number = args
        if trainer.is_global_zero:
            self.lines(what, batch_idx + 1, totals[number[0] if number else 0])
