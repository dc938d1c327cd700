"""One image or clip, one class: training, and the invariance measures on every test set."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, Protocol, Self, cast, get_args

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable, ReduceLROnPlateau
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor, nn
from torch.nn import functional as F

from tinv.data.base import described
from tinv.errors import TinvError, unknown
from tinv.metrics import Accuracy, InvarianceMetric, VideoAccuracy
from tinv.metrics.accuracy import MeanLoss
from tinv.metrics.answers import check_names, undefined_message
from tinv.models import Source, backbone_options, create_backbone
from tinv.policies.cards import Padding, Subsampling
from tinv.policies.conversion import Axes, BlurPadding, PoolPolicy, Stem
from tinv.policies.padding import PaddingPolicy
from tinv.policies.subsampling import SubsamplingPolicy
from tinv.tasks.frozen_trunk import FrozenTrunk

MemoryFormat = Literal["contiguous", "channels_last"]


class Batch(Protocol):
    """Images (N, C, H, W), classes (N,) and the images' numbers in their set (N,)."""

    image: Tensor
    target: Tensor
    index: Tensor


class Classification(LightningModule):
    """Trains a network under a padding and a subsampling policy with cross-entropy, and measures its invariance.

    Logged: `train/loss`, `train/acc`, `val/loss`, `val/acc`; for each test set `test/acc` and what the metrics report,
    followed by `/SET` where there is more than one. Accuracies are percentages. Where the data says which video a test
    clip is of (`video_of`), also `test/acc5`, `test/video_acc` and `test/video_acc5`, see VideoAccuracy.

    Args:
        backbone: name of the network.
        source: where it comes from.
        backbone_args: the network's own options, such as `kernel_size`.
        padding: policy of all its convolutions, see `tinv list padding`.
        subsampling: policy of all its strides, see `tinv list subsampling`.
        pool: padding of the pools of a timm or torchvision network: `keep`, `valid`, `same` or `full`.
        stem: `convert` lets `subsampling` treat the first convolution of such a network too.
        axes: what the policies treat in clips: `space`, or `space+time`.
        blur_padding: what the border of the blurs of such a network holds; `as_padding` follows `padding`.
        partial: leaves layers of such a network that cannot take the policies, which by default are an error; the
            results then say "partial".
        pretrained: starts from the source's published weights.
        weights: a file that the pretrained weights are taken from, instead of the source's; its last layer is left out
            if it is for other classes.
        frozen: trains the last layer only. Everything before it stays in evaluation mode, sees each image of an epoch
            once, and its answers are kept in memory for the epochs that follow.
        border: zeros around the image in pixels a side, those of the first convolution's own padding included; 0 is
            that padding alone.
        num_classes: numbers in the output vector; None takes the data's.
        input_shape: (C, H, W) of the images, (C, T, H, W) of the clips; None takes the data's.
        optimizer: class and options.
        lr_scheduler: class and options; stepped once an epoch.
        metrics: measures of invariance, computed on every test set.
        memory_format: of the network's weights; `channels_last` is faster on most machines.
    """

    def __init__(
        self,
        backbone: str,
        source: Source = "tinv",
        backbone_args: dict[str, Any] | None = None,
        padding: Padding | PaddingPolicy = "keep",
        subsampling: Subsampling | SubsamplingPolicy = "keep",
        pool: PoolPolicy = "keep",
        stem: Stem = "keep",
        axes: Axes = "space",
        blur_padding: BlurPadding = "as_padding",
        partial: bool = False,
        pretrained: bool = False,
        weights: str | None = None,
        frozen: bool = False,
        border: int = 0,
        num_classes: int | None = None,
        input_shape: tuple[int, ...] | None = None,
        optimizer: OptimizerCallable = torch.optim.Adam,
        lr_scheduler: LRSchedulerCallable | None = None,
        metrics: list[InvarianceMetric] | None = None,
        memory_format: MemoryFormat = "contiguous",
    ) -> None:
        super().__init__()
        if memory_format not in get_args(MemoryFormat):
            raise unknown("memory_format", memory_format, get_args(MemoryFormat))
        self.backbone_options = backbone_options(
            backbone_args,
            name=backbone,
            source=source,
            padding=padding,
            subsampling=subsampling,
            pool=pool,
            stem=stem,
            axes=axes,
            blur_padding=blur_padding,
            partial=partial,
            pretrained=pretrained,
            weights=weights,
            border=border,
        )
        self.num_classes, self.input_shape = num_classes, input_shape
        self.optimizer, self.lr_scheduler = optimizer, lr_scheduler
        self.metrics = metrics or []
        check_names(self.metrics)
        self.channels_last = memory_format == "channels_last"
        self.network: nn.Module | None = None
        self.trunk = FrozenTrunk() if frozen else None
        self.train_loss, self.val_loss = MeanLoss(), MeanLoss()
        self.train_accuracy, self.val_accuracy = Accuracy(), Accuracy()
        self.test_metrics = nn.ModuleDict()
        self.test_sets: tuple[str, ...] = ()
        self.video_accuracy = VideoAccuracy()
        self.video_of: Tensor | None = None

    def configure_model(self) -> None:
        """Builds the network for the data at hand; called by the trainer before each stage, acts once.

        Raises:
            TinvError: if the network cannot be built, a metric cannot measure it, or the data leaves less margin than a
                metric's largest shift.
        """
        data = described(getattr(self._trainer, "datamodule", None))
        shape = self.input_shape or data.input_shape
        if self.network is None:
            num_classes = self.num_classes or data.num_classes
            if num_classes is None or shape is None:
                raise TinvError(
                    "the data does not say its num_classes and input_shape; set model.init_args.num_classes and "
                    "model.init_args.input_shape=[C,H,W]"
                )
            self.network = create_backbone(
                num_classes=num_classes, in_channels=shape[0], input_size=tuple(shape[1:]), **self.backbone_options
            )
            self.network = self.network.to(memory_format=self._memory_format(len(shape) + 1))
            if self.trunk is not None:
                self.trunk.freeze(self.network, data.augments)
            conversion = getattr(self.network, "conversion", None)
            if conversion is not None:
                # a policy may cost many times the network's usual work: known before the first step
                rank_zero_info(f"{self.backbone_options['name']} under {conversion.policy}: {conversion.price}")
        margin = data.margin
        for metric in self.metrics:
            if shape is not None:
                metric.check(self.network, shape)
            if margin is not None and metric.margin > margin:
                raise TinvError(
                    f"metric {metric.name}: max_shift={metric.max_shift} would push images off the canvas, which "
                    f"leaves {margin} pixels a side; use a smaller max_shift, a larger data.init_args.canvas or "
                    "canvas: circular"
                )
            if metric.room > (room := data.room):
                size = "" if shape is None else f" (data.init_args.test_size={max(shape[1:]) + metric.room})"
                raise TinvError(
                    f"metric {metric.name}: max_shift={metric.max_shift} needs test images {metric.room} pixels larger "
                    f"than what the network sees, the data's are {room} larger; use a smaller max_shift, larger test "
                    f"images{size}, or motion: circular"
                )

    def forward(self, images: Tensor) -> Tensor:
        """Returns the logits (N, classes) of images (N, C, H, W) or clips (N, C, T, H, W)."""
        assert self.network is not None, "configure_model builds the network"
        images = images.to(self.dtype)  # data modules make float32, whatever the trainer's precision
        logits: Tensor = self.network(images.contiguous(memory_format=self._memory_format(images.dim())))
        return logits

    def _memory_format(self, axes: int) -> torch.memory_format:
        """Returns the order in memory of batches of so many axes: 4 of images, 5 of clips."""
        if not self.channels_last:
            return torch.contiguous_format
        return torch.channels_last if axes == 4 else torch.channels_last_3d

    def train(self, mode: bool = True) -> Self:
        """Sets training or evaluation mode; what is frozen stays in evaluation mode."""
        super().train(mode)
        if self.trunk is not None and self.network is not None:
            self.network.eval()
        return self

    def configure_optimizers(self) -> Any:
        """Returns the optimizer, with the scheduler if there is one."""
        optimizer = self.optimizer([p for p in self.parameters() if p.requires_grad])
        if self.lr_scheduler is None:
            return optimizer
        scheduler = self.lr_scheduler(optimizer)
        if isinstance(scheduler, ReduceLROnPlateau):
            plateau = {"scheduler": scheduler, "monitor": scheduler.monitor}
            if scheduler.monitor.startswith("val/"):
                # an epoch without validation says nothing of it
                plateau["frequency"] = self.trainer.check_val_every_n_epoch or 1
            return {"optimizer": optimizer, "lr_scheduler": plateau}
        return {"optimizer": optimizer, "lr_scheduler": scheduler}

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Returns the mean cross-entropy of a batch."""
        return self._score(batch, "train", self.train_loss, self.train_accuracy)

    def on_train_epoch_end(self) -> None:
        """Logs `train/loss` and `train/acc`."""
        self._log_and_reset("train", self.train_loss, self.train_accuracy)

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        """Adds a batch to the validation loss and accuracy."""
        self._score(batch, "val", self.val_loss, self.val_accuracy)

    def on_validation_epoch_end(self) -> None:
        """Logs `val/loss` and `val/acc`."""
        self._log_and_reset("val", self.val_loss, self.val_accuracy)

    def _score(self, batch: Batch, images: str, loss_metric: MeanLoss, accuracy: Accuracy) -> Tensor:
        trunk = self.trunk
        logits = self(batch.image) if trunk is None else trunk.logits(self, images, batch.image, batch.index)
        loss = F.cross_entropy(logits, batch.target)
        loss_metric.update(loss.detach(), len(batch.target))
        accuracy.update(logits.detach(), batch.target)
        return loss

    def _log_and_reset(self, stage: str, loss: MeanLoss, accuracy: Accuracy) -> None:
        # once an epoch, not once a step: `self.log` costs as much as a step of a small network
        self.log_dict({f"{stage}/loss": loss.compute(), f"{stage}/acc": accuracy.compute()}, prog_bar=True)
        loss.reset()
        accuracy.reset()

    def on_test_start(self) -> None:
        """Makes a fresh set of metrics for every test set."""
        data = described(self.trainer.datamodule)  # type: ignore[attr-defined]
        self.video_of = data.video_of
        self.video_accuracy.reset()
        self.test_sets = data.test_sets
        self.test_metrics = nn.ModuleDict(
            {name: nn.ModuleList([Accuracy(), *(metric.clone() for metric in self.metrics)]) for name in self.test_sets}
        ).to(self.device)

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Adds a batch to the metrics of its test set; images with room around what the network sees are cut."""
        room = described(self.trainer.datamodule).room  # type: ignore[attr-defined]
        seen = batch.image.to(self.dtype)
        logits = self(_cut(seen, room))
        accuracy, measures = self._metrics_of(self.test_sets[dataloader_idx])
        accuracy.update(logits, batch.target)
        if self.video_of is not None:
            self.video_accuracy.update(logits, batch.target, self.video_of.to(batch.index.device)[batch.index])
        for measure in measures:
            assert self.network is not None
            images = _cut(seen, room - measure.room)
            measure.update(self.network, images, logits, batch.target, batch.index)

    def _metrics_of(self, test_set: str) -> tuple[Accuracy, list[InvarianceMetric]]:
        accuracy, *measures = cast(nn.ModuleList, self.test_metrics[test_set])
        return cast(Accuracy, accuracy), cast(list[InvarianceMetric], measures)

    def on_test_epoch_end(self) -> None:
        """Logs `test/NAME`, or `test/NAME/SET` where there are several test sets."""
        for name in self.test_sets:
            accuracy, measures = self._metrics_of(name)
            end = f"/{name}" if len(self.test_sets) > 1 else ""
            self.log(f"test/acc{end}", accuracy.compute())
            for measure in measures:
                # for good: artifacts are saved of all processes' images too
                measure.sync()
                self.log_dict({f"test/{key}{end}": value for key, value in measure.results().items()})
        if self.video_of is not None:
            self.log_dict({f"test/{key}": value for key, value in self.video_accuracy.compute().items()})
        tested = {key: value for key, value in self.trainer.callback_metrics.items() if key.startswith("test/")}
        if (message := undefined_message(tested)) is not None:
            rank_zero_warn(message)

    def save_artifacts(self, folder: Path) -> list[Path]:
        """Writes what the last test found beyond numbers (arrays, pictures) to `folder`; returns the files."""
        files = []
        for name in self.test_sets:
            for measure in self._metrics_of(name)[1]:
                files += measure.save(folder, f"{measure.name}_{name}" if len(self.test_sets) > 1 else measure.name)
        return files

    def predict_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Tensor]:
        """Returns the images' numbers, classes and class probabilities (N, classes)."""
        seen = _cut(batch.image, described(self.trainer.datamodule).room)  # type: ignore[attr-defined]
        return {"index": batch.index, "target": batch.target, "probability": self(seen).float().softmax(dim=1)}


def _cut(images: Tensor, pixels: int) -> Tensor:
    """Returns the middle of images (N, C, H, W), so many pixels smaller an axis."""
    begin = pixels // 2
    return images[:, :, begin : images.shape[2] - (pixels - begin), begin : images.shape[3] - (pixels - begin)]
