"""Two patches, one point or two: training descriptors, and measuring how well and how stably they match."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import torch
from lightning.pytorch.cli import OptimizerCallable
from torch import Tensor
from torch.nn import functional as F

from tinv.data.base import InvarianceDataModule
from tinv.deprecation import renamed
from tinv.metrics import DescriptorShift, PatchMatching
from tinv.metrics.accuracy import MeanLoss
from tinv.tasks.base import BaseTask
from tinv.tasks.hardest_in_batch import hardest_in_batch
from tinv.utils.arguments import NonNegativeFloat, PositiveInt


class Batch(Protocol):
    """Two patches (N, 1, H, W) each, the point that both show or -1 (N,), and the indices of the pairs (N,)."""

    first: Tensor
    second: Tensor
    target: Tensor
    index: Tensor


class Descriptors(BaseTask):
    """Trains a network to describe patches by unit vectors that are near if they show one point.

    The loss is the triplet margin loss with the hardest negatives of the batch; the learning rate falls linearly from
    step to step, to zero (Mishchuk et al., NeurIPS 2017). Patches are normalized each by its own mean and deviation.

    Logged: `train/loss`; with validation pairs `val/fpr95`; `test/fpr95`, `test/auroc`, `test/ap` (0 to 1) and what the
    metrics report, each the mean over test sets; the first three followed by `/SET` for each; `test/descriptor_length`,
    the dimension of a descriptor.

    Args:
        backbone: Name of the network. Those of torchvision take three channels, all of them the grey patch.
        descriptor_dim: Dimension of a descriptor; not used for networks that choose it themselves, as hardnet does.
        margin: Distance wanted between right and wrong descriptors.
        optimizer: Class and options of the optimizer.
        linear_decay: Whether the learning rate falls to zero; otherwise it stays.
        metrics: Measures of how descriptors take a shift, computed on every test set.
        **options: See BaseTask.

    Raises:
        TinvError: For a dimension below 1, and what BaseTask refuses.
    """

    score = PatchMatching

    @renamed(length="descriptor_dim")
    def __init__(
        self,
        backbone: str = "hardnet",
        *,
        descriptor_dim: PositiveInt = 128,
        margin: NonNegativeFloat = 1.0,
        optimizer: OptimizerCallable = torch.optim.SGD,
        linear_decay: bool = True,
        metrics: list[DescriptorShift] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(backbone, optimizer=optimizer, metrics=metrics, **options)
        self.descriptor_dim, self.margin, self.linear_decay = descriptor_dim, margin, linear_decay
        self.channels = 3 if self.backbone_options["source"] == "torchvision" else 1
        self.train_loss = MeanLoss()
        self.val_matching = PatchMatching()
        self.found_dim: int | None = None

    def num_outputs(self, data: InvarianceDataModule) -> int:
        """Returns the dimension of descriptors."""
        return self.descriptor_dim

    def in_channels(self, shape: Sequence[int]) -> int:
        """Returns the channels that the network takes: patches are grey."""
        return self.channels

    def forward(self, patches: Tensor) -> Tensor:
        """Returns the descriptors (N, F), of norm 1, of patches (N, 1, H, W)."""
        return self.describe(normalize_each(patches))

    def describe(self, patches: Tensor) -> Tensor:
        """Returns the descriptors (N, F), of norm 1, of normalized patches (N, 1, H, W)."""
        assert self.network is not None, "configure_model builds the network"
        seen = (
            patches.to(self.dtype).expand(-1, self.channels, -1, -1).contiguous(memory_format=self.memory_format_of(4))
        )
        # a norm of 1 to the last bit of float32 at least, whatever the network computes in
        vectors = self.network(seen).flatten(1)
        return F.normalize(vectors.to(torch.promote_types(vectors.dtype, torch.float32)))

    def configure_optimizers(self) -> Any:
        """Returns the optimizer, and the schedule by steps."""
        optimizer = super().configure_optimizers()
        if not self.linear_decay:
            return optimizer
        steps = self.trainer.estimated_stepping_batches
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: max(0.0, 1 - step / max(1, steps)))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Returns the loss of a batch of pairs of different points, and what policies add to it for the second."""
        # one after the other: batch norm sees each side of the pairs by itself, as in the published code
        first, second = self(batch.first), self(batch.second)
        with torch.autocast(first.device.type, enabled=False):
            loss = hardest_in_batch(first, second, self.margin)
        self.train_loss.update(loss.detach(), len(first))
        return self.add_policy_penalty(loss)

    def on_train_epoch_end(self) -> None:
        """Logs `train/loss`."""
        self.log("train/loss", self.train_loss.compute(), prog_bar=True)
        self.train_loss.reset()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Adds a batch to the validation pairs."""
        self.val_matching.update((self(batch.first) - self(batch.second)).norm(dim=1), batch.target >= 0)

    def on_validation_epoch_end(self) -> None:
        """Logs `val/fpr95`."""
        self.log("val/fpr95", self.val_matching.compute()["fpr95"], prog_bar=True)
        self.val_matching.reset()

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Adds a batch to the metrics of its test set."""
        matching, measures = self.metrics_of(self.test_sets[dataloader_idx])
        second = normalize_each(batch.second)
        first_vector, second_vector = self(batch.first), self.describe(second)
        self.found_dim = first_vector.shape[1]
        matching.update((first_vector - second_vector).norm(dim=1), batch.target >= 0)
        for measure in measures:
            measure.update(self.describe, first_vector, second, batch.target, batch.index)

    def log_test(self) -> None:
        """Logs the means over test sets, `test/NAME`, and `test/fpr95`, `test/auroc` and `test/ap` of each set."""
        found = {name: self.metrics_of(name)[0].compute() | self.measured(name) for name in self.test_sets}
        for key in next(iter(found.values())):
            self.log(f"test/{key}", torch.stack([values[key].cpu() for values in found.values()]).mean())
        for key in ("fpr95", "auroc", "ap"):
            self.log_dict({f"test/{key}/{name}": values[key] for name, values in found.items()})
        self.log("test/descriptor_length", float(self.found_dim or 0))

    def artifact_stem(self, measure: Any, test_set: str) -> str:
        """Returns how the names of the files that a measure writes begin, with the test set even if it is alone."""
        return f"{measure.name}_{test_set}"

    def predict_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Tensor]:
        """Returns the indices of the pairs, points (-1 for two) and distances."""
        distance = (self(batch.first) - self(batch.second)).norm(dim=1)
        return {"index": batch.index, "target": batch.target, "distance": distance}


def normalize_each(patches: Tensor) -> Tensor:
    """Returns patches (N, C, H, W), each less its own mean and over its own standard deviation."""
    deviation, mean = torch.std_mean(patches.float(), dim=(1, 2, 3), keepdim=True)
    return (patches - mean) / (deviation + 1e-7)
