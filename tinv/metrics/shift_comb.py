"""Consistency as a function of the shift: where strides alias, it rises at multiples of the total stride."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from tinv.errors import TinvError
from tinv.graph.converted import geometry_of
from tinv.graph.geometry import total_stride
from tinv.metrics.answers import undefined_unless_finite
from tinv.metrics.base import first_of, panels
from tinv.metrics.shared_views import SharedViews
from tinv.metrics.views import ViewMetric, bootstrap_means, shifted_views
from tinv.translation import CAMERA_SCALE, ShiftMode
from tinv.utils.arguments import PositiveInt, Seed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TEETH = 8
"""Shifts that are tried in each total stride; every pixel of smaller strides."""


class ShiftComb(ViewMetric):
    """Consistency of the answers to an image at one corner of its room and to the image moved along the diagonal.

    Shifts are (d, d) for d up to offset_range. At a multiple of the total stride every map moves by whole positions; at
    any other shift some map is sampled anew. What consistency has at the multiples above the shifts around them is
    aliasing: the curve looks like a comb. The decline with distance beside it is due to content and borders.

    Numbers have bootstrap intervals over images (`_low`, `_high`). The curve is written to a file and drawn.

    Reported:
        - `NAME_on_stride` (percent, 0 to 100): pairs of equal answers at the multiples of the total stride.
        - `NAME_off_stride` (percent, 0 to 100): the same halfway between the multiples, the mean of the shifts half a
          stride below and above each multiple, so that distances are alike. Both are left out where
          offset_range is less than one and a half strides, or the total stride is 1.

    Formula:
        `100 / N * sum over images x of [argmax f(T x) = argmax f(x)]`, for the logits f, N images and T the shift.

    Source:
        tinv; that a network is invariant to multiples of its stride alone is said by Azulay & Weiss, JMLR 2019.

    Args:
        offset_range: Largest shift in pixels.
        mode: How views differ, see `tinv.translation.ShiftMode`.
        stride: Total stride of the network in pixels; None takes the largest of its maps.
        max_images: Number of images that are used, the first of the set; None for all.
        seed: Seed of the bootstrap.
        name: Name under which results are reported.
    """

    def __init__(
        self,
        offset_range: PositiveInt = 32,
        mode: ShiftMode = "crop",
        stride: PositiveInt | None = None,
        max_images: PositiveInt | None = 32,
        seed: Seed = 0,
        name: str = "comb",
    ) -> None:
        super().__init__(offset_range, mode, seed, name, ())
        self.given_stride, self.max_images = stride, max_images
        self.stride, self.tried = stride, self._shifts(stride) if stride else ()

    @property
    def views(self) -> int:
        """Passes through the network that an image costs."""
        return 1 + (len(self.tried) or self.offset_range)

    def _shifts(self, stride: int) -> tuple[int, ...]:
        half = stride // 2
        step = next(
            d
            for d in range(max(1, min(stride // TEETH, self.offset_range)), 0, -1)
            if half % d == 0 and stride % d == 0
        )
        return tuple(range(step, self.offset_range + 1, step))

    def check(self, network: nn.Module, shape: Sequence[int]) -> None:
        """Refuses clips, and networks whose stride cannot be told."""
        super().check(network, shape)
        if self.stride is None:
            self._stride_of(network, torch.zeros(1, *shape))

    def reset(self) -> None:
        """Forgets the images and the network."""
        super().reset()
        self.stride, self.tried = self.given_stride, self._shifts(self.given_stride) if self.given_stride else ()

    def _stride_of(self, network: nn.Module, example: Tensor) -> int:
        """Returns the total stride of a network, in pixels."""
        inner = network.network if isinstance(network, SharedViews) else network
        try:
            return total_stride(geometry_of(inner, example))
        except TinvError as error:
            raise TinvError(f"metric {self.name}: {error}; name its stride, or leave this metric out") from error

    def update(self, network: nn.Module, images: Tensor, logits: Tensor, targets: Tensor, index: Tensor) -> None:
        """Adds a batch, see InvarianceMetric.update; for `crop` the images are larger than what the network sees."""
        scale = CAMERA_SCALE if self.mode == "camera" else 1
        seen = [size // scale - self.crop_margin for size in images.shape[2:]]
        if self.stride is None:
            self.stride = self._stride_of(network, images.new_zeros(1, images.shape[1], *seen))
            self.tried = self._shifts(self.stride)
        images, index = first_of(self.max_images, index, images, index)
        self.fields = tuple(f"agree {by}" for by in self.tried)
        if not len(images):
            self.store(index, *index.new_zeros(len(self.tried), 0))
            return
        answers = [network(self._view(images, offset)) for offset in (0, *self.tried)]
        classes = [answer.argmax(dim=1) for answer in answers]
        pairs = zip(classes[1:], answers[1:], strict=True)
        self.store(index, *(undefined_unless_finite(classes[0] == c, answers[0], a) for c, a in pairs))

    def _view(self, images: Tensor, offset: int) -> Tensor:
        offsets = torch.full((len(images), 2), offset, device=images.device)
        return shifted_views(images, offsets, self.offset_range, self.mode)

    def compute(self) -> dict[str, Tensor]:
        """Returns the consistency on and between multiples of the total stride; nothing where neither is defined."""
        rows, stride = self.per_image(), self.stride
        if not len(rows) or stride is None or stride < 2:
            return {}
        half = stride // 2
        on = [n for n in range(stride, self.offset_range + 1, stride) if n + half <= self.offset_range]
        if not on:
            return {}
        places = {by: number for number, by in enumerate(self.tried)}
        off = [n + side for n in on for side in (-half, half)]
        columns = {
            f"{self.name}_{key}": [places[by] for by in shifts]
            for key, shifts in (("on_stride", on), ("off_stride", off))
        }
        return self.with_intervals({key: partial(_percent, numbers) for key, numbers in columns.items()})

    def arrays(self) -> dict[str, np.ndarray]:
        """Returns `stride` and, over shifts, `shift` (pixels), `consistency`, `low`, `high` (percent); or nothing."""
        rows = self.per_image()
        if not len(rows) or self.stride is None:
            return {}
        low, high = 100 * np.percentile(bootstrap_means(rows, self.seed), [2.5, 97.5], axis=0)
        curve = {"consistency": 100 * rows.mean(axis=0), "low": low, "high": high}
        return {"stride": np.array(self.stride), "shift": np.array(self.tried), **curve}

    def plot(self, ax: Any = None) -> tuple[Figure, Any]:
        """Draws consistency over the shift, with its intervals and the multiples of the stride; see ReportedMetric."""
        figure, axes = panels(ax, figsize=(6.4, 3.6), dpi=130)
        found = self.arrays()
        for number, multiple in enumerate(range(int(found["stride"]), self.offset_range + 1, int(found["stride"]))):
            label = f"multiples of the stride, {found['stride']}" if number == 0 else None
            axes.axvline(multiple, color="0.8", linewidth=4, zorder=0, label=label)
        axes.fill_between(found["shift"], found["low"], found["high"], alpha=0.25, linewidth=0)
        axes.plot(found["shift"], found["consistency"], marker="o", markersize=3.5)
        axes.set(xlabel="shift along the diagonal (pixels)", ylabel="same answer (%)", ylim=(None, 101))
        if axes.get_legend_handles_labels()[0]:
            axes.legend(frameon=False, fontsize=8)
        axes.spines[["top", "right"]].set_visible(False)
        return figure, axes


def _percent(numbers: list[int], row: np.ndarray) -> float:
    """Returns the mean of some fields in percent."""
    return float(100 * row[numbers].mean())
