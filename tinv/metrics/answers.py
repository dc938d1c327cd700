"""What all metrics hold about a network's answers: those that are not finite measure nothing."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from tinv.errors import TinvError


def undefined_unless_finite(values: Tensor, *answers: Tensor) -> Tensor:
    """Returns numbers of images as float64, NaN where an answer to the image is not finite.

    The largest of logits that are NaN is always the same class: such a network would seem to be invariant.

    Args:
        values: (..., N) numbers or truths.
        answers: Tensors (..., N, F) that the numbers come from.
    """
    values = values.double()
    for answer in answers:
        values = values.masked_fill(~answer.isfinite().all(dim=-1), torch.nan)
    return values


def cosine_similarity(first: Tensor, second: Tensor) -> Tensor:
    """Returns the cosine between vectors (..., N, F) as (..., N) float64; NaN if one is not finite.

    Two vectors of zeros are equal and have 1; a vector of zeros has 0 with any other, since nothing of it is left.
    """
    # vectors of any size: torch's own takes those shorter than 1e-8 for longer ones
    scaled: list[Tensor] = []
    for vectors in (first.double(), second.double()):
        largest = vectors.abs().amax(dim=-1, keepdim=True)
        scaled.append(vectors / largest.where(largest != 0, 1))
    zero = (scaled[0] == 0).all(dim=-1) & (scaled[1] == 0).all(dim=-1)
    similarity = F.cosine_similarity(scaled[0], scaled[1], dim=-1).where(~zero, 1)
    return undefined_unless_finite(similarity, first, second)


def undefined_message(results: Mapping[str, Any]) -> str | None:
    """Returns one line that names the results that are NaN, None if there are none."""
    names = [key for key, value in results.items() if math.isnan(float(value)) and not key.endswith(("_low", "_high"))]
    if not names:
        return None
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return (
        f"not defined, and left out of the results: {', '.join(names[:5])}{more}; the network's answers are not finite "
        "(NaN or infinite), or there is nothing that the number counts"
    )


def check_names(metrics: Iterable[Any]) -> None:
    """Raises TinvError if two metrics have one name: one would take the place of the other's results."""
    seen: set[str] = set()
    for metric in metrics:
        if metric.name in seen:
            raise TinvError(f"two metrics are named {metric.name}; give each its own name")
        seen.add(metric.name)
