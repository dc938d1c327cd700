"""The triplet loss whose negatives are the closest wrong descriptors of the batch."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

SAME = 0.008
"""Descriptors closer than this are taken for the same patch, which is no negative."""


def hardest_in_batch(first: Tensor, second: Tensor, margin: float = 1.0) -> Tensor:
    """Returns the mean triplet margin loss with the hardest negatives of the batch (Mishchuk et al., NeurIPS 2017).

    With d(i, j) the distance of `first[i]` from `second[j]`, the negative of pair i is the smallest of all d(i, j) and
    d(j, i), j not i, that are not below 0.008 (the second kind is the anchor swap), and its loss
    max(0, margin + d(i, i) - negative).

    Args:
        first: (N, F) unit vectors, one a point.
        second: (N, F) unit vectors of the same points.
        margin: Distance wanted between the right and the closest wrong descriptor.

    Returns:
        A scalar.

    Raises:
        ValueError: For fewer than two pairs.
    """
    if len(first) < 2:
        raise ValueError("a batch of one pair has no negatives")
    # of unit vectors |a - b|^2 = 2 - 2 ab; the constant keeps the root's slope finite
    distance = (2 - 2 * first @ second.T).clamp(min=0).add(1e-6).sqrt()
    right = distance.diagonal()
    far = torch.eye(len(distance), dtype=torch.bool, device=distance.device) | (distance < SAME)
    wrong = distance.masked_fill(far, float("inf"))
    negative = torch.minimum(wrong.amin(dim=1), wrong.amin(dim=0))
    return F.relu(margin + right - negative).mean()
