"""Two patches, one point or two: training descriptors, and measuring how well and how stably they match."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Protocol, cast, get_args

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor, nn
from torch.nn import functional as F

from tinv.data.base import described
from tinv.errors import TinvError, unknown
from tinv.metrics import DescriptorShift, PatchMatching
from tinv.metrics.accuracy import MeanLoss
from tinv.metrics.answers import check_names, undefined_message
from tinv.models import Source, backbone_options, create_backbone
from tinv.policies.cards import Padding, Subsampling
from tinv.policies.conversion import BlurPadding, PoolPolicy, Stem
from tinv.policies.padding import PaddingPolicy
from tinv.policies.subsampling import SubsamplingPolicy
from tinv.tasks.classification import MemoryFormat
from tinv.tasks.hardest_in_batch import hardest_in_batch


class Batch(Protocol):
    """Two patches (N, 1, H, W) each, the point that both show or -1 (N,), and the pairs' numbers in their set (N,)."""

    first: Tensor
    second: Tensor
    target: Tensor
    index: Tensor


class Descriptors(LightningModule):
    """Trains a network to describe patches by unit vectors that are near if they show one point.

    The loss is the triplet margin loss with the hardest negatives of the batch; the learning rate falls linearly from
    step to step, to zero (Mishchuk et al., NeurIPS 2017). Patches are normalised each by its own mean and deviation.

    Logged: `train/loss`; with validation pairs `val/fpr95`; `test/fpr95`, `test/auroc`, `test/ap` (0 to 1) and what the
    metrics report, each the mean over test sets; the first three followed by `/SET` for each; `test/descriptor_length`,
    the numbers of a descriptor.

    Args:
        backbone: name of the network.
        source: where it comes from. Those of torchvision take three channels and see the grey one three times.
        backbone_args: the network's own options, such as `descriptor`.
        padding: policy of all its convolutions, see `tinv list padding`.
        subsampling: policy of all its strides, see `tinv list subsampling`.
        pool: padding of the pools of a timm or torchvision network: `keep`, `valid`, `same` or `full`.
        stem: `convert` lets `subsampling` treat the first convolution of such a network too.
        blur_padding: what the border of the blurs of such a network holds; `as_padding` follows `padding`.
        partial: leaves layers of such a network that cannot take the policies, which by default are an error; the
            results then say "partial".
        pretrained: starts from the source's published weights.
        weights: a file that the pretrained weights are taken from, instead of the source's.
        length: numbers of a descriptor; of networks that choose it themselves, as hardnet, it is not used.
        input_shape: (C, H, W) of the patches; None takes the data's.
        margin: distance wanted between right and wrong descriptors.
        optimizer: class and options.
        linear_decay: whether the learning rate falls to zero; otherwise it stays.
        metrics: measures of how descriptors take a shift, computed on every test set.
        memory_format: of the network's weights; `channels_last` is faster on most machines.
    """

    def __init__(
        self,
        backbone: str = "hardnet",
        source: Source = "tinv",
        backbone_args: dict[str, Any] | None = None,
        padding: Padding | PaddingPolicy = "keep",
        subsampling: Subsampling | SubsamplingPolicy = "keep",
        pool: PoolPolicy = "keep",
        stem: Stem = "keep",
        blur_padding: BlurPadding = "as_padding",
        partial: bool = False,
        pretrained: bool = False,
        weights: str | None = None,
        length: int = 128,
        input_shape: tuple[int, int, int] | None = None,
        margin: float = 1.0,
        optimizer: OptimizerCallable = torch.optim.SGD,
        linear_decay: bool = True,
        metrics: list[DescriptorShift] | None = None,
        memory_format: MemoryFormat = "contiguous",
    ) -> None:
        super().__init__()
        if memory_format not in get_args(MemoryFormat):
            raise unknown("memory_format", memory_format, get_args(MemoryFormat))
        if length < 1:
            raise TinvError(f"length must be 1 or more, not {length}")
        self.backbone_options = backbone_options(
            backbone_args,
            name=backbone,
            source=source,
            padding=padding,
            subsampling=subsampling,
            pool=pool,
            stem=stem,
            blur_padding=blur_padding,
            partial=partial,
            pretrained=pretrained,
            weights=weights,
            num_classes=length,
        )
        self.channels = 3 if source == "torchvision" else 1
        self.input_shape, self.margin = input_shape, margin
        self.optimizer, self.linear_decay, self.metrics = optimizer, linear_decay, metrics or []
        check_names(self.metrics)
        self.memory_format = torch.channels_last if memory_format == "channels_last" else torch.contiguous_format
        self.network: nn.Module | None = None
        self.train_loss = MeanLoss()
        self.val_matching = PatchMatching()
        self.test_metrics = nn.ModuleDict()
        self.test_sets: tuple[str, ...] = ()
        self.length: int | None = None

    def configure_model(self) -> None:
        """Builds the network for the data at hand; called by the trainer before each stage, acts once.

        Raises:
            TinvError: if the network cannot be built.
        """
        if self.network is not None:
            return
        shape = self.input_shape or described(getattr(self._trainer, "datamodule", None)).input_shape
        if shape is None:
            raise TinvError("the data does not say its input_shape; set model.init_args.input_shape=[C,H,W]")
        self.network = create_backbone(in_channels=self.channels, input_size=tuple(shape[1:]), **self.backbone_options)
        self.network = self.network.to(memory_format=self.memory_format)
        conversion = getattr(self.network, "conversion", None)
        if conversion is not None:
            # a policy may cost many times the network's usual work: known before the first step
            rank_zero_info(f"{self.backbone_options['name']} under {conversion.policy}: {conversion.price}")

    def forward(self, patches: Tensor) -> Tensor:
        """Returns the descriptors (N, F), of length 1, of patches (N, 1, H, W)."""
        return self.describe(normalise_each(patches))

    def describe(self, patches: Tensor) -> Tensor:
        """Returns the descriptors (N, F), of length 1, of normalised patches (N, 1, H, W)."""
        assert self.network is not None, "configure_model builds the network"
        seen = patches.to(self.dtype).expand(-1, self.channels, -1, -1).contiguous(memory_format=self.memory_format)
        # as long as one to the last bit of float32 at least, whatever the network computes in
        vectors = self.network(seen).flatten(1)
        return F.normalize(vectors.to(torch.promote_types(vectors.dtype, torch.float32)))

    def configure_optimizers(self) -> Any:
        """Returns the optimizer, and the schedule by steps."""
        optimizer = self.optimizer([p for p in self.parameters() if p.requires_grad])
        if not self.linear_decay:
            return optimizer
        steps = self.trainer.estimated_stepping_batches
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: max(0.0, 1 - step / max(1, steps)))
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Returns the loss of a batch of pairs of different points."""
        # one after the other: batch norm sees each side of the pairs by itself, as in the published code
        first, second = self(batch.first), self(batch.second)
        with torch.autocast(first.device.type, enabled=False):
            loss = hardest_in_batch(first, second, self.margin)
        self.train_loss.update(loss.detach(), len(first))
        return loss

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

    def on_test_start(self) -> None:
        """Makes a fresh set of metrics for every test set."""
        self.test_sets = self.trainer.datamodule.test_sets  # type: ignore[attr-defined]
        self.test_metrics = nn.ModuleDict(
            {name: nn.ModuleList([PatchMatching(), *(m.clone() for m in self.metrics)]) for name in self.test_sets}
        ).to(self.device)

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Adds a batch to the metrics of its test set."""
        matching, measures = self._metrics_of(self.test_sets[dataloader_idx])
        second = normalise_each(batch.second)
        first_vector, second_vector = self(batch.first), self.describe(second)
        self.length = first_vector.shape[1]
        matching.update((first_vector - second_vector).norm(dim=1), batch.target >= 0)
        for measure in measures:
            measure.update(self.describe, first_vector, second, batch.target, batch.index)

    def _metrics_of(self, test_set: str) -> tuple[PatchMatching, list[DescriptorShift]]:
        matching, *measures = cast(nn.ModuleList, self.test_metrics[test_set])
        return cast(PatchMatching, matching), cast(list[DescriptorShift], measures)

    def on_test_epoch_end(self) -> None:
        """Logs the means over test sets, `test/NAME`, and `test/fpr95`, `test/auroc` and `test/ap` of each set."""
        found: dict[str, dict[str, Tensor]] = {}
        for name in self.test_sets:
            matching, measures = self._metrics_of(name)
            found[name] = matching.compute()
            for measure in measures:
                # for good: artifacts are saved of all processes' patches too
                measure.sync()
                found[name] |= measure.results()
        for key in next(iter(found.values())):
            self.log(f"test/{key}", torch.stack([values[key].cpu() for values in found.values()]).mean())
        for key in ("fpr95", "auroc", "ap"):
            self.log_dict({f"test/{key}/{name}": values[key] for name, values in found.items()})
        self.log("test/descriptor_length", float(self.length or 0))
        tested = {key: value for key, value in self.trainer.callback_metrics.items() if key.startswith("test/")}
        if (message := undefined_message(tested)) is not None:
            rank_zero_warn(message)

    def save_artifacts(self, folder: Path) -> list[Path]:
        """Writes what the last test found beyond numbers (arrays, pictures) to `folder`; returns the files."""
        return [
            file
            for name in self.test_sets
            for measure in self._metrics_of(name)[1]
            for file in measure.save(folder, f"{measure.name}_{name}")
        ]

    def predict_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Tensor]:
        """Returns the pairs' numbers, points (-1 for two) and distances."""
        distance = (self(batch.first) - self(batch.second)).norm(dim=1)
        return {"index": batch.index, "target": batch.target, "distance": distance}


def normalise_each(patches: Tensor) -> Tensor:
    """Returns patches (N, C, H, W), each less its own mean and over its own standard deviation."""
    deviation, mean = torch.std_mean(patches.float(), dim=(1, 2, 3), keepdim=True)
    return (patches - mean) / (deviation + 1e-7)
