"""How much of a network's answer survives when the image moves."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn

from tinv.deprecation import renamed
from tinv.metrics.answers import cosine_similarity, undefined_unless_finite
from tinv.metrics.base import InvarianceMetric
from tinv.translation import TranslateMode, draw_shifts, translate
from tinv.utils.arguments import NonNegativeInt, PositiveInt, Seed

Output = Literal["logits", "softmax", "relu", "features"]


class MeanCosineSimilarity(InvarianceMetric):
    """Mean over images of the cosine between the network's answers to an image and to the image moved (Mouton 2020).

    Each image is moved once, by integer pixels drawn from -max_shift..max_shift in x and in y, both ends included; the
    draw depends on the seed and the sample index alone. Range -1 to 1; an invariant network has 1. Two answers of
    zeros are equal and have 1, zeros and any other answer 0; NaN if any answer is not finite.

    The paper does not say which vectors it compares. On its cells the published values fit the softmax and the ReLU of
    the logits about alike, and not the logits themselves. To have all three in one run, name this metric three times,
    each with its own `name`.

    Reported:
        - `NAME` (cosine, -1 to 1): mean over images.

    Formula:
        `1 / N * sum over images x of <f(x), f(T x)> / (|f(x)| |f(T x)|)`, for the compared vectors f, N images, and T
        the shift of each image.

    Source:
        Mouton, Myburgh & Davel, SACAIR 2020.

    Args:
        max_shift: Largest shift in pixels.
        output: What is compared: `logits`, their `softmax`, their `relu`, or the `features` before the last layer.
        mode: `zero` (the image needs a blank margin of max_shift pixels, or content is lost) or `circular`.
        seed: Seed of the shifts.
        name: Name under which the result is reported.
        top_k: Compares only so many components, those that are largest for the unmoved image; None for all.
    """

    unit = "cosine"
    higher_is_better = True

    @renamed(on="output", canvas="mode")
    def __init__(
        self,
        max_shift: NonNegativeInt = 8,
        output: Output = "logits",
        mode: TranslateMode = "zero",
        seed: Seed = 0,
        name: str = "mcs",
        top_k: PositiveInt | None = None,
    ) -> None:
        super().__init__()
        self.max_shift, self.output, self.mode, self.seed, self.name = max_shift, output, mode, seed, name
        self.top_k = top_k
        self.canvas_margin = max_shift if mode == "zero" else 0
        self.add_state("total", torch.zeros((), dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")
        self.total: Tensor
        self.count: Tensor

    def update(self, network: nn.Module, images: Tensor, logits: Tensor, targets: Tensor, index: Tensor) -> None:
        """Adds a batch, see InvarianceMetric.update."""
        moved = translate(images, draw_shifts(index, self.max_shift, self.seed), self.mode)
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
        if self.top_k is not None:
            largest = compared[0].flatten(1).topk(min(self.top_k, compared[0].flatten(1).shape[1]), dim=1).indices
            compared = [vectors.flatten(1).gather(1, largest) for vectors in compared]
        self.total += undefined_unless_finite(cosine_similarity(*compared), *answers).sum()
        self.count += len(images)

    def compute(self) -> dict[str, Tensor]:
        """Returns the mean under the metric's name."""
        return {self.name: self.total / self.count}
