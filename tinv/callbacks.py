"""Callbacks for any training by Lightning: `Trainer(callbacks=[tinv.callbacks.InvarianceMonitor()])`.

They need no task, data set or command of tinv.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from operator import attrgetter
from typing import Any, cast

import torch
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.utilities.seed import isolate_rng
from torch import Tensor, nn
from torch.utils.data import DistributedSampler

from tinv.errors import TinvError, TinvWarning
from tinv.metrics.answers import undefined_unless_finite
from tinv.metrics.views import shifted_views
from tinv.models.features import as_logits
from tinv.translation import WRAPS, ShiftMode, draw_offsets
from tinv.utils.arguments import Checked, PositiveInt, Seed

__all__ = ["InvarianceMonitor"]

KEYS = ("image", "images", "pixel_values", "x", "input", "inputs")
"""Under which batches that are mappings hold their images."""


class InvarianceMonitor(Checked, Callback):
    """Logs how often the answers to two shifted views of a validation image agree, in the training of any module.

    Each validation image is shown twice more, at two offsets that are drawn from the seed and its place in the set:
    neither batch size, workers nor the number of processes change them, as long as the loader does not shuffle.
    Weights, gradients, random numbers and the mode of every layer are left as they are, so that a training ends as it
    would without the monitor.

    Logged: `NAME/consistency` (percent, 0 to 100), pairs with equal top-1 answers, of all processes together; NaN if
    the network's answers are not finite. It is what `tinv.metrics.ShiftConsistency` measures in one pass.

    Args:
        every_n_epochs: Epochs from one measurement to the next; `validate` measures always.
        offset_range: Number of offsets in pixels an axis: all are below it. Choose at least the total stride of the
            network.
        mode: How views differ: `circular` and `fractional` wrap images around, `zero` and `mean` move them by up to
            half of offset_range and lose what leaves them, `crop` cuts windows that are offset_range pixels smaller,
            for networks that take these.
        network: What maps images (N, C, H, W) to logits (N, classes): None for the module itself, the dotted path of an
            attribute of the module, such as `model.net`, or a callable.
        images: Takes a batch and returns its images; None takes a tensor, the first part of a tuple, or an entry of a
            mapping that is called image, images, pixel_values, x, input or inputs.
        seed: Seed of the offsets.
        name: What the logged name begins with.

    Raises:
        TinvError: For a value out of range; in training, for a batch without images, images without room for the views,
            an attribute that is not there, or a network that returns no logits.

    Examples:
        >>> from lightning.pytorch import Trainer
        >>> monitor = InvarianceMonitor(every_n_epochs=5, offset_range=8)
        >>> trainer = Trainer(callbacks=[monitor], logger=False, enable_checkpointing=False)
    """

    def __init__(
        self,
        every_n_epochs: PositiveInt = 1,
        offset_range: PositiveInt = 32,
        mode: ShiftMode = "circular",
        network: str | Callable[[Tensor], Any] | None = None,
        images: Callable[[Any], Tensor] | None = None,
        seed: Seed = 0,
        name: str = "invariance",
    ) -> None:
        if mode == "camera":
            raise TinvError(
                "InvarianceMonitor: mode camera needs photographs of twice the resolution, which tinv measure reads; "
                "use mode crop"
            )
        self.every_n_epochs, self.offset_range, self.mode = every_n_epochs, offset_range, mode
        self.network, self.images, self.seed, self.name = network, images, seed, name
        self.seen: dict[int, int] = {}
        self.sums: Tensor | None = None
        self.measured = False

    def on_validation_epoch_start(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Begins to count."""
        self.seen, self.sums = {}, torch.zeros(2, dtype=torch.float64, device=pl_module.device)

    def on_validation_batch_end(
        self,
        trainer: Trainer,
        pl_module: LightningModule,
        outputs: Any,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:
        """Measures a batch."""
        if not self._is_due(trainer):
            return
        images = self._images_of(batch)
        index = self._index_of(trainer, batch, len(images), dataloader_idx)
        known = index >= 0
        if bool(known.any()):
            agree = self._agreement(trainer, pl_module, images[known.to(images.device)], index[known])
            self.sums = cast(Tensor, self.sums) + torch.stack([agree.sum(), torch.ones_like(agree).sum()])

    def on_validation_epoch_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Logs what was measured, the same in all processes."""
        if not self._is_due(trainer):
            return
        agree, count = trainer.strategy.reduce(cast(Tensor, self.sums), reduce_op="sum")
        if float(count):
            self.measured = True
            percent = (100 * agree / count).float()
            # the same in all processes already: without sync_dist Lightning would warn
            pl_module.log(f"{self.name}/consistency", percent, on_epoch=True, batch_size=1, sync_dist=True)

    def on_fit_end(self, trainer: Trainer, pl_module: LightningModule) -> None:
        """Warns if nothing was measured."""
        if not self.measured and trainer.is_global_zero:
            warnings.warn(
                f"InvarianceMonitor measured nothing: no validation ended an epoch that is a multiple of "
                f"every_n_epochs={self.every_n_epochs}; it needs validation batches",
                TinvWarning,
                stacklevel=2,
            )

    def _is_due(self, trainer: Trainer) -> bool:
        if trainer.sanity_checking:
            return False
        return trainer.state.fn != "fit" or (trainer.current_epoch + 1) % self.every_n_epochs == 0

    def _images_of(self, batch: Any) -> Tensor:
        found: Any = batch
        if self.images is not None:
            found = self.images(batch)
        elif isinstance(batch, Mapping):
            found = next((batch[key] for key in KEYS if key in batch), None)
        elif isinstance(batch, list | tuple) and batch:
            found = batch[0]
        if not isinstance(found, Tensor) or found.dim() != 4 or not found.is_floating_point():
            what = f"{found.dtype} of {found.dim()} axes" if isinstance(found, Tensor) else type(found).__name__
            raise TinvError(
                f"InvarianceMonitor found {what} in a validation batch, not float images (N, C, H, W); say where they "
                "are with images=, a function of the batch"
            )
        # a circular shift wraps around, however far it is
        if self.mode not in WRAPS and min(found.shape[2:]) <= self.offset_range:
            size = "x".join(map(str, found.shape[2:]))
            raise TinvError(
                f"InvarianceMonitor: offset_range={self.offset_range} leaves nothing of images of {size} pixels in "
                f"mode {self.mode}; use a smaller offset_range, or mode circular"
            )
        return found

    def _index_of(self, trainer: Trainer, batch: Any, count: int, loader: int) -> Tensor:
        """Returns the place of each image of a batch in its set (N,), -1 for one that was seen already."""
        index = getattr(batch, "index", None)
        if isinstance(index, Tensor):  # of tinv's own data
            return index.cpu()
        begin = self.seen.get(loader, 0)
        self.seen[loader] = begin + count
        place = torch.arange(begin, begin + count)
        found = trainer.val_dataloaders
        given = found[loader] if isinstance(found, list | tuple) else found
        if isinstance(sampler := getattr(given, "sampler", None), DistributedSampler):
            # process r takes every image whose number leaves r; the first ones are given again where it does not divide
            place = place * sampler.num_replicas + sampler.rank
            total = len(cast(Any, sampler.dataset))
            return place.where(place < total, -1)
        return place * trainer.world_size + trainer.global_rank

    def _agreement(self, trainer: Trainer, pl_module: LightningModule, images: Tensor, index: Tensor) -> Tensor:
        """Returns 1 for each image whose two views have the same answer, 0 for others (N,), NaN if not finite."""
        network = self._network_of(pl_module)
        outputs = []
        with isolate_rng(), torch.no_grad(), _evaluating(network), trainer.precision_plugin.forward_context():
            for view in (0, 1):
                offsets = draw_offsets(index, self.offset_range, self.seed, view).to(images.device)
                outputs.append(as_logits(network(shifted_views(images, offsets, self.offset_range, self.mode))).float())
        return undefined_unless_finite(outputs[0].argmax(1) == outputs[1].argmax(1), *outputs)

    def _network_of(self, pl_module: LightningModule) -> Callable[[Tensor], Any]:
        if self.network is None:
            return pl_module
        if not isinstance(self.network, str):
            return self.network
        try:
            found = attrgetter(self.network)(pl_module)
        except AttributeError as error:
            raise TinvError(
                f"InvarianceMonitor: {type(pl_module).__name__} has no attribute {self.network}, which network names"
            ) from error
        if not callable(found):
            raise TinvError(f"InvarianceMonitor: {self.network} of {type(pl_module).__name__} cannot be called")
        return cast(Callable[[Tensor], Any], found)


@contextmanager
def _evaluating(network: Callable[[Tensor], Any]) -> Iterator[None]:
    """Sets a network to evaluation mode, and each of its layers back to its own."""
    modules = list(network.modules()) if isinstance(network, nn.Module) else []
    modes = [module.training for module in modules]
    try:
        for module in modules[:1]:
            module.eval()
        yield
    finally:
        for module, training in zip(modules, modes, strict=True):
            module.training = training
