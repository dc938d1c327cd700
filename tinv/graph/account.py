"""The account of a conversion: what was changed, what was left and why, and what it costs."""

from __future__ import annotations

import warnings
from dataclasses import dataclass, field

from tinv.graph.geometry import Cost
from tinv.policies.conversion import ConversionPolicy


@dataclass(frozen=True)
class Note:
    """A layer's path, and what was done to it or why it was left."""

    layer: str
    text: str


@dataclass
class Conversion:
    """What `convert` did.

    Attributes:
        policy: All policies together.
        changed: Layers that were changed or added, in the order of running, each with what was done.
        skipped: Layers that the policies name but that were not changed, each with the reason.
        partial: Layers among those that a policy was asked for and could not be put on; none unless `partial=True`.
        counts: Number of layers by kind of change.
        size: Size of the example's images, in pixels.
        fresh: Weights that the policies added, by name, each with how many numbers it holds.
        before: What the example cost in evaluation before the conversion.
        after: What it costs since.
    """

    policy: ConversionPolicy
    changed: list[Note] = field(default_factory=list)
    skipped: list[Note] = field(default_factory=list)
    partial: list[Note] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    size: tuple[int, ...] = ()
    fresh: dict[str, int] = field(default_factory=dict)
    before: Cost = field(default_factory=Cost)
    after: Cost = field(default_factory=Cost)

    def change(self, layer: str, text: str, kind: str) -> None:
        """Takes note of what was done to a layer, and of what kind of change that is."""
        if (note := Note(layer, text)) not in self.changed:
            self.changed.append(note)
            self.counts[kind] = self.counts.get(kind, 0) + 1

    def skip(self, layer: str, reason: str) -> None:
        """Takes note of a layer that is not changed, as it should be."""
        if (note := Note(layer, reason)) not in self.skipped:
            self.skipped.append(note)

    def refuse(self, layer: str, reason: str) -> None:
        """Takes note of a layer that a policy was asked for and cannot be put on."""
        if all(note.layer != layer for note in self.partial):
            self.partial.append(Note(layer, reason))

    @property
    def settings(self) -> ConversionPolicy:
        """Old name of `policy`."""
        return self.policy

    @property
    def left(self) -> list[Note]:
        """Old name of `skipped`."""
        warnings.warn("Conversion.left is now skipped", DeprecationWarning, stacklevel=2)
        return self.skipped

    @property
    def price(self) -> str:
        """Old name of `cost_summary`."""
        return self.cost_summary

    @property
    def cost_summary(self) -> str:
        """What the conversion costs, in words."""
        flops, memory = self.after.times(self.before)
        size = "x".join(map(str, self.size))
        return f"{flops:.2f}x the FLOPs and {memory:.2f}x the activation memory on {size} images"

    @property
    def fresh_summary(self) -> str:
        """What the policies added to the weights, in words; empty if nothing."""
        if not self.fresh:
            return ""
        return f"{sum(self.fresh.values()):,} new parameters in {len(self.fresh)} tensors under policy_layers"

    def __str__(self) -> str:
        """The policies, the counts, and a line for each layer."""
        name = f"partial: {self.policy}" if self.partial else str(self.policy)
        lines = [name, ", ".join(f"{n} {what}" for what, n in self.counts.items()) or "nothing changed"]
        lines += [self.cost_summary] if self.size else []
        lines += [self.fresh_summary] if self.fresh else []
        lines += [f"  {note.layer}: {note.text}" for note in self.changed]
        lines += [f"  {note.layer}: skipped: {note.text}" for note in self.skipped]
        lines += [f"  {note.layer}: not converted: {note.text}" for note in self.partial]
        return "\n".join(lines)
