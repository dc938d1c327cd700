"""How often the largest logit is the right class, and the mean loss: what is summed while a network trains."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor
from torch.nn import Module
from torchmetrics import MeanMetric, Metric

from tinv.metrics.answers import undefined_unless_finite


class KeepsPrecision(Metric):
    """Base of metrics whose sums keep their own precision when a module that holds them takes another one.

    With `trainer.precision=bf16-true` sums would be rounded to 8 bits otherwise.
    """

    def _apply(self, fn: Callable[[Tensor], Tensor], exclude_state: Sequence[str] = "") -> Module:
        return super()._apply(lambda tensor: fn(tensor).to(tensor.dtype), exclude_state)


class MeanLoss(KeepsPrecision, MeanMetric):
    """Mean of losses, weighted by the images each is of; not finite if one of them is not."""

    def __init__(self) -> None:
        # a loss that is not finite is reported as it is; runs.callbacks.StopOnNaN says what to do
        super().__init__(nan_strategy="disable")


class Accuracy(KeepsPrecision):
    """Percentage of images whose largest logit is that of their class: 0 to 100, count-weighted.

    NaN if logits of any image are not finite.

    Reported:
        - `acc` (percent, 0 to 100): accuracy; `train/acc` and `val/acc` in training.

    Formula:
        `100 / N * sum over images x of [argmax f(x) = class of x]`, for the logits f(x) and N images.

    Example:
        >>> accuracy = Accuracy()
        >>> accuracy.update(torch.tensor([[2.0, 1.0], [0.0, 3.0]]), torch.tensor([0, 0]))
        >>> accuracy.compute()
        tensor(50., dtype=torch.float64)
    """

    full_state_update = False
    higher_is_better = True

    def __init__(self) -> None:
        super().__init__()
        self.add_state("correct", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")
        self.correct: Tensor
        self.count: Tensor

    def update(self, logits: Tensor, targets: Tensor) -> None:
        """Adds a batch: logits (N, classes), targets (N,)."""
        self.correct += undefined_unless_finite(logits.argmax(dim=1) == targets, logits).sum()
        self.count += targets.numel()

    def compute(self) -> Tensor:
        """Returns the percentage."""
        return 100 * self.correct / self.count
