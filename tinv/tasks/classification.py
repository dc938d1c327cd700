"""One image or clip, one class: training, and the invariance measures on every test set."""

from __future__ import annotations

from typing import Any, Protocol, Self

from lightning.pytorch.cli import LRSchedulerCallable, ReduceLROnPlateau
from torch import Tensor
from torch.nn import functional as F

from tinv.data.base import InvarianceDataModule
from tinv.errors import TinvError
from tinv.metrics import Accuracy, InvarianceMetric, VideoAccuracy
from tinv.metrics.accuracy import MeanLoss
from tinv.metrics.views import center_view, trim
from tinv.models.features import as_logits
from tinv.tasks.base import BaseTask
from tinv.tasks.frozen_trunk import FrozenTrunk
from tinv.utils.arguments import NonNegativeInt, PositiveInt


class Batch(Protocol):
    """Images (N, C, H, W), classes (N,) and sample indices (N,)."""

    image: Tensor
    target: Tensor
    index: Tensor


class Classification(BaseTask):
    """Trains a network under a padding and a subsampling policy with cross-entropy, and measures its invariance.

    Logged: `train/loss` (the cross-entropy), `train/acc`, `val/loss`, `val/acc`, and `train/policy_penalty` where a
    policy adds a loss; for each test set `test/acc` and what the metrics report, followed by `/SET` where there is more
    than one. Accuracies are percentages. Where the data says which video a test clip is of (`clip_to_video`), also
    `test/acc5`, `test/video_acc` and `test/video_acc5`, see VideoAccuracy.

    Args:
        backbone: Name of the network.
        frozen: Whether the last layer alone is trained. Everything before it stays in evaluation mode, sees each image
            of an epoch once, and its features are kept in memory for the epochs that follow.
        border: Zeros around the image in pixels a side, those of the first convolution's own padding included; 0 is
            that padding alone.
        num_classes: Output classes; None takes those of the data.
        lr_scheduler: Class and options of the learning rate's scheduler; stepped once an epoch.
        metrics: Measures of invariance, computed on every test set.
        **options: See BaseTask.
    """

    score = Accuracy

    def __init__(
        self,
        backbone: str,
        *,
        frozen: bool = False,
        border: NonNegativeInt = 0,
        num_classes: PositiveInt | None = None,
        lr_scheduler: LRSchedulerCallable | None = None,
        metrics: list[InvarianceMetric] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(backbone, metrics=metrics, **options)
        self.backbone_options["border"] = border
        self.num_classes, self.lr_scheduler = num_classes, lr_scheduler
        self.trunk = FrozenTrunk() if frozen else None
        self.train_loss, self.val_loss = MeanLoss(), MeanLoss()
        self.train_accuracy, self.val_accuracy = Accuracy(), Accuracy()
        self.video_accuracy = VideoAccuracy()

    def num_outputs(self, data: InvarianceDataModule) -> int | None:
        """Returns the number of classes.

        Raises:
            TinvError: If fewer are asked for than the data has.
        """
        asked, there = self.num_classes, data.num_classes
        if asked is not None and there is not None and asked < there:
            raise TinvError(f"model.init_args.num_classes={asked}, but the data has {there} classes; leave it out")
        return there if asked is None else asked

    def on_network_built(self, data: InvarianceDataModule) -> None:
        """Freezes what is not trained."""
        if self.trunk is not None:
            assert self.network is not None
            self.trunk.freeze(self.network, data.is_augmented)

    def configure_model(self) -> None:
        """Builds the network for the data; the trainer calls it before each stage, and it acts once.

        Raises:
            TinvError: If the network cannot be built, a metric cannot measure it, or the data leaves less margin than a
                metric's largest shift.
        """
        super().configure_model()
        data = self.data
        for metric in self.metrics:
            self._check_metric(metric, data, self.input_shape or data.input_shape)

    def _check_metric(
        self, metric: InvarianceMetric, data: InvarianceDataModule, shape: tuple[int, ...] | None
    ) -> None:
        if shape is not None:
            assert self.network is not None
            metric.check(self.network, shape)
        if getattr(metric, "mode", None) == "camera":
            raise TinvError(
                f"metric {metric.name}: mode camera needs photographs of twice the resolution, which tinv measure "
                "reads; use mode: crop here"
            )
        key = metric.shift_argument
        setting = f"metric {metric.name}: {key}={getattr(metric, key, 'its shift')}"
        if data.canvas_margin is not None and metric.canvas_margin > data.canvas_margin:
            raise TinvError(
                f"{setting} would push images off the canvas, which leaves {data.canvas_margin} pixels a side; use a "
                f"smaller {key}, a larger data.init_args.canvas_size or mode: circular"
            )
        if metric.crop_margin > data.crop_margin:
            size = "" if shape is None else f" (data.init_args.test_resolution={max(shape[1:]) + metric.crop_margin})"
            raise TinvError(
                f"{setting} needs test images {metric.crop_margin} pixels larger than what the network sees, the "
                f"data's are {data.crop_margin} larger; use a smaller {key}, larger test images{size} or mode: circular"
            )

    def forward(self, images: Tensor) -> Tensor:
        """Returns the logits (N, classes) of images (N, C, H, W) or clips (N, C, T, H, W).

        Raises:
            TinvError: If the network returns anything else.
        """
        assert self.network is not None, "configure_model builds the network"
        images = images.to(self.dtype)  # data modules make float32, whatever the trainer's precision
        return as_logits(self.network(images.contiguous(memory_format=self.memory_format_of(images.dim()))))

    def train(self, mode: bool = True) -> Self:
        """Sets training or evaluation mode; what is frozen stays in evaluation mode."""
        super().train(mode)
        if self.trunk is not None and self.network is not None:
            self.network.eval()
        return self

    def configure_optimizers(self) -> Any:
        """Returns the optimizer, with the scheduler if there is one."""
        optimizer = super().configure_optimizers()
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
        """Returns the mean cross-entropy of a batch, and what policies add to it."""
        return self.add_policy_penalty(self._score(batch, "train", self.train_loss, self.train_accuracy))

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
        super().on_test_start()
        self.video_accuracy.reset()

    def test_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> None:
        """Adds a batch to the metrics of its test set; images with room around what the network sees are cut."""
        data = self.data
        images = batch.image.to(self.dtype)
        logits = self(center_view(images, data.crop_margin, "crop"))
        accuracy, measures = self.metrics_of(self.test_sets[dataloader_idx])
        accuracy.update(logits, batch.target)
        if data.clip_to_video is not None:
            self.video_accuracy.update(logits, batch.target, data.clip_to_video.to(batch.index.device)[batch.index])
        for measure in measures:
            seen = trim(images, data.crop_margin - measure.crop_margin, "crop")
            measure.update(self.network, seen, logits, batch.target, batch.index)

    def log_test(self) -> None:
        """Logs `test/NAME`, or `test/NAME/SET` where there are several test sets."""
        for name in self.test_sets:
            end = f"/{name}" if len(self.test_sets) > 1 else ""
            self.log(f"test/acc{end}", self.metrics_of(name)[0].compute())
            self.log_dict({f"test/{key}{end}": value for key, value in self.measured(name).items()})
        if self.data.clip_to_video is not None:
            self.log_dict({f"test/{key}": value for key, value in self.video_accuracy.compute().items()})

    def predict_step(self, batch: Batch, batch_idx: int, dataloader_idx: int = 0) -> dict[str, Tensor]:
        """Returns the sample indices, classes and class probabilities (N, classes)."""
        seen = center_view(batch.image, self.data.crop_margin, "crop")
        return {"index": batch.index, "target": batch.target, "probability": self(seen).float().softmax(dim=1)}
