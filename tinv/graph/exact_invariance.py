"""Which shifts of the image leave a network's output exactly unchanged, and the first layer that breaks each.

Two kinds of shift are followed through the graph, axis by axis. *Circular*: the image is rolled. *Zero canvas*: content
moves on an image of zeros and stays inside. For each, a map keeps a unit: shifts by multiples of that many pixels move
the map by whole positions and change nothing else. A stride multiplies the unit; padding that does not continue the map
as the shift would, or positions that are missing at the border, break it. What is said holds in evaluation mode.

Beside them, *fractional* circular shifts move a band-limited image by any part of a pixel: each map holds the values of
a trigonometric polynomial, which moves. They are followed exactly or not at all.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from typing import Literal, get_args

from tinv.deprecation import moved

Shift = Literal["circular", "zero_canvas"]
SHIFTS: tuple[Shift, ...] = get_args(Shift)
Followed = Literal[Shift, "fractional"]
FOLLOWED: tuple[Followed, ...] = get_args(Followed)


@dataclass(frozen=True)
class InvariantShifts:
    """What is left of one kind of shift, on one axis.

    Attributes:
        unit: Shifts by multiples of this many pixels change nothing; None where only no shift does.
        layer: The first that raised the unit above 1, or broke it.
        reason: How.
        order: Order of that layer in the graph.
    """

    unit: int | None = 1
    layer: str = ""
    reason: str = ""
    order: int = 0

    def __str__(self) -> str:
        because = f" ({self.layer}: {self.reason})" if self.layer else ""
        if self.unit is None:
            return f"none{because}"
        return "every shift" if self.unit == 1 else f"multiples of {self.unit} pixels{because}"

    def broken(self, layer: str, reason: str, order: int) -> InvariantShifts:
        """Returns what is left after a layer that breaks it, if nothing has before."""
        return self if self.unit is None else InvariantShifts(None, layer, reason, order)

    def times(self, unit: int, layer: str, reason: str, order: int) -> InvariantShifts:
        """Returns what is left after a layer that lets only multiples of `unit` pixels through."""
        if self.unit is None or self.unit % unit == 0:
            return self
        new = math.lcm(self.unit, unit)
        return replace(self, unit=new) if self.unit > 1 else InvariantShifts(new, layer, reason, order)

    @staticmethod
    def both(found: Iterable[InvariantShifts]) -> InvariantShifts:
        """Returns what is left after maps have met."""
        found = sorted(found, key=lambda shifts: shifts.order if shifts.layer else math.inf)
        for shifts in found:
            if shifts.unit is None:
                return shifts
        return replace(found[0], unit=math.lcm(*(shifts.unit or 1 for shifts in found))) if found else InvariantShifts()


@dataclass(frozen=True)
class FractionalShifts:
    """Whether circular shifts of band-limited images by parts of a pixel are followed exactly, on one axis.

    Attributes:
        exact: Whether they are.
        layer: The first layer that breaks them.
        reason: How.
        order: Order of that layer in the graph.
    """

    exact: bool = True
    layer: str = ""
    reason: str = ""
    order: int = 0

    def __str__(self) -> str:
        return "every shift of band-limited images" if self.exact else f"none ({self.layer}: {self.reason})"


@dataclass(frozen=True)
class ExactInvariance:
    """What a network's output follows exactly, by kind of shift and axis of the image (first spatial one first).

    An output without positions is invariant. One that has positions left is at best equivariant: it moves with the
    image, by one position for each `output_stride` pixels.

    Attributes:
        circular: Shifts of rolled images that leave the output exactly unchanged.
        zero_canvas: The same of content that moves on an image of zeros and stays inside.
        unknown: Layers that the analysis does not know; they count as breaking.
        output_stride: Pixels for each position of the output; None for an axis of which it has no positions.
        fractional: Circular shifts of band-limited images, those without the Nyquist frequency and above, by parts of a
            pixel.
    """

    circular: tuple[InvariantShifts, ...]
    zero_canvas: tuple[InvariantShifts, ...]
    unknown: tuple[str, ...] = ()
    output_stride: tuple[Fraction | None, ...] = ()
    fractional: tuple[FractionalShifts, ...] = ()

    @property
    def name(self) -> Literal["invariant", "equivariant"]:
        """What the output is at best."""
        return "equivariant" if any(self.output_stride) else "invariant"

    def lines(self) -> list[str]:
        """Returns the verdict in words, a line for each kind of shift, and for each axis where they differ."""
        names = {1: ["length"], 2: ["height", "width"], 3: ["time", "height", "width"]}[len(self.circular)]
        said = []
        kinds: dict[str, Sequence[InvariantShifts | FractionalShifts]] = {
            "circular shifts": self.circular,
            "shifts on a zero canvas": self.zero_canvas,
            "circular shifts by parts of a pixel": self.fractional,
        }
        for kind, by_axis in kinds.items():
            groups: dict[InvariantShifts | FractionalShifts, list[str]] = {}
            for name, shifts in zip(names, by_axis, strict=False):
                groups.setdefault(shifts, []).append(name)
            for shifts, axes in groups.items():
                where = f" along {' and '.join(axes)}" if len(groups) > 1 else ""
                said.append(f"{kind}{where}: {shifts}")
        strides: dict[Fraction, list[str]] = {}
        for name, stride in zip(names, self.output_stride, strict=False):
            if stride:
                strides.setdefault(abs(stride), []).append(name)
        for stride, axes in strides.items():
            pixels = "pixel" if stride == 1 else f"{stride} pixels"
            said.append(f"the output has positions along {' and '.join(axes)}: it moves by one for each {pixels}")
        return said

    def __str__(self) -> str:
        return f"exactly {self.name} to\n" + "\n".join(f"  {line}" for line in self.lines())


__getattr__ = moved(__name__, {"Verdict": f"{__name__}:ExactInvariance"})
