"""The policies of a conversion, and the account of what it did."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal, get_args

from tinv.errors import unknown
from tinv.policies.cards import Padding, Subsampling
from tinv.policies.geometry import Cost
from tinv.policies.padding import check_padding
from tinv.policies.subsampling import check_subsampling

PoolPolicy = Literal["keep", "valid", "same", "full"]
Stem = Literal["keep", "convert"]
Axes = Literal["space", "space+time"]
BlurPadding = Literal["as_padding", "zero", "reflect", "replicate", "circular"]


@dataclass(frozen=True)
class Settings:
    """The policies of a conversion; see `convert` for each."""

    padding: Padding = "keep"
    subsampling: Subsampling = "keep"
    pool: PoolPolicy = "keep"
    stem: Stem = "keep"
    axes: Axes = "space"
    blur_padding: BlurPadding = "as_padding"
    partial: bool = False

    def check(self) -> None:
        """Raises TinvError for a name that does not exist."""
        check_padding(self.padding)
        check_subsampling(self.subsampling)
        for name, choices in (("pool", PoolPolicy), ("stem", Stem), ("axes", Axes), ("blur_padding", BlurPadding)):
            if getattr(self, name) not in get_args(choices):
                raise unknown(name, getattr(self, name), get_args(choices))

    @property
    def keeps_all(self) -> bool:
        """Whether nothing is to be changed."""
        return (self.padding, self.subsampling, self.pool) == ("keep", "keep", "keep")

    def __str__(self) -> str:
        """The policies that are not at their default."""
        said = {name: value for name, value in vars(self).items() if value != getattr(Settings, name)}
        return ", ".join(f"{name}={value}" for name, value in said.items()) or "padding=keep, subsampling=keep"


@dataclass(frozen=True)
class Note:
    """A layer's path, and what was done to it or why it was left."""

    layer: str
    text: str


@dataclass
class Conversion:
    """What `convert` did.

    Attributes:
        settings: the policies.
        changed: layers that were changed or added, in the order of running, each with what was done.
        left: layers that the policies name but that were left, each with the reason.
        partial: layers among those that a policy was asked for and could not be put on; none unless `partial=True`.
        counts: how many layers of each kind of change.
        size: of the example's images, in pixels.
        before: what the example cost in evaluation before the conversion.
        after: what it costs since.
    """

    settings: Settings
    changed: list[Note] = field(default_factory=list)
    left: list[Note] = field(default_factory=list)
    partial: list[Note] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    size: tuple[int, ...] = ()
    before: Cost = field(default_factory=Cost)
    after: Cost = field(default_factory=Cost)

    @property
    def price(self) -> str:
        """What the conversion costs, in words."""
        flops, memory = self.after.flops / max(self.before.flops, 1), self.after.bytes / max(self.before.bytes, 1)
        size = "x".join(map(str, self.size))
        return f"{flops:.2f}x the FLOPs and {memory:.2f}x the activation memory on {size} images"

    def __str__(self) -> str:
        """The policies, the counts, and a line for each layer."""
        name = f"partial: {self.settings}" if self.partial else str(self.settings)
        lines = [name, ", ".join(f"{n} {what}" for what, n in self.counts.items()) or "nothing changed"]
        lines += [self.price] if self.size else []
        lines += [f"  {note.layer}: {note.text}" for note in self.changed]
        lines += [f"  {note.layer}: left: {note.text}" for note in self.left]
        lines += [f"  {note.layer}: not converted: {note.text}" for note in self.partial]
        return "\n".join(lines)


def policy_axes(settings: Settings, axes: int) -> tuple[int, ...]:
    """Returns the spatial axes that the policies treat: all, or for clips those of space."""
    return tuple(range(1, axes)) if axes == 3 and settings.axes == "space" else tuple(range(axes))
