"""Accuracy, agreement and similarity for every shift of a window."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor, nn

from tinv.deprecation import renamed
from tinv.errors import TinvError, TinvWarning
from tinv.graph.analysis import analyze
from tinv.metrics.base import first_of
from tinv.metrics.shared_views import SharedViews
from tinv.metrics.shift_map import ShiftAxis, ShiftMap, window_of
from tinv.translation import CANVASES, WINDOWS, WRAPS, ShiftMode
from tinv.utils.arguments import NonNegativeInt, PositiveInt, Seed


class TranslationSensitivityMap(ShiftMap):
    """For every (dx, dy) of a window: accuracy, consistency with the unmoved image, and mean cosine similarity.

    Maps have the shape (S, S) with S = 2 * max_shift / step + 1, row = dy, column = dx, see ShiftMap. Without labels
    (class -1) NAME/acc and NAME/acc_min are left out. Means have bootstrap intervals over images (`_low`, `_high`); the
    worst shift has none, since the percentiles of a minimum do not cover it.

    Reported:
        - `NAME/acc` (percent, 0 to 100): accuracy, mean over the window.
        - `NAME/acc_min` (percent, 0 to 100): accuracy at the worst shift.
        - `NAME/consistency` (percent, 0 to 100): answers equal to that to the unmoved image, mean over the window.
        - `NAME/mcs` (cosine, -1 to 1): cosine similarity to the output for the unmoved image, mean over images and
          window.

    Formula:
        `consistency(dx, dy) = 100 / N * sum over images x of [argmax f(T x) = argmax f(x)]`, for the logits f, N images
        and T the shift by (dx, dy).

    Source:
        After the translation-sensitivity maps of Kauderer-Abrams, 2017, which show distances of outputs.

    Args:
        max_shift: Largest shift in pixels: the window holds -max_shift to max_shift in x and in y.
        step: Pixels between the shifts that are tried; must divide max_shift, so that shift 0 is among them.
        mode: How images are moved, see `tinv.translation.ShiftMode`. For `zero` and `mean` the image needs a blank
            margin of max_shift pixels, or content is lost; for `crop` and `camera` images are larger than what the
            network sees by max_shift pixels a side.
        max_images: Number of images that are used, the first of the set; None for all. A 17 x 17 window costs 289
            passes.
        skip_proven: Whether circular shifts that differ by what the network's verdict proves to change nothing are run
            once, such as every eighth where it is exact for multiples of 8. One such shift is run nevertheless: where
            its answer differs, a warning says so and all are run.
        images_per_pass: Number of images that larger batches are cut to; shifts of smaller ones are run together. None
            is 64 on a CPU, where more no longer fit its cache, and 1024 elsewhere.
        name: Name under which the results are reported.
        seed: Seed of the bootstrap.
    """

    @renamed(canvas="mode")
    def __init__(
        self,
        max_shift: NonNegativeInt = 8,
        step: PositiveInt = 1,
        mode: ShiftMode = "zero",
        max_images: PositiveInt | None = None,
        images_per_pass: PositiveInt | None = None,
        name: str = "map",
        skip_proven: bool = True,
        seed: Seed = 0,
    ) -> None:
        shifts = window_of(max_shift, step)
        rows, columns = (ShiftAxis(s, "pixels", shifts, key="shifts", dim=dim) for s, dim in (("dy", 2), ("dx", 3)))
        super().__init__(rows, columns, mode, "images", seed)
        self.max_shift, self.name = max_shift, name
        self.canvas_margin = max_shift if mode in CANVASES else 0
        self.crop_margin = 2 * max_shift if mode in WINDOWS else 0
        self.max_images, self.images_per_pass, self.skip_proven = max_images, images_per_pass, skip_proven
        self.proven: tuple[int, int] | None = None
        # not the network itself, which would become a part of the metric
        self.looked_at: int | None = None

    def reset(self) -> None:
        """Forgets the images and the network."""
        super().reset()
        self.proven, self.looked_at = None, None

    @property
    def views(self) -> int:
        """Passes through the network that an image costs."""
        return len(self._phases(self.proven))

    def update(self, network: nn.Module, images: Tensor, logits: Tensor, targets: Tensor, index: Tensor) -> None:
        """Adds a batch, see InvarianceMetric.update."""
        images, logits, targets, index = first_of(self.max_images, index, images, logits, targets, index)
        per_pass = self.images_per_pass or (64 if images.device.type == "cpu" else 1024)
        if len(images) and self.skip_proven and self.mode in WRAPS and self.looked_at != id(network):
            self.looked_at, self.proven = id(network), _proven(network, images, self.max_shift)
        batches = (torch.split(each, per_pass) for each in (images, logits, targets, index))
        for some, before, classes, numbers in zip(*batches, strict=True):
            self.move(network, some, before, classes, numbers, max(1, per_pass // max(1, len(some))), self.proven)

    def compute(self) -> dict[str, Tensor]:
        """Returns the mean of each map over the window, with its interval, and the accuracy at the worst shift."""
        found = super().compute()
        return {**found, f"{self.name}/acc_min": self.maps()["acc"].min()} if self.labelled else found


def _proven(network: nn.Module, images: Tensor, most: int) -> tuple[int, int] | None:
    """Returns the pixels (down, right) by whose multiples circular shifts change nothing, as the verdict proves.

    None where it proves nothing within shifts of `most` pixels, and where the network contradicts it.
    """
    inner: object = network.network if isinstance(network, SharedViews) else network
    if not isinstance(inner, nn.Module):
        return None
    try:
        verdict = analyze(inner, images[:1]).verdict
    except TinvError:
        return None
    if verdict.name != "invariant" or len(verdict.circular) != 2:
        return None
    found = [shifts.unit for shifts in verdict.circular]
    if None in found or min(unit or 1 for unit in found) > 2 * most:
        return None
    units = found[0] or 1, found[1] or 1
    still, moved = network(images[:2]), network(images[:2].roll(units, (2, 3)))
    if not (still.isfinite().all() and moved.isfinite().all()):
        return None
    close = 1e-3 if still.dtype in (torch.float32, torch.float64) else 3e-2
    if not torch.allclose(still.double(), moved.double(), rtol=close, atol=close * float(still.abs().max()) / 10):
        warnings.warn(
            f"the verdict says that shifts by multiples of {units[0]}x{units[1]} pixels change nothing, but answers "
            "change: every shift is run; tinv inspect --verify names the layer",
            TinvWarning,
            stacklevel=2,
        )
        return None
    return units
