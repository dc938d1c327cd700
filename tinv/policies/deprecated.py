"""Functions on names of policies, which are objects now; for one minor version."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from tinv.policies.padding import PaddingPolicy, padding_policy
from tinv.policies.subsampling import subsampling_policy


def padding_amounts(policy: str, kernel_size: Sequence[int], dilation: Sequence[int]) -> list[tuple[int, int]]:
    """Returns `padding_policy(policy).widths(kernel_size, dilation)`."""
    return list(padding_policy(policy).widths(kernel_size, dilation))


def check_padding(policy: str) -> str:
    """Returns a name of a padding policy, or raises TinvError."""
    return padding_policy(policy).name


def check_subsampling(policy: str) -> str:
    """Returns a name of a subsampling policy, or raises TinvError."""
    return subsampling_policy(policy).name


def subsampler(policy: str, stride: int | Sequence[int], content: str = "zero", full: bool = False) -> Any:
    """Returns `subsampling_policy(policy).layer(...)` for a stride of one number for two axes, or one for each."""
    padding = PaddingPolicy("full" if full else "same", "zeros" if content == "zero" else content)
    steps = (stride, stride) if isinstance(stride, int) else tuple(stride)
    return subsampling_policy(policy).layer(steps, 0, padding)
