"""How well each layer's map moves along with the image: the error of shifting before against shifting after it."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from tinv.deprecation import renamed
from tinv.errors import TinvError
from tinv.graph.converted import geometry_of
from tinv.graph.geometry import GeometryInterpreter
from tinv.graph.grid import AxisGrid
from tinv.graph.network_graph import layer_name
from tinv.metrics.base import first_of, panels
from tinv.metrics.views import ViewMetric, bootstrap_means, shifted_views, trim
from tinv.translation import CAMERA_SCALE, WINDOWS, WRAPS, ShiftMode
from tinv.utils.arguments import PositiveInt, Seed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

CHUNK = 4
"""Number of images whose maps of all layers are held at once."""


@dataclass(frozen=True)
class LayerResult:
    """One layer's error, with its bootstrap interval over images.

    Attributes:
        layer: Path of the layer.
        stride: Pixels of the image from one position of the map to the next.
        error: Norm of the difference over the norm of the map, mean over images.
        low: 2.5th percentile of that mean.
        high: 97.5th percentile of that mean.
    """

    layer: str
    stride: int
    error: float
    low: float
    high: float


class LayerEquivariance(ViewMetric):
    """Relative equivariance error |f(T x) - T f(x)| / |f(x)| of every activation with positions, T a shift.

    T is as many pixels as the coarsest map's stride that still fits, right and down: every map then moves by whole
    positions, and what remains is due to borders, padding and what lies before. With `crop` and `zero` only positions
    that both maps have are compared, those at the border among them; with `circular` all.

    The errors of all layers are written to a file and drawn. Numbers have bootstrap intervals over images (`_low`,
    `_high`).

    Reported:
        - `NAME_last` (ratio, 0 or more): error of the last map, which is what the head gets; mean over images.

    Formula:
        `|f(T x) - T f(x)| / |f(x)|` for each image x, the map f of a layer and the Euclidean norm over the positions
        that both maps have; `|f(T x) - T f(x)|` where f(x) is zero.

    Source:
        tinv, after the internal feature distance of Zhang, ICML 2019.

    Args:
        max_stride: Largest stride in pixels of the maps that are compared, and largest shift.
        mode: How views differ, see `tinv.translation.ShiftMode`.
        max_images: Number of images that are used, the first of the set, since all maps are kept; None for all.
        seed: Seed of the bootstrap.
        name: Name under which the result is reported.
    """

    unit = "ratio"
    higher_is_better = False
    shift_argument = "max_stride"

    @renamed(max_shift="max_stride", motion="mode")
    def __init__(
        self,
        max_stride: PositiveInt = 32,
        mode: ShiftMode = "crop",
        max_images: PositiveInt | None = 32,
        seed: Seed = 0,
        name: str = "layer_error",
    ) -> None:
        super().__init__(max_stride, mode, seed, name, ())
        self.max_stride, self.max_images = max_stride, max_images
        self.layers: Layers | None = None

    @property
    def views(self) -> int:
        """Passes through the network that an image costs."""
        return 4

    def check(self, network: nn.Module, shape: Sequence[int]) -> None:
        """Refuses clips, networks that cannot be traced, and those without a map that can be compared."""
        super().check(network, shape)
        try:
            Layers.of(network, torch.zeros(1, *shape), self.max_stride)
        except TinvError as error:
            raise TinvError(f"metric {self.name}: {error}; leave this metric out") from error

    def reset(self) -> None:
        """Forgets the images and the network."""
        super().reset()
        self.layers = None

    def update(self, network: nn.Module, images: Tensor, logits: Tensor, targets: Tensor, index: Tensor) -> None:
        """Adds a batch, see InvarianceMetric.update; for `crop` the images are larger than what the network sees.

        Raises:
            TinvError: If no map of the network has a stride of at most max_stride.
        """
        if self.layers is None:
            scale = CAMERA_SCALE if self.mode == "camera" else 1
            seen = [size // scale - self.crop_margin for size in images.shape[2:]]
            self.layers = Layers.of(network, images.new_zeros(1, images.shape[1], *seen), self.max_stride)
            self.fields = tuple(map(layer_name, self.layers.strides))
        images, index = first_of(self.max_images, index, images, index)
        if not len(images):
            # no rows, but as wide as those of other processes
            self.store(index, *index.new_zeros(len(self.fields), 0))
            return
        # of crops the middle of what would do for the largest shift
        images = trim(images, self.max_stride - self.layers.shift, self.mode)
        for some, numbers in zip(torch.split(images, CHUNK), torch.split(index, CHUNK), strict=True):
            self.store(numbers, *self._errors(network, self.layers, some))

    def _errors(self, network: nn.Module, layers: Layers, images: Tensor) -> list[Tensor]:
        """Returns the errors (N,) of each layer."""
        start = torch.zeros(len(images), 2, dtype=torch.long, device=images.device)
        end = start + layers.shift
        # a crop that begins later shows its content further left
        before, after = (end, start) if self.mode in WINDOWS else (start, end)
        still, moved = (shifted_views(images, offsets, layers.shift, self.mode) for offsets in (before, after))
        maps = dict(_activations(network, layers, still))
        return [
            _error(maps.pop(node), answer, layers.shift // layers.strides[node], self.mode)
            for node, answer in _activations(network, layers, moved)
        ]

    def errors(self) -> list[LayerResult]:
        """Returns the error of every layer, in the order of running; none before any image was seen."""
        if self.layers is None:
            return []
        rows = self.per_image()
        low, high = np.percentile(bootstrap_means(rows, self.seed), [2.5, 97.5], axis=0)
        fields = zip(self.fields, self.layers.strides.values(), rows.mean(axis=0), low, high, strict=True)
        return [LayerResult(layer, stride, *map(float, numbers)) for layer, stride, *numbers in fields]

    def compute(self) -> dict[str, Tensor]:
        """Returns the error of the last map."""
        if not (errors := self.errors()):
            return {}
        ends = {"": errors[-1].error, "_low": errors[-1].low, "_high": errors[-1].high}
        return {f"{self.name}_last{end}": torch.tensor(value, dtype=torch.float64) for end, value in ends.items()}

    def arrays(self) -> dict[str, np.ndarray]:
        """Returns `shift` in pixels and, over layers, `layer`, `stride`, `error`, `low` and `high`; or nothing."""
        if not (errors := self.errors()) or self.layers is None:
            return {}
        by_name = {key: np.array([getattr(error, key) for error in errors]) for key in vars(errors[0])}
        return {"shift": np.array(self.layers.shift), **by_name}

    def plot(self, ax: Any = None) -> tuple[Figure, Any]:
        """Draws each layer's error and its interval over the depth, coloured by stride; see ReportedMetric.plot."""
        found = self.arrays()
        layers, strides, error = found["layer"], found["stride"], found["error"]
        figure, axes = panels(ax, figsize=(max(6.0, 0.09 * len(layers) + 3), 4.2), dpi=130)
        # the mean may lie outside of the percentiles by a rounding error
        ends = np.maximum([error - found["low"], found["high"] - error], 0)
        for number, stride in enumerate(np.unique(strides)):
            at, look = np.flatnonzero(strides == stride), {"color": f"C{number}", "label": f"stride {stride}"}
            axes.errorbar(at, error[at], yerr=ends[:, at], fmt="o", markersize=3.5, elinewidth=1, **look)
        axes.plot(error, color="grey", linewidth=0.6, zorder=0)
        step = max(1, len(layers) // 16)
        axes.set_xticks(range(0, len(layers), step), layers[::step], rotation=90)
        axes.tick_params(axis="x", labelsize=7)
        title = f"{len(self.per_image())} images shifted by {found['shift']} pixels before and after each layer"
        axes.set(ylabel="relative error", title=title)
        axes.set_ylim(bottom=0)
        axes.spines[["top", "right"]].set_visible(False)
        if ax is None:
            figure.legend(loc="outside upper right", ncols=6, frameon=False, fontsize=8)
        else:
            axes.legend(frameon=False, fontsize=8)
        return figure, axes


@dataclass(frozen=True)
class Layers:
    """The maps of a network that are compared.

    Attributes:
        graph: Graph of the network.
        strides: Stride of each map in pixels, in the order of running.
        shift: Shift of the images in pixels, a multiple of all strides.
    """

    graph: fx.Graph
    strides: dict[fx.Node, int]
    shift: int

    @classmethod
    def of(cls, network: nn.Module, example: Tensor, max_stride: int) -> Layers:
        """Returns those of a network that sees images like `example` (N, C, H, W).

        Raises:
            TinvError: If it cannot be traced, or no map has a stride of at most max_stride.
        """
        geometry = geometry_of(network, example)
        graph = geometry.graph
        strides = {node: stride for node in graph.nodes if (stride := _stride(geometry, node)) is not None}
        fitting = sorted({stride for stride in strides.values() if stride <= max_stride})
        if not fitting:
            raise TinvError(f"no map of the network has a stride of at most max_stride={max_stride} pixels")
        while (shift := math.lcm(*fitting)) > max_stride:
            fitting.pop()
        return cls(graph, {node: s for node, s in strides.items() if shift % s == 0 and _shown(node)}, shift)


def _stride(geometry: GeometryInterpreter, node: fx.Node) -> int | None:
    """Returns the stride of a node's map in pixels, None if it has no positions or its axes differ."""
    places: Any = geometry.grids.get(node)
    if not isinstance(places, tuple) or node.op == "placeholder" or node in geometry.graph.background:
        return None
    found = [place.stride for place in places if isinstance(place, AxisGrid)]
    whole = len(found) == 2 and places[2:] == tuple(p for p in places if p is not None) and found[0] == found[1]
    return int(found[0]) if whole and Fraction(found[0]).denominator == 1 else None


def _shown(node: fx.Node) -> bool:
    return node.op == "call_module" or (node.op == "call_function" and "add" in str(node.target))


def _activations(network: nn.Module, layers: Layers, images: Tensor) -> list[tuple[fx.Node, Tensor]]:
    """Returns the maps that are compared, each as it was before a later layer could overwrite it."""
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
    return kept


def _error(still: Tensor, moved: Tensor, by: int, mode: ShiftMode) -> Tensor:
    """Returns each image's relative error (N,), of maps that should differ by `by` positions right and down."""
    if mode in WRAPS:
        expected = still.roll((by, by), (2, 3))
    else:
        height, width = still.shape[2:]
        expected, moved = still[:, :, : height - by, : width - by], moved[:, :, by:, by:]
    difference = (expected - moved).flatten(1).double().norm(dim=1)
    size = expected.flatten(1).double().norm(dim=1)
    error = torch.where(size > 0, difference / size, difference)
    return error.masked_fill(~(difference.isfinite() & size.isfinite()), torch.nan)
