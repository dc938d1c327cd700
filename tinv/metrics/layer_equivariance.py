"""How well each layer's map moves along with the image: the error of shifting before against shifting after."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch
from torch import Tensor, fx, nn

from tinv.errors import TinvError
from tinv.metrics.views import Motion, take_views
from tinv.policies.convert import ConvertedNetwork
from tinv.policies.geometry import Place, Walk
from tinv.policies.tracing import layer_of, on_meta, trace


@dataclass(frozen=True)
class LayerError:
    """One layer's error.

    Attributes:
        layer: its path.
        stride: pixels of the image from one cell to the next.
        error: norm of the difference over the norm of the map, mean over images.
    """

    layer: str
    stride: int
    error: float


class LayerEquivariance:
    """Relative equivariance error |f(T x) - T f(x)| / |f(x)| of every activation with positions, T a shift.

    T is as many pixels as the coarsest map's stride that still fits, right and down: every map then moves by whole
    cells, and what remains is due to borders, padding and what lies before. With `crop` and `zero` only cells that both
    maps have are compared, those at the border among them; with `circular` all.

    Args:
        network: maps (N, C, H, W) to (N, classes); is left as it is.
        example: images (N, C, H, W) as the network sees them.
        max_shift: the largest shift in pixels; maps of a larger stride are left out.
        motion: `crop`, `zero` or `circular`.

    Raises:
        TinvError: if no map has a stride of at most max_shift.
    """

    def __init__(self, network: nn.Module, example: Tensor, max_shift: int, motion: Motion) -> None:
        self.network, self.motion = network, motion
        self.graph = network.graphs[False] if isinstance(network, ConvertedNetwork) else trace(network)[False]
        walk = Walk(self.graph, on_meta(network).eval(), example.detach().to("meta")).run()
        strides = {node: stride for node in self.graph.nodes if (stride := _stride(walk, node)) is not None}
        fitting = sorted({stride for stride in strides.values() if stride <= max_shift})
        if not fitting:
            raise TinvError(f"no map of the network has a stride of at most max_shift={max_shift} pixels")
        self.shift = math.lcm(*fitting)
        while self.shift > max_shift:
            fitting.pop()
            self.shift = math.lcm(*fitting)
        self.strides = {node: s for node, s in strides.items() if self.shift % s == 0 and _shown(node)}
        self.sums = dict.fromkeys(self.strides, 0.0)
        self.count = 0

    @torch.no_grad()
    def update(self, images: Tensor) -> None:
        """Adds images (N, C, H, W); for `crop` larger than the network's by `shift` pixels an axis."""
        start = torch.zeros(len(images), 2, dtype=torch.long, device=images.device)
        end = start + self.shift
        # a crop that begins later shows its content further left
        before, after = (end, start) if self.motion == "crop" else (start, end)
        still, moved = (take_views(images, o, self.shift, self.motion) for o in (before, after))
        maps = dict(_activations(self.network, self.graph, still, self.strides))
        for node, answer in _activations(self.network, self.graph, moved, self.strides):
            cells = self.shift // self.strides[node]
            self.sums[node] += float(_error(maps.pop(node), answer, cells, self.motion).sum())
        self.count += len(images)

    def results(self) -> list[LayerError]:
        """Returns the mean error of every layer, in the order of running."""
        return [
            LayerError(layer_of(node), stride, self.sums[node] / self.count) for node, stride in self.strides.items()
        ]


def _stride(walk: Walk, node: fx.Node) -> int | None:
    """Returns the stride of a node's map in pixels, None if it has no positions or its axes differ."""
    places: Any = walk.places.get(node)
    if not isinstance(places, tuple) or node.op == "placeholder" or node.meta.get("background"):
        return None
    found = [place.stride for place in places if isinstance(place, Place)]
    whole = len(found) == 2 and places[2:] == tuple(p for p in places if p is not None) and found[0] == found[1]
    return int(found[0]) if whole and Fraction(found[0]).denominator == 1 else None


def _shown(node: fx.Node) -> bool:
    return node.op == "call_module" or (node.op == "call_function" and "add" in str(node.target))


def _activations(
    network: nn.Module, graph: fx.Graph, images: Tensor, wanted: dict[fx.Node, int]
) -> Iterator[tuple[fx.Node, Tensor]]:
    """Yields the wanted maps, each before a later layer can overwrite it."""
    kept: list[tuple[fx.Node, Tensor]] = []

    class Recorder(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            value = super().run_node(n)
            if n in wanted:
                # activations in place would change what was kept
                kept.append((n, value.clone()))
            return value

    Recorder(network, graph=graph).run(images)
    yield from kept


def _error(still: Tensor, moved: Tensor, cells: int, motion: Motion) -> Tensor:
    """Returns each image's relative error (N,), of maps that should differ by a shift of some cells right and down."""
    if motion == "circular":
        expected = still.roll((cells, cells), (2, 3))
    else:
        height, width = still.shape[2:]
        expected, moved = still[:, :, : height - cells, : width - cells], moved[:, :, cells:, cells:]
    difference = (expected - moved).flatten(1).double().norm(dim=1)
    size = expected.flatten(1).double().norm(dim=1)
    return torch.where(size > 0, difference / size, difference)
