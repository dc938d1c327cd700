"""How well distances between descriptors tell patches of one point from patches of two."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torchmetrics import Metric
from torchmetrics.functional.classification import binary_auroc, binary_average_precision
from torchmetrics.utilities import dim_zero_cat

RECALL = (19, 20)
"""Recall at which false positives are counted, as a fraction, so that it is exact."""


def false_positive_rate(distance: Tensor, same: Tensor) -> Tensor:
    """Returns FPR95: the part of pairs of two points within the distance that 95% of pairs of one point are within.

    Exact: the threshold is the smallest distance within which at least 95% lie; pairs at just that distance count as
    accepted, of both kinds, so that the order of equal distances changes nothing.

    Args:
        distance: (N,) between descriptors.
        same: (N,) bool, whether both patches show one point.

    Returns:
        0 to 1; NaN if there are not pairs of both kinds.
    """
    positive, negative = distance[same], distance[~same]
    if not len(positive) or not len(negative):
        return distance.new_tensor(float("nan"))
    accepted = -(-len(positive) * RECALL[0] // RECALL[1])
    threshold = positive.sort().values[accepted - 1]
    return (negative <= threshold).double().mean()


class PatchMatching(Metric):
    """FPR95, area under the ROC curve and average precision of pairs of patches, each 0 to 1 (Brown et al., PAMI 2011).

    All distances are kept, so that nothing is binned, and gathered from all processes.

    Example:
        >>> matching = PatchMatching()
        >>> matching.update(torch.tensor([0.1, 0.2, 0.9]), torch.tensor([True, True, False]))
        >>> matching.compute()["fpr95"]
        tensor(0., dtype=torch.float64)
    """

    full_state_update = False
    higher_is_better = False

    def __init__(self) -> None:
        super().__init__()
        self.add_state("distance", [], dist_reduce_fx="cat")
        self.add_state("same", [], dist_reduce_fx="cat")
        self.distance: list[Tensor] | Tensor
        self.same: list[Tensor] | Tensor

    def update(self, distance: Tensor, same: Tensor) -> None:
        """Adds a batch: distances (N,), 0 or more, and whether both patches show one point (N,) bool."""
        assert isinstance(self.distance, list)
        assert isinstance(self.same, list)
        self.distance.append(distance.detach().double())
        self.same.append(same)

    def compute(self) -> dict[str, Tensor]:
        """Returns `fpr95`, `auroc` and `ap`; NaN if any distance is not finite."""
        distance, same = dim_zero_cat(self.distance), dim_zero_cat(self.same)
        if not distance.isfinite().all():
            return {key: distance.new_tensor(float("nan")) for key in ("fpr95", "auroc", "ap")}
        found: dict[str, Any] = {"fpr95": false_positive_rate(distance, same)}
        # the larger the more alike, and within 0..1, which torchmetrics takes as it is
        likeness = 1 - distance / distance.max().clamp(min=torch.finfo(torch.float64).tiny)
        found["auroc"] = binary_auroc(likeness, same.long())
        found["ap"] = binary_average_precision(likeness, same.long())
        return found
