"""How much of a network's answer survives when the image moves."""

from __future__ import annotations

import warnings
from typing import Literal, get_args

import torch
from torch import Tensor, nn

from tinv.errors import TinvError, unknown
from tinv.metrics.answers import cosine_similarity, undefined_unless_finite
from tinv.metrics.base import InvarianceMetric
from tinv.translation import Canvas, draw_shifts, translate

Output = Literal["logits", "softmax", "relu", "features"]


class MeanCosineSimilarity(InvarianceMetric):
    """Mean over images of the cosine between the network's answers to an image and to the image moved (Mouton 2020).

    Each image is moved once, by whole pixels drawn from -max_shift..max_shift in x and in y, both ends included; the
    draw depends on the seed and the image's number alone. Range -1 to 1; an invariant network has 1. Two answers of
    zeros are equal and have 1, zeros and any other answer 0; NaN if any answer is not finite.

    The paper does not say which vectors it compares. On its cells the published values fit the softmax and the ReLU of
    the logits about alike, and not the logits themselves. To have all three in one run, name this metric three times,
    each with its own `name`.

    Args:
        max_shift: largest shift in pixels.
        output: what is compared: `logits`, their `softmax`, their `relu`, or the `features` before the last layer.
        canvas: `zero` (the image needs a blank margin of max_shift pixels, or content is lost) or `circular`.
        seed: of the shifts.
        name: under which the result is reported.
        on: deprecated, the former name of `output` (which YAML reads as true unless it is in quotes).
    """

    higher_is_better = True

    def __init__(
        self,
        max_shift: int = 8,
        output: Output = "logits",
        canvas: Canvas = "zero",
        seed: int = 0,
        name: str = "mcs",
        on: Output | None = None,
    ) -> None:
        super().__init__()
        if on is not None:
            warnings.warn("MeanCosineSimilarity: `on` is now called `output`", DeprecationWarning, stacklevel=2)
            output = on
        if max_shift < 0:
            raise TinvError(f"max_shift must be 0 pixels or more, not {max_shift}")
        if output not in get_args(Output):
            raise unknown("output", output, get_args(Output))
        if canvas not in get_args(Canvas):
            raise unknown("canvas", canvas, get_args(Canvas))
        self.output: Output = output
        self.max_shift, self.canvas, self.seed, self.name = max_shift, canvas, seed, name
        self.margin = max_shift if canvas == "zero" else 0
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")
        self.total: Tensor
        self.count: Tensor

    def update(self, network: nn.Module, images: Tensor, logits: Tensor, targets: Tensor, index: Tensor) -> None:
        """Adds a batch, see InvarianceMetric.update."""
        moved = translate(images, draw_shifts(index, self.max_shift, self.seed), self.canvas)
        if self.output == "features":
            # imported here: networks are needed for this choice alone
            from tinv.models.features import logits_and_features

            answers = [logits_and_features(network, x)[1] for x in (images, moved)]
        else:
            answers = [logits, network(moved)]
        compared = answers
        if self.output == "softmax":
            compared = [answer.float().softmax(dim=1) for answer in answers]
        elif self.output == "relu":
            compared = [answer.relu() for answer in answers]
        self.total += undefined_unless_finite(cosine_similarity(*compared), *answers).sum()
        self.count += len(images)

    def results(self) -> dict[str, Tensor]:
        """Returns the mean under the metric's name."""
        return {self.name: self.total / self.count}
