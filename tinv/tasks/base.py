"""What all tasks have in common: a network under its policies, an optimizer, and metrics of every test set."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal, cast

import torch
from lightning.pytorch import LightningModule
from lightning.pytorch.cli import OptimizerCallable
from lightning.pytorch.utilities import rank_zero_info, rank_zero_warn
from torch import Tensor, nn
from torchmetrics import Metric

from tinv.artifacts import write_artifacts
from tinv.data.base import InvarianceDataModule, described
from tinv.errors import TinvError
from tinv.metrics.answers import check_names, undefined_message
from tinv.metrics.base import Unit
from tinv.models import Source, backbone_options, create_backbone
from tinv.models.published import weights_name
from tinv.models.weights import warn_of_untrained
from tinv.nn import Subsampler
from tinv.policies.activation import ActivationPolicy
from tinv.policies.cards import Activation, Padding, Subsampling, Tokens
from tinv.policies.conversion import Axes, BlurPadding, PoolPolicy, Stem
from tinv.policies.padding import PaddingPolicy
from tinv.policies.subsampling import SubsamplingPolicy
from tinv.policies.tokens import TokenPolicy
from tinv.utils.arguments import Checked

MemoryFormat = Literal["contiguous", "channels_last"]


class BaseTask(Checked, LightningModule):
    """Base of tasks. It builds the network for the data, and measures it on every test set.

    A subclass says how many outputs the network has (`num_outputs`), what every test set is scored with (`score`), and
    how batches are trained on, validated and tested. Its `training_step` returns `self.add_policy_penalty(loss)`, so
    that policies that add a loss of their own are trained with it.

    Args:
        backbone: Name of the network; of timm also `hf-hub:OWNER/NAME` or `local-dir:FOLDER`.
        source: Where the network comes from: `tinv`, `timm` or `torchvision`.
        backbone_args: Options of the network itself, such as `kernel_size`.
        padding: Policy of all its convolutions, see `tinv list padding`.
        subsampling: Policy of all its strides, see `tinv list subsampling`.
        pool: Padding of its pools: `keep`, `valid`, `same` or `full`.
        stem: Whether `subsampling` treats the first convolution too (`convert`).
        axes: What the policies treat in clips: `space`, or `space+time`.
        blur_padding: What the border of its blurs holds; `as_padding` follows `padding`.
        activation: Policy of the activations of its maps, see `tinv list activation`.
        partial: Whether layers that cannot take the policies are left, which by default are an error; the results then
            say "partial".
        tokens: Where the patches and windows of a vision transformer begin, see `tinv list tokens`.
        pretrained: Whether training starts from the published weights of the source.
        weights: File that the pretrained weights are taken from, instead of the source; its last layer is left out
            if it is for other classes. Of torchvision also the name of published weights, such as `IMAGENET1K_V1`.
        input_shape: (C, H, W) of the images, (C, T, H, W) of the clips; None takes that of the data.
        optimizer: Class and options of the optimizer.
        metrics: Measures of invariance, computed on every test set.
        memory_format: Memory format of the network's weights; `channels_last` is faster on most machines.

    Raises:
        TinvError: For an unknown memory format, two metrics of one name, or a key in `backbone_args` that has its own
            place.
    """

    score: ClassVar[type[Metric]]
    """Class of the metric that every test set is scored with, beside the measures of invariance."""

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
        activation: Activation | ActivationPolicy = "keep",
        partial: bool = False,
        tokens: Tokens | TokenPolicy = "keep",
        pretrained: bool = False,
        weights: str | None = None,
        input_shape: tuple[int, ...] | None = None,
        optimizer: OptimizerCallable = torch.optim.Adam,
        metrics: Sequence[Metric] | None = None,
        memory_format: MemoryFormat = "contiguous",
    ) -> None:
        super().__init__()
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
            activation=activation,
            partial=partial,
            tokens=tokens,
            pretrained=pretrained,
            weights=weights,
        )
        self.input_shape, self.optimizer = input_shape, optimizer
        self.metrics: list[Any] = list(metrics or [])
        check_names(self.metrics)
        self.channels_last = memory_format == "channels_last"
        self.network: nn.Module | None = None
        self.test_metrics = nn.ModuleDict()
        self.test_sets: tuple[str, ...] = ()
        self.metric_units: dict[str, Unit] = {}
        self._warned: set[str] = set()

    @abstractmethod
    def num_outputs(self, data: InvarianceDataModule) -> int | None:
        """Returns how many outputs the network has; None where neither the task nor the data says it."""

    def in_channels(self, shape: Sequence[int]) -> int:
        """Returns the channels that the network takes, of inputs of a shape (C, ...)."""
        return shape[0]

    def on_network_built(self, data: InvarianceDataModule) -> None:
        """Does what follows the making of the network; by default nothing."""

    def leave_out_weights(self) -> None:
        """Builds the network without the file of weights that training began with, for those of a checkpoint."""
        if self.backbone_options["weights"] is not None:
            self.backbone_options |= {"weights": None, "pretrained": False}

    def configure_model(self) -> None:
        """Builds the network for the data; the trainer calls it before each stage, and it acts once.

        Raises:
            TinvError: If the network cannot be built.
        """
        if self.network is not None:
            return
        data = self.data
        shape, outputs = self.input_shape or data.input_shape, self.num_outputs(data)
        if shape is None or outputs is None:
            missing = {"num_classes": ("", outputs), "input_shape": ("=[C,H,W]", shape)}
            keys = {key: form for key, (form, value) in missing.items() if value is None}
            raise TinvError(
                f"the data does not say its {' and '.join(keys)}; set "
                + " and ".join(f"model.init_args.{key}{form}" for key, form in keys.items())
            )
        if not 2 <= len(shape) <= 4 or min(shape) < 1:
            raise TinvError(
                f"model.init_args.input_shape={list(shape)}: must be the channels and one to three sizes in pixels, "
                "each 1 or more, such as [3, 32, 32]"
            )
        size = tuple(shape[1:])
        network = create_backbone(
            num_classes=outputs, in_channels=self.in_channels(shape), input_size=size, **self.backbone_options
        )
        self.network = network.to(memory_format=self.memory_format_of(len(shape) + 1))
        self.on_network_built(data)
        conversion = getattr(network, "conversion", None)
        if conversion is not None:
            # a policy may cost many times the network's usual work: known before the first step
            said = "; ".join(filter(None, (conversion.cost_summary, conversion.fresh_summary)))
            rank_zero_info(f"{self.backbone_options['name']} under {conversion.policy}: {said}")
            begins = self._trainer is not None and self._trainer.state.fn == "fit"
            # a file of weights says it by itself
            options = self.backbone_options
            named = weights_name(options["source"], options["name"], options["weights"])
            if begins and options["pretrained"] and (options["weights"] is None or named):
                warn_of_untrained(self.backbone_options["name"], network)

    @property
    def subsamplers(self) -> list[Subsampler]:
        """The layers of the network that carry a stride for a policy."""
        modules = [] if self.network is None else self.network.modules()
        return [module for module in modules if isinstance(module, Subsampler)]

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Tells layers of policies what share of the training is done, if any of them follows it."""
        following = [s for s in self.subsamplers if type(s).set_progress is not Subsampler.set_progress]
        if not following:
            return
        steps = float(self.trainer.estimated_stepping_batches)
        if steps == float("inf"):
            self._warn_once(
                f"subsampling={self.backbone_options['subsampling']} changes over the training, whose length is not "
                "known; set trainer.max_epochs or trainer.max_steps"
            )
        for layer in following:
            layer.set_progress(min(1.0, self.trainer.global_step / max(steps, 1.0)))

    def add_policy_penalty(self, loss: Tensor) -> Tensor:
        """Returns the loss of a training step with the losses that layers of policies add, if there are any.

        Their sum is logged as `train/policy_penalty`, the mean over the steps of an epoch. Each is that of the layer's
        last forward pass.

        Args:
            loss: Loss () of the task itself.
        """
        penalties = [found for layer in self.subsamplers if (found := layer.penalty()) is not None]
        if not penalties:
            return loss
        penalty = torch.stack(penalties).sum()
        self.log("train/policy_penalty", penalty.detach(), on_step=False, on_epoch=True, batch_size=1, sync_dist=True)
        return loss + penalty

    def on_train_batch_end(self, outputs: Any, batch: Any, batch_idx: int) -> None:
        """Warns once of losses of policies' layers that the task did not add to its own."""
        unread = [layer.penalty() for layer in self.subsamplers]
        if any(penalty is not None for penalty in unread):
            self._warn_once(
                f"{type(self).__name__}.training_step leaves out the loss that subsampling="
                f"{self.backbone_options['subsampling']} adds; let it return self.add_policy_penalty(loss)"
            )

    def _warn_once(self, message: str) -> None:
        if message not in self._warned:
            self._warned.add(message)
            rank_zero_warn(message)

    def configure_optimizers(self) -> Any:
        """Returns the optimizer of all parameters that are trained."""
        return self.optimizer([p for p in self.parameters() if p.requires_grad])

    @property
    def data(self) -> InvarianceDataModule:
        """What the data says of itself; without a trainer nothing is known."""
        return described(getattr(self._trainer, "datamodule", None))

    def memory_format_of(self, axes: int) -> torch.memory_format:
        """Returns the memory format of batches of so many axes: 4 of images, 5 of clips."""
        if not self.channels_last:
            return torch.contiguous_format
        return torch.channels_last if axes == 4 else torch.channels_last_3d

    def on_test_start(self) -> None:
        """Makes a fresh set of metrics for every test set."""
        self.test_sets = self.data.test_sets
        fresh = {name: [self.score(), *(metric.clone() for metric in self.metrics)] for name in self.test_sets}
        self.test_metrics = nn.ModuleDict({name: nn.ModuleList(made) for name, made in fresh.items()}).to(self.device)

    def metrics_of(self, test_set: str) -> tuple[Any, list[Any]]:
        """Returns the score and the measures of invariance of a test set."""
        score, *measures = cast(nn.ModuleList, self.test_metrics[test_set])
        return score, measures

    def measured(self, test_set: str) -> dict[str, Tensor]:
        """Returns what the measures of invariance found on a test set, of all processes together."""
        found: dict[str, Tensor] = {}
        for measure in self.metrics_of(test_set)[1]:
            numbers = measure.compute()
            found |= numbers
            for key in (key for key in numbers if not key.endswith(("_low", "_high"))):
                if (unit := measure.unit_of(key)) is not None:
                    self.metric_units |= {f"test/{key}": unit, f"test/{key}/{test_set}": unit}
            measure.sync()  # for good: artifacts are written of the inputs of all processes too
        return found

    def on_test_epoch_end(self) -> None:
        """Logs the numbers of the test sets, and says which of them are not defined."""
        self.log_test()
        tested = {key: value for key, value in self.trainer.callback_metrics.items() if key.startswith("test/")}
        if (message := undefined_message(tested)) is not None:
            rank_zero_warn(message)

    @abstractmethod
    def log_test(self) -> None:
        """Logs the numbers of the test sets as `test/NAME`, and what differs between sets as `test/NAME/SET`."""

    def artifact_stem(self, measure: Any, test_set: str) -> str:
        """Returns how the names of the files that a measure writes for a test set begin."""
        return f"{measure.name}_{test_set}" if len(self.test_sets) > 1 else str(measure.name)

    def save_artifacts(self, folder: Path) -> list[Path]:
        """Writes what the last test found beyond numbers (arrays, figures) to `folder`; returns the files."""
        return [
            file
            for name in self.test_sets
            for measure in self.metrics_of(name)[1]
            for file in write_artifacts(measure, folder, self.artifact_stem(measure, name))
        ]
