"""Copies of a network whose weights have shapes but no values, and back."""

from __future__ import annotations

import copy
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn


def copy_to_meta(network: nn.Module) -> nn.Module:
    """Returns a copy of a network whose weights have shapes but no values: it runs in no time."""
    memo: dict[int, Any] = {}
    for parameter in network.parameters():
        memo[id(parameter)] = nn.Parameter(parameter.detach().to("meta"), parameter.requires_grad)
    for buffer in network.buffers():
        memo[id(buffer)] = buffer.detach().to("meta")
    return copy.deepcopy(network, memo)


def materialize(meta_copy: nn.Module, network: nn.Module, added: Iterable[tuple[Tensor, Tensor]] = ()) -> nn.Module:
    """Returns a copy of what `copy_to_meta` made of a network, changed since, with a copy of the network's weights.

    Args:
        meta_copy: What `copy_to_meta` made of the network, changed since.
        network: The network.
        added: Weights and buffers that were added since, each without values, as in `meta_copy`, and with them.
    """
    memo: dict[int, Any] = {id(shape): value for shape, value in added}
    ours, theirs = dict(meta_copy.named_parameters()), dict(network.named_parameters())
    for name, parameter in theirs.items():
        memo[id(ours[name])] = copy.deepcopy(parameter)
    buffers = dict(meta_copy.named_buffers())
    for name, buffer in network.named_buffers():
        memo[id(buffers[name])] = buffer.detach().clone(memory_format=torch.preserve_format)
    return copy.deepcopy(meta_copy, memo)
