"""In which precision layers compute that half precision, or autocast, would make wrong."""

from __future__ import annotations

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor


def at_least_single(images: Tensor) -> Tensor:
    """Returns a tensor in float32, or in float64 if it is in that."""
    return images if images.dtype == torch.double else images.float()


def without_autocast(images: Tensor) -> AbstractContextManager[Any]:
    """Returns a context in which autocast is off on the device of a tensor."""
    # autocast knows no shapes without values
    return nullcontext() if images.is_meta else torch.autocast(images.device.type, enabled=False)
