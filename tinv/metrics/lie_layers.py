"""Which layers add to the rate at which a network's output changes when its images begin to move."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, fx, nn

from tinv.errors import TinvError
from tinv.graph.converted import geometry_of
from tinv.graph.grid import AxisGrid
from tinv.graph.network_graph import layer_name
from tinv.metrics.answers import undefined_unless_finite
from tinv.metrics.base import InvarianceMetric, first_of, panels
from tinv.metrics.lie_derivative import output_velocity
from tinv.metrics.views import bootstrap_means
from tinv.translation import velocity
from tinv.utils.arguments import PositiveInt, Seed

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Cut:
    """A map through which everything that follows is computed.

    Attributes:
        node: Its node in the graph.
        strides: Pixels of the image from one position to the next (down, right).
    """

    node: fx.Node
    strides: tuple[float, float]


class LayerLieDerivative(InvarianceMetric):
    """The Lie derivative of a network, split by the chain rule into what each part of it adds (Gruver et al., 2023).

    The network is cut where all that follows depends on one map. To let the map at a cut move, in place of the image,
    and to differentiate the rest, gives the rate of the output that comes from after the cut; the difference between
    two cuts is what lies between them. The sum over all parts is the rate of the whole network, as a vector; the share
    of a part is its projection on that.

    Shares of the layers, with their bootstrap intervals over images, are written to a file and drawn.

    Reported:
        - `NAME` (per square pixel, 0 or more): the squared rate of the logits of the whole network, mean over images
          and directions, as `LieDerivative` reports it.

    Formula:
        `<v_i, v>` for each part i, with `v_i = g_(i-1) - g_i`, for g_i the rate of the logits when the map at cut i
        begins to move (g_0: the image; after the last cut 0), and `v = g_0 = sum of v_i`. Mean over images and over
        moves to the right and down, wrapped around. The shares add up to `|v|^2`.

    Source:
        Gruver, Finzi, Goldblum & Wilson, ICLR 2023, section 3.2, which adds up the norms of v_i; the projection is
        tinv's, whose sum equals the whole.

    Args:
        max_images: Number of images that are used, the first of the set, since every part costs about a pass through
            the rest of the network; None for all.
        seed: Seed of the bootstrap.
        name: Name under which the result is reported.
    """

    unit = "per square pixel"
    higher_is_better = False

    def __init__(self, max_images: PositiveInt | None = 64, seed: Seed = 0, name: str = "lie_layers") -> None:
        super().__init__()
        self.max_images, self.seed, self.name = max_images, seed, name
        self.fields: tuple[str, ...] = ()
        self.add_rows("index", "rows")

    @property
    def views(self) -> int:
        """About how many passes through the network an image costs."""
        return 8 + 4 * len(self.fields)

    def check(self, network: nn.Module, shape: Sequence[int]) -> None:
        """Refuses clips, and networks that cannot be traced."""
        super().check(network, shape)
        try:
            cuts_of(network, torch.zeros(1, *shape))
        except TinvError as error:
            raise TinvError(f"metric {self.name}: {error}; leave this metric out") from error

    def reset(self) -> None:
        """Forgets the images and the network."""
        super().reset()
        self.fields = ()

    def update(self, network: nn.Module, images: Tensor, logits: Tensor, targets: Tensor, index: Tensor) -> None:
        """Adds a batch, see InvarianceMetric.update.

        Raises:
            TinvError: If the network cannot be traced, or torch cannot differentiate it in forward mode.
        """
        graph, cuts = cuts_of(network, images[:1])
        self.fields = (*(layer_name(cut.node) for cut in cuts), "head")
        images, index = first_of(self.max_images, index, images, index)
        shares = torch.zeros(len(images), len(self.fields), dtype=torch.float64, device=images.device)
        for axis in (3, 2) if len(images) else ():
            rates = [output_velocity(network, images, velocity(images, axis))[1].double()]
            rates += [_rate(network, graph, images, axis, cut).double() for cut in cuts]
            after = [*rates[1:], torch.zeros_like(rates[0])]
            several = [((rate - later) * rates[0]).sum(dim=1) for rate, later in zip(rates, after, strict=True)]
            shares += undefined_unless_finite(torch.stack(several), *rates).T / 2
        self.append(index=index, rows=shares)

    def per_image(self) -> np.ndarray:
        """Returns the shares of each part (images, parts), in order of the sample indices."""
        return self.ordered("rows")

    def compute(self) -> dict[str, Tensor]:
        """Returns the squared rate of the whole network; nothing before any image was seen."""
        rows = self.per_image()
        if not len(rows):
            return {}
        whole = rows.sum(axis=1, keepdims=True)
        low, high = np.percentile(bootstrap_means(whole, self.seed), [2.5, 97.5])
        ends = {"": whole.mean(), "_low": low, "_high": high}
        return {f"{self.name}{end}": torch.tensor(float(value), dtype=torch.float64) for end, value in ends.items()}

    def arrays(self) -> dict[str, np.ndarray]:
        """Returns, over parts, `part` (the name of its last layer), `share`, `low` and `high`; or nothing."""
        rows = self.per_image()
        if not len(rows):
            return {}
        low, high = np.percentile(bootstrap_means(rows, self.seed), [2.5, 97.5], axis=0)
        return {"part": np.array(self.fields), "share": rows.mean(axis=0), "low": low, "high": high}

    def plot(self, ax: Any = None) -> tuple[Figure, Any]:
        """Draws the share of each part with its interval, in the order of running; see ReportedMetric.plot."""
        found = self.arrays()
        figure, axes = panels(ax, figsize=(max(5.0, 0.3 * len(found["part"]) + 2), 4), dpi=130)
        # the mean may lie outside of the percentiles by a rounding error
        ends = np.maximum([found["share"] - found["low"], found["high"] - found["share"]], 0)
        places = np.arange(len(found["part"]))
        axes.bar(places, found["share"], yerr=ends, color="C0", alpha=0.7, error_kw={"linewidth": 1})
        axes.axhline(0, color="black", linewidth=0.8)
        axes.set_xticks(places, list(found["part"]), rotation=90)
        axes.tick_params(axis="x", labelsize=7)
        axes.set(ylabel="share (per square pixel)", title=f"{len(self.per_image())} images")
        axes.spines[["top", "right"]].set_visible(False)
        return figure, axes


def cuts_of(network: nn.Module, example: Tensor) -> tuple[fx.Graph, list[Cut]]:
    """Returns the graph of a network, and the maps of it through which all that follows is computed, in order.

    Args:
        network: Converted or not.
        example: Images (N, C, H, W) of any values.

    Raises:
        TinvError: If it cannot be traced.
    """
    geometry = geometry_of(network, example)
    order = {node: place for place, node in enumerate(geometry.graph.nodes)}
    live: set[fx.Node] = set()
    found = []
    for node in geometry.graph.nodes:
        live = {n for n in {*live, node} if n.op != "get_attr" and any(order[user] > order[node] for user in n.users)}
        places: Any = geometry.grids.get(node)
        if live != {node} or node.op not in ("call_module", "call_function", "call_method"):
            continue
        # (N, C, H, W): where positions lie along other axes, only maps before and after are cut
        axes: list[Any] = list(places[2:]) if isinstance(places, tuple) and len(places) == 4 else []
        inside = all(isinstance(axis, AxisGrid) and axis.axis == number for number, axis in enumerate(axes))
        # after a map of one position, or of none, nothing moves any more
        if axes and inside and all(axis.size > 1 for axis in axes):
            found.append(Cut(node, (float(axes[0].stride), float(axes[1].stride))))
    return geometry.graph, found


def _rate(network: nn.Module, graph: fx.Graph, images: Tensor, axis: int, cut: Cut) -> Tensor:
    """Returns the rate (N, F) of the output when the map at a cut begins to move."""
    until = _Until(network, graph, cut.node)
    with torch.no_grad():
        until.run(images)
    moving = velocity(until.value, axis) / cut.strides[axis - 2]
    return output_velocity(_Rest(network, graph, cut.node), until.value, moving)[1]


class _Until(fx.Interpreter):
    """Runs a graph up to a node, and keeps its value."""

    def __init__(self, network: nn.Module, graph: fx.Graph, last: fx.Node) -> None:
        super().__init__(network, graph=graph)
        self.last, self.value, self.reached = last, torch.empty(0), False

    def run_node(self, n: fx.Node) -> Any:
        if self.reached:
            return None
        answer = super().run_node(n)
        if n is self.last:
            # a layer in place would overwrite it
            self.value, self.reached = answer.clone(), True
        return answer


class _Rest(nn.Module):
    """The part of a network that follows a cut: maps (N, C, h, w), the value of the cut, to (N, F)."""

    def __init__(self, network: nn.Module, graph: fx.Graph, cut: fx.Node) -> None:
        super().__init__()
        self.network, self.graph, self.cut = network, graph, cut

    def forward(self, value: Tensor) -> Any:
        known: dict[fx.Node, Any] = {}
        for node in self.graph.nodes:
            if node.op != "get_attr":
                known[node] = value if node is self.cut else None
            if node is self.cut:
                break
        return fx.Interpreter(self.network, graph=self.graph).run(initial_env=known)
