"""How much of a network's answer survives when the image moves."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tinv.errors import TinvError, unknown
from tinv.metrics.base import InvarianceMetric
from tinv.translation import Canvas, draw_shifts, translate

On = Literal["logits", "softmax", "features"]


class MeanCosineSimilarity(InvarianceMetric):
    """Mean over images of the cosine between the network's answers to an image and to the image moved (Mouton 2020).

    Each image is moved once, by whole pixels drawn from -max_shift..max_shift in x and in y, both ends included; the
    draw depends on the seed and the image's number alone. Range -1 to 1; an invariant network has 1.

    Args:
        max_shift: largest shift in pixels.
        on: what is compared: `logits`, their `softmax`, or the `features` before the last layer.
        canvas: `zero` (the image needs a blank margin of max_shift pixels, or content is lost) or `circular`.
        seed: of the shifts.
        name: under which the result is reported.
    """

    higher_is_better = True

    def __init__(
        self, max_shift: int = 8, on: On = "logits", canvas: Canvas = "zero", seed: int = 0, name: str = "mcs"
    ) -> None:
        super().__init__()
        if max_shift < 0:
            raise TinvError(f"max_shift must be 0 pixels or more, not {max_shift}")
        if on not in get_args(On):
            raise unknown("on", on, get_args(On))
        if canvas not in get_args(Canvas):
            raise unknown("canvas", canvas, get_args(Canvas))
        self.max_shift, self.on, self.canvas, self.seed, self.name = max_shift, on, canvas, seed, name
        self.margin = max_shift if canvas == "zero" else 0
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")
        self.total: Tensor
        self.count: Tensor

    def update(self, network: nn.Module, images: Tensor, logits: Tensor, targets: Tensor, index: Tensor) -> None:
        """Adds a batch, see InvarianceMetric.update."""
        moved = translate(images, draw_shifts(index, self.max_shift, self.seed), self.canvas)
        if self.on == "features":
            # imported here: networks are needed for this choice alone
            from tinv.models.features import logits_and_features

            before, after = (logits_and_features(network, x)[1] for x in (images, moved))
        else:
            before, after = logits, network(moved)
            if self.on == "softmax":
                before, after = before.float().softmax(dim=1), after.float().softmax(dim=1)
        self.total += F.cosine_similarity(before.double(), after.double()).sum()
        self.count += len(images)

    def results(self) -> dict[str, Tensor]:
        """Returns the mean under the metric's name."""
        return {self.name: self.total / self.count}
