"""How well each layer's map moves along with the image: the error of shifting before against shifting after it."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from tinv.errors import TinvError
from tinv.graph.converted import ConvertedNetwork
from tinv.graph.geometry import Walk
from tinv.graph.places import Place
from tinv.graph.tracing import layer_of, on_meta, trace
from tinv.metrics.answers import check_at_least
from tinv.metrics.views import Motion, ViewMetric, bootstrap_means, take_views

if TYPE_CHECKING:
    from matplotlib.figure import Figure

TOGETHER = 4
"""Images whose maps of all layers are held at once."""


@dataclass(frozen=True)
class LayerError:
    """One layer's error, with its bootstrap interval over images.

    Attributes:
        layer: its path.
        stride: pixels of the image from one cell to the next.
        error: norm of the difference over the norm of the map, mean over images.
        low: 2.5th percentile of that mean.
        high: 97.5th percentile.
    """

    layer: str
    stride: int
    error: float
    low: float
    high: float


class LayerEquivariance(ViewMetric):
    """Relative equivariance error |f(T x) - T f(x)| / |f(x)| of every activation with positions, T a shift.

    T is as many pixels as the coarsest map's stride that still fits, right and down: every map then moves by whole
    cells, and what remains is due to borders, padding and what lies before. With `crop` and `zero` only cells that both
    maps have are compared, those at the border among them; with `circular` all.

    Reported with bootstrap intervals over images: NAME_last, the error of the last map, which is what the head gets.
    All layers' are written to a file and drawn.

    Args:
        max_shift: the largest shift in pixels; maps of a larger stride are left out.
        motion: `crop`, `zero` or `circular`.
        max_images: uses only the first so many images of the set, since all maps are kept; None for all.
        seed: of the bootstrap.
        name: under which the result is reported.
    """

    higher_is_better = False

    def __init__(
        self,
        max_shift: int = 32,
        motion: Motion = "crop",
        max_images: int | None = 32,
        seed: int = 0,
        name: str = "layer_error",
    ) -> None:
        super().__init__(max_shift, motion, seed, name, ())
        check_at_least(1, max_images=max_images)
        self.max_images = max_images
        self.layers: Layers | None = None

    def check(self, network: nn.Module, shape: Sequence[int]) -> None:
        """Refuses clips, networks that cannot be traced, and those without a map that can be compared."""
        super().check(network, shape)
        Layers.of(network, torch.zeros(1, *shape), self.max_shift)

    def reset(self) -> None:
        """Forgets the images and the network."""
        super().reset()
        self.layers = None

    def update(self, network: nn.Module, images: Tensor, logits: Tensor, targets: Tensor, index: Tensor) -> None:
        """Adds a batch, see InvarianceMetric.update; for `crop` the images are larger than what the network sees.

        Raises:
            TinvError: if no map of the network has a stride of at most max_shift.
        """
        if self.layers is None:
            seen = [size - self.room for size in images.shape[2:]]
            self.layers = Layers.of(network, images.new_zeros(1, images.shape[1], *seen), self.max_shift)
            self.columns = tuple(map(layer_of, self.layers.strides))
        if self.max_images is not None:
            kept = index < self.max_images
            images, index = images[kept], index[kept]
        if not len(images):
            # no rows, but as wide as those of other processes
            self.keep(index, *index.new_zeros(len(self.columns), 0))
            return
        shift = self.layers.shift
        if self.motion == "crop":
            # the middle of what would do for the largest shift
            spare = (self.max_shift - shift) // 2
            height, width = (size - (self.max_shift - shift) for size in images.shape[2:])
            images = images[:, :, spare : spare + height, spare : spare + width]
        for some, numbers in zip(torch.split(images, TOGETHER), torch.split(index, TOGETHER), strict=True):
            self.keep(numbers, *self._errors(network, self.layers, some))

    def _errors(self, network: nn.Module, layers: Layers, images: Tensor) -> list[Tensor]:
        """Returns the errors (N,) of each layer."""
        start = torch.zeros(len(images), 2, dtype=torch.long, device=images.device)
        end = start + layers.shift
        # a crop that begins later shows its content further left
        before, after = (end, start) if self.motion == "crop" else (start, end)
        still, moved = (take_views(images, offsets, layers.shift, self.motion) for offsets in (before, after))
        maps = dict(_activations(network, layers, still))
        return [
            _error(maps.pop(node), answer, layers.shift // layers.strides[node], self.motion)
            for node, answer in _activations(network, layers, moved)
        ]

    def errors(self) -> list[LayerError]:
        """Returns the error of every layer, in the order of running; none before any image was seen."""
        if self.layers is None:
            return []
        table = self.table()
        low, high = np.percentile(bootstrap_means(table, self.seed), [2.5, 97.5], axis=0)
        columns = zip(self.columns, self.layers.strides.values(), table.mean(axis=0), low, high, strict=True)
        return [LayerError(layer, stride, *map(float, numbers)) for layer, stride, *numbers in columns]

    def results(self) -> dict[str, Tensor]:
        """Returns the error of the last map."""
        if not (errors := self.errors()):
            return {}
        ends = {"": errors[-1].error, "_low": errors[-1].low, "_high": errors[-1].high}
        return {f"{self.name}_last{end}": torch.tensor(value, dtype=torch.float64) for end, value in ends.items()}

    def save(self, folder: Path, stem: str) -> list[Path]:
        """Writes `STEM.npz` (layer, stride, error, low, high, and the shift) and `STEM.png` to `folder`."""
        if not (errors := self.errors()) or self.layers is None:
            return []
        arrays, picture = folder / f"{stem}.npz", folder / f"{stem}.png"
        temporary = folder / f".{stem}.tmp.npz"
        by_name: Any = {key: np.array([getattr(error, key) for error in errors]) for key in vars(errors[0])}
        np.savez(temporary, shift=np.array(self.layers.shift), **by_name)
        os.replace(temporary, arrays)
        temporary = folder / f".{stem}.tmp.png"
        draw_layers(errors, self.layers.shift, len(self.table())).savefig(temporary, dpi=130)
        os.replace(temporary, picture)
        return [arrays, picture]


@dataclass(frozen=True)
class Layers:
    """The maps of a network that are compared.

    Attributes:
        graph: of the network.
        strides: of each map in pixels, in the order of running.
        shift: by which images are moved, in pixels: a multiple of all of them.
    """

    graph: fx.Graph
    strides: dict[fx.Node, int]
    shift: int

    @classmethod
    def of(cls, network: nn.Module, example: Tensor, max_shift: int) -> Layers:
        """Returns those of a network that sees images like `example` (N, C, H, W).

        Raises:
            TinvError: if it cannot be traced, or no map has a stride of at most max_shift.
        """
        graph = network.graphs[False] if isinstance(network, ConvertedNetwork) else trace(network)[False]
        walk = Walk(graph, on_meta(network).eval(), example.detach().to("meta")).run()
        strides = {node: stride for node in graph.nodes if (stride := _stride(walk, node)) is not None}
        fitting = sorted({stride for stride in strides.values() if stride <= max_shift})
        if not fitting:
            raise TinvError(f"no map of the network has a stride of at most max_shift={max_shift} pixels")
        while (shift := math.lcm(*fitting)) > max_shift:
            fitting.pop()
        return cls(graph, {node: s for node, s in strides.items() if shift % s == 0 and _shown(node)}, shift)


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


def _activations(network: nn.Module, layers: Layers, images: Tensor) -> Iterator[tuple[fx.Node, Tensor]]:
    """Yields the maps that are compared, each before a later layer can overwrite it."""
    kept: list[tuple[fx.Node, Tensor]] = []

    class Recorder(fx.Interpreter):
        def run_node(self, n: fx.Node) -> Any:
            value = super().run_node(n)
            if n in layers.strides:
                # activations in place would change what was kept
                kept.append((n, value.clone()))
            return value

    with torch.no_grad():
        Recorder(network, graph=layers.graph).run(images)
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
    error = torch.where(size > 0, difference / size, difference)
    return error.masked_fill(~(difference.isfinite() & size.isfinite()), torch.nan)


def draw_layers(errors: Sequence[LayerError], shift: int, images: int) -> Figure:
    """Draws each layer's error and its interval over the depth, coloured by stride."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(max(6.0, 0.09 * len(errors) + 3), 4.2), layout="constrained")
    axes = figure.subplots()
    for number, stride in enumerate(sorted({error.stride for error in errors})):
        places = [place for place, error in enumerate(errors) if error.stride == stride]
        axes.errorbar(
            places,
            [errors[place].error for place in places],
            # the mean may lie outside of the percentiles by a rounding error
            yerr=[
                [max(0.0, errors[place].error - errors[place].low) for place in places],
                [max(0.0, errors[place].high - errors[place].error) for place in places],
            ],
            fmt="o",
            markersize=3.5,
            elinewidth=1,
            color=f"C{number}",
            label=f"stride {stride}",
        )
    axes.plot([error.error for error in errors], color="grey", linewidth=0.6, zorder=0)
    step = max(1, len(errors) // 16)
    axes.set_xticks(range(0, len(errors), step), [errors[n].layer for n in range(0, len(errors), step)], rotation=90)
    axes.tick_params(axis="x", labelsize=7)
    axes.set(ylabel="relative error", title=f"{images} images shifted by {shift} pixels before and after each layer")
    axes.set_ylim(bottom=0)
    axes.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside upper right", ncols=6, frameon=False, fontsize=8)
    return figure
