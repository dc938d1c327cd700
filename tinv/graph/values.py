"""What is known of the values of a network's maps: which are constants, and which are zero where the image is."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm, _NormBase

from tinv.graph import functions
from tinv.graph.geometry import GeometryInterpreter
from tinv.graph.grid import Grid, holds_positions
from tinv.graph.network_graph import attribute, run_node
from tinv.graph.operations import Operation

_RANDOM = ("rand", "normal", "bernoulli", "uniform", "poisson", "dropout")


class Values:
    """Evaluates, with a network's weights, what does not depend on the image.

    Args:
        geometry: Complete, over the network's graph in evaluation.
        network: Network with its weights.
    """

    def __init__(self, geometry: GeometryInterpreter, network: nn.Module) -> None:
        self.geometry, self.network = geometry, network
        first = next((p for p in (*network.parameters(), *network.buffers())), torch.zeros(()))
        self.device = first.device
        self.constants: dict[fx.Node, Tensor | None] = {}

    def is_constant(self, node: fx.Node) -> bool:
        """Returns whether a tensor depends on no image, but at most on its size."""
        op = self.geometry.operations[node]
        if node.op == "placeholder":
            return False
        if op.kind == "constant":
            return True
        tensors = [s for s in op.reads if isinstance(self.geometry.values.get(s), (Tensor, tuple, list))]
        return bool(tensors) and all(map(self.is_constant, tensors))

    def constant(self, node: fx.Node) -> Tensor | None:
        """Returns the value of a constant; None for one that cannot be told, such as random numbers."""
        if node not in self.constants:
            try:
                value = self.evaluate(node)
            except Exception:
                value = None
            known = isinstance(value, Tensor) and not value.is_meta
            self.constants[node] = value if known else None
        return self.constants[node]

    def evaluate(self, node: fx.Node) -> Any:
        if node.op == "get_attr":
            return attribute(self.network, node.graph, str(node.target))
        op = self.geometry.operations[node]
        if any(word in op.name for word in _RANDOM):
            return None

        def given(source: fx.Node) -> Any:
            value = self.geometry.values[source]
            if isinstance(value, torch.device):
                return self.device
            if not isinstance(value, Tensor):
                return self.evaluate(source) if isinstance(value, (tuple, list)) and self.is_constant(source) else value
            if self.is_constant(source):
                return self.constant(source)
            # a map gives its shape alone
            assert op.name in functions.LIKES
            return torch.zeros(value.shape, dtype=value.dtype, device=self.device)

        args, kwargs = fx.node.map_arg((node.args, node.kwargs), given)
        return run_node(node, self.network, args, kwargs, hooks=False)

    def varies(self, node: fx.Node, dim: int, skipped: int = 0) -> bool:
        """Returns whether a constant differs along an axis, but for its first entries; one that is not known does."""
        value = self.constant(node)
        return value is None or differs_along(value.narrow(dim, skipped, value.shape[dim] - skipped), dim)

    def name(self, node: fx.Node) -> str:
        """Returns the name of the parameter or buffer that a constant is made of; empty for other constants."""
        stack = [node]
        while stack:
            source = stack.pop()
            if source.op == "get_attr":
                return "" if str(source.target).startswith("policy_layers.") else str(source.target)
            stack += source.all_input_nodes
        return ""

    def is_relative(self, node: fx.Node, sizes: Sequence[int], count: int = 0) -> bool:
        """Returns whether a constant (..., L, L) is the same for all pairs of positions at one distance on a ring.

        Args:
            node: Node of the constant.
            sizes: Positions along each axis of the ring, slowest first.
            count: Entries before them, such as class tokens, for which all positions have to be the same.
        """
        value = self.constant(node)
        if value is None or value.dim() < 2 or tuple(value.shape[-2:]) != (count + math.prod(sizes),) * 2:
            return False
        if differs_along(value[..., :count, count:], -1) or differs_along(value[..., count:, :count], -2):
            return False
        value, axes = value[..., count:, count:], len(sizes)
        pairs = value.reshape(*value.shape[:-2], *sizes, *sizes)
        return all(torch.equal(pairs, pairs.roll((1, 1), (axis - 2 * axes, axis - axes))) for axis in range(axes))

    def keeps_zero(self, node: fx.Node) -> bool:
        """Returns whether a node makes zeros of zeros, with its own weights and constants."""
        for small in (True, False):
            try:
                answer = self._on_zeros(node, small)
            except Exception:
                continue
            parts = answer if isinstance(answer, (tuple, list)) else [answer]
            return all(isinstance(p, Tensor) and not p.is_meta and not bool(p.any()) for p in parts)
        return False

    def _on_zeros(self, node: fx.Node, small: bool) -> Any:
        least = 2 if self.geometry.operations[node].kind == "reduce" else 1

        def given(source: fx.Node) -> Any:
            value = self.geometry.values[source]
            if not isinstance(value, Tensor):
                return value
            if self.is_constant(source):
                constant = self.constant(source)
                assert constant is not None
                return constant
            grid = self.geometry.grids.get(source)
            known: Grid = grid if isinstance(grid, tuple) else (None,) * value.dim()
            sizes = [
                min(size, least) if small and holds_positions(entry) else size
                for size, entry in zip(value.shape, known, strict=True)
            ]
            return torch.zeros(sizes, dtype=value.dtype, device=self.device)

        args, kwargs = fx.node.map_arg((node.args, node.kwargs), given)
        return run_node(node, self.network, args, kwargs, hooks=False)


def differs_along(value: Tensor, dim: int) -> bool:
    """Returns whether a tensor has other values further along an axis."""
    if value.shape[dim] == 1:
        return False
    return not torch.equal(value, value.narrow(dim, 0, 1).expand_as(value))


def norm_axes(op: Operation, grid: Grid, shape: Sequence[int]) -> tuple[set[int], dict[int, Tensor | None]]:
    """Returns the axes whose values a norm's statistics are of, and its factors by the axes that they differ along.

    Statistics of the training set are of no axis. The axis of the channels is always among the second.
    """
    rank, module = len(shape), op.module
    every = set(range(rank))
    weight: Any = getattr(module, "weight", None)
    if isinstance(module, nn.LayerNorm | nn.RMSNorm) or op.name in ("layer_norm", "rms_norm"):
        if module is not None and "2d" in op.name:
            # timm's and torchvision's, over the channels of one pixel
            return {1}, {1: weight}
        normalized: Any = op.argument(1, "normalized_shape") if module is None else module.normalized_shape
        trailing = set(range(rank - len(tuple(normalized or (1,))), rank))
        return trailing, dict.fromkeys(trailing, weight)
    if isinstance(module, nn.GroupNorm) or op.name == "group_norm":
        return every - {0}, {1: weight}
    if module is None:
        batch = op.name == "batch_norm"
        own = op.argument(5, "training" if batch else "use_input_stats", not batch)
    else:
        assert isinstance(module, _NormBase)
        batch, own = isinstance(module, _BatchNorm), module.running_mean is None or module.training
    return (every - ({1} if batch else {0, 1}) if own else set()), {1: weight}
