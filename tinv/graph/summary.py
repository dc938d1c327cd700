"""A network's geometry, cost and exact invariance, as an object that prints itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any

from torch import Tensor, nn

from tinv.graph.account import Conversion
from tinv.graph.analysis import Analysis, Layer, analyze
from tinv.graph.exact_invariance import FOLLOWED, ExactInvariance
from tinv.graph.geometry import Cost
from tinv.graph.patches import PatchGrid, patch_grid
from tinv.graph.uneven import UnevenPadding
from tinv.policies.conversion import ConversionPolicy

if TYPE_CHECKING:
    from rich.table import Table

EXPLANATION = (
    "position i is centered on pixel offset + stride * i; RF: pixels of its receptive field; border: positions whose "
    "receptive field goes beyond the image; one value for all axes, or time/space"
)


@dataclass(frozen=True)
class Summary:
    """What `tinv inspect` prints of a network.

    Attributes:
        title: Title of the table.
        analysis: Geometry and cost of every layer, and the verdict.
        conversion: What was changed; None for a network that is not converted.
        before: Cost of the unconverted network on the same images; None if it is not known.
        uneven: Strided layers whose padding is uneven, see `tinv.graph.uneven`; None if it was not looked for.
        patches: Patches that the image is cut into; None for a network that cuts none.
    """

    title: str
    analysis: Analysis
    conversion: Conversion | None = None
    before: Cost | None = None
    uneven: UnevenPadding | None = None
    patches: PatchGrid | None = None

    @property
    def verdict(self) -> ExactInvariance:
        """Which shifts the output follows exactly."""
        return self.analysis.verdict

    @property
    def cost(self) -> Cost:
        """Floating-point operations, and bytes of activations."""
        return self.analysis.cost

    def table(self, every_layer: bool = False) -> Table:
        """Returns size, stride, offset, receptive field, border and cost of the layers, for a terminal.

        Args:
            every_layer: A line for every layer, not only where geometry changes.
        """
        from rich import box
        from rich.table import Table

        table = Table(title=self.title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
        table.add_column("layer", overflow="fold", ratio=1)
        if every_layer:
            table.add_column("kind", overflow="fold")
        for name in ("size", "stride", "offset", "RF", "border", "GFLOPs", "MB"):
            table.add_column(name, justify="right", no_wrap=True)
        for layer in self.shown(every_layer):
            statistics = f" ({layer.statistics.replace('_', ' ')})" if layer.statistics else ""
            table.add_row(layer.name, *([f"{layer.kind}{statistics}"] if every_layer else []), *_columns(layer))
        return table

    def shown(self, every_layer: bool) -> list[Layer]:
        """Returns all layers, or those where geometry changes."""
        return [layer for layer in self.analysis.layers if every_layer or layer.changes_geometry]

    def lines(self) -> list[str]:
        """Returns what stands below the table: cost, what was changed and left, and the verdict."""
        flops, memory = self.cost.flops, self.cost.bytes
        against = ""
        if self.before is not None:
            times, more = self.cost.times(self.before)
            against = f", {times:.2f}x and {more:.2f}x the unconverted network"
        said = [f"one image costs {flops / 1e9:.2f} GFLOPs and {memory / 1e6:.0f} MB of activations{against}"]
        if self.conversion is not None and not self.conversion.policy.keeps_all:
            counts = ", ".join(f"{n} {what}" for what, n in self.conversion.counts.items()) or "nothing"
            said.append(f"changed: {counts}")
            said += [self.conversion.fresh_summary] if self.conversion.fresh else []
            said += [f"skipped: {note.layer}: {note.text}" for note in self.conversion.skipped]
            said += [f"not converted: {note.layer}: {note.text}" for note in self.conversion.partial]
        said += self.uneven.lines() if self.uneven is not None else []
        said += [str(self.patches)] if self.patches is not None else []
        said.append(f"exactly {self.verdict.name} (in evaluation, with these weights) to")
        return said + [f"  {line}" for line in self.verdict.lines()]

    def print(self, every_layer: bool = False, notes: Sequence[str] = ()) -> None:
        """Prints the table and the lines below it.

        Args:
            every_layer: Whether every layer has a line, not only those where geometry changes.
            notes: Warnings that stand before the verdict.
        """
        from rich.console import Console

        console = Console(highlight=False)
        console.print(self.table(every_layer))
        console.print(f"[dim]{EXPLANATION}[/]\n")
        shown = self if self.conversion is not None else replace(self, before=None)
        lines = shown.lines()
        verdict = len(self.verdict.lines()) + 1
        for line in [*lines[:-verdict], *(f"warning: {note}" for note in notes), *lines[-verdict:]]:
            console.print(line, markup=False)

    def to_dict(self, every_layer: bool = True) -> dict[str, Any]:
        """Returns everything as JSON can hold it; fractions become floats."""
        conversion = self.conversion or Conversion(ConversionPolicy())
        changed, skipped, partial = (
            [asdict(note) for note in notes] for notes in (conversion.changed, conversion.skipped, conversion.partial)
        )
        return {
            "input_shape": self.analysis.input_shape,
            "partial": partial,
            "cost": asdict(self.cost),
            "cost_unconverted": None if self.before is None else asdict(self.before),
            "verdict": {kind: [asdict(shifts) for shifts in getattr(self.verdict, kind)] for kind in FOLLOWED},
            "changed": changed,
            "skipped": skipped,
            "left": skipped,  # its old name
            "layers": [_layer(layer) for layer in self.shown(every_layer)],
            "unknown": list(self.verdict.unknown),
            **({} if self.uneven is None else {"uneven": asdict(self.uneven)}),
            **({} if self.patches is None else {"patches": asdict(self.patches)}),
        }

    def __str__(self) -> str:
        from rich.console import Console

        # the same text in a notebook, which rich would show as a table of its own, and under FORCE_COLOR
        console = Console(width=120, highlight=False, color_system=None, force_jupyter=False)
        with console.capture() as capture:
            console.print(self.table())
        return capture.get() + "\n" + "\n".join(self.lines())


def summary(network: nn.Module, images: Tensor, title: str | None = None) -> Summary:
    """Finds where each activation of a network sits, what it costs, and which shifts leave its output unchanged.

    Args:
        network: Converted or not; it is left as it is.
        images: One batch (N, C, *spatial) of any values; costs are of one image.
        title: Title of the table; None for the network's class.

    Raises:
        LayerError: Naming a layer that cannot be traced, or cannot run on a map of its size.

    Examples:
        >>> import torch
        >>> network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular"))
        >>> print(summary(network, torch.zeros(1, 3, 8, 8)).verdict.circular[0])
        every shift
    """
    found = analyze(network, images[:1])
    conversion = getattr(network, "conversion", None)
    size = "x".join(map(str, found.input_shape[2:]))
    name = title or getattr(network, "original_class", type(network).__name__)
    policy = "unconverted" if conversion is None or conversion.policy.keeps_all else str(conversion.policy)
    partial = "partial: " if conversion is not None and conversion.partial else ""
    title = f"{name}, {partial}{policy}, on {size} images"
    return Summary(title, found, conversion, patches=patch_grid(network, found.input_shape[2:]))


def _columns(layer: Layer) -> list[str]:
    cost = [f"{layer.cost.flops / 1e9:.3f}", f"{layer.cost.bytes / 1e6:.1f}"]
    if not layer.grid:
        return ["-", "-", "-", "all", "-", *cost]
    rows = [
        (
            str(axis_grid.size),
            f"{float(axis_grid.stride):g}",
            f"{float(axis_grid.offset):g}{'+' if axis_grid.choices else ''}",
            f"{float(axis_grid.receptive_field):g}",
            f"{100 * at_border / axis_grid.size:.0f}%",
        )
        for at_border, axis_grid in zip(layer.at_border, layer.grid, strict=True)
    ]
    return [_together(values) for values in zip(*rows, strict=True)] + cost


def _together(values: Sequence[str]) -> str:
    if len(set(values)) == 1:
        return values[0]
    if len(values) == 3 and values[1] == values[2]:
        return f"{values[0]}/{values[1]}"
    return "x".join(values)


def _layer(one: Layer) -> dict[str, Any]:
    axes = [
        {
            **{key: float(getattr(axis_grid, key)) for key in ("offset", "stride", "low", "high", "receptive_field")},
            "axis": axis_grid.axis,
            "size": axis_grid.size,
            "positions_at_border": at_border,
            "cells_at_border": at_border,  # its old name
        }
        for axis_grid, at_border in zip(one.grid, one.at_border, strict=True)
    ]
    kinds = {"name": one.name, "kind": one.kind, "statistics": one.statistics}
    return {**kinds, "shape": one.shape, "axes": axes, **asdict(one.cost)}
