"""Where the positions of a map sit over the image, axis by axis, and what becomes of an axis that is split or merged.

Position i of an axis is centered on pixel `offset + stride * i` of the image; its receptive field is the pixels
`low + stride * i` to `high + stride * i`. A window of kernel k, dilation d, left padding p and stride s maps

    offset -> offset + stride * (d (k-1) / 2 - p)
    low -> low - stride * p
    high -> high + stride * (d (k-1) - p)
    stride -> stride * s

The stride is negative where a map runs against the image, as after a flip.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction


@dataclass(frozen=True)
class AxisGrid:
    """Where the positions of one axis of a map sit over the image, in pixels of the image.

    Attributes:
        axis: Axis of the image, 0 for the first spatial one.
        offset: Pixel that position 0 looks at; position i looks at offset + stride * i.
        stride: From one position to the next.
        size: Positions.
        low: First pixel that position 0 sees.
        high: Last pixel that position 0 sees.
        choices: Names of the adaptive layers that chose among the possible offsets, which the above takes as 0.
    """

    axis: int
    offset: Fraction
    stride: Fraction
    size: int
    low: Fraction
    high: Fraction
    choices: tuple[str, ...] = ()

    @property
    def receptive_field(self) -> Fraction:
        """Pixels that one position sees."""
        return self.high - self.low + 1

    def positions_at_border(self, image_size: int) -> int:
        """Returns how many positions see beyond the border of an image of that many pixels."""
        if self.stride < 0:
            return self.flipped().positions_at_border(image_size)
        before = min(self.size, max(0, math.ceil(-self.low / self.stride)))
        inside = math.floor((image_size - 1 - self.high) / self.stride) + 1
        return self.size - max(0, min(self.size, inside) - before)

    def after_window(self, effective_kernel_size: int, left: int, stride: int, size: int) -> AxisGrid:
        """Returns the grid after a window with `left` pixels of padding, all in positions."""
        further = effective_kernel_size - 1
        ends = (self.stride * -left, self.stride * (further - left))
        return replace(
            self,
            offset=self.offset + self.stride * (Fraction(further, 2) - left),
            stride=self.stride * stride,
            size=size,
            low=self.low + min(ends),
            high=self.high + max(ends),
        )

    def seeing_all(self) -> AxisGrid:
        """Returns the same grid of positions each of which sees the whole map."""
        reach = abs(self.stride) * (self.size - 1)
        return replace(self, low=self.low - reach, high=self.high + reach)

    def translated(self, positions: int, size: int, step: int = 1) -> AxisGrid:
        """Returns the grid of a map that begins `positions` further on and takes every `step`-th position."""
        by = self.stride * positions
        offset, low, high = self.offset + by, self.low + by, self.high + by
        return AxisGrid(self.axis, offset, self.stride * step, size, low, high, self.choices)

    def flipped(self) -> AxisGrid:
        """Returns the grid of the map read from its other end."""
        return replace(self.translated(self.size - 1, self.size), stride=-self.stride)

    def coarser(self, positions: int) -> AxisGrid:
        """Returns the grid of groups of so many neighbours, whose number must be whole."""
        return self.after_window(positions, 0, positions, self.size // positions)

    def finer(self, positions: int) -> AxisGrid:
        """Returns the grid of a map in which each position has become so many."""
        stride = self.stride / positions
        back = stride * (positions - 1)
        # which of its positions an index belongs to depends on the remainder: what is seen is what any of them may see
        low, high = self.low - max(back, Fraction(0)), self.high - min(back, Fraction(0))
        size = self.size * positions
        return replace(self, offset=self.offset - back / 2, stride=stride, size=size, low=low, high=high)

    def resized(self, size: int, corners: bool) -> AxisGrid:
        """Returns the grid of a map resized to `size` positions, whose corners or corners' outsides stay."""
        if corners:
            step = self.stride * Fraction(self.size - 1, max(size - 1, 1))
            return replace(self, stride=step or self.stride, size=size)
        step = self.stride * Fraction(self.size, size)
        # its neighbours on both sides are seen too
        low, high = self.low - abs(self.stride), self.high + abs(self.stride)
        return replace(self, offset=self.offset + (step - self.stride) / 2, stride=step, size=size, low=low, high=high)


@dataclass(frozen=True)
class Folded:
    """An axis of a tensor that holds several: axis grids, and numbers of entries without positions, slowest first."""

    parts: tuple[AxisGrid | int, ...]


@dataclass(frozen=True)
class Prefixed:
    """An axis that begins with entries without positions, as class tokens are, behind which those of another stand."""

    count: int
    rest: AxisGrid | Folded


@dataclass(frozen=True)
class Lost:
    """An axis that may hold positions of the image, in an order that is not known."""


@dataclass(frozen=True)
class Uniform:
    """An axis of a tensor along which one value is repeated, as after `expand`."""


Entry = AxisGrid | Folded | Prefixed | Lost | Uniform | None
Grid = tuple[Entry, ...]
"""One entry for each axis of a tensor, None for those that are no positions: batch, channels, pooled axes."""


def holds_positions(entry: Entry) -> bool:
    """Returns whether an axis of a tensor holds positions of the image, known or not."""
    return isinstance(entry, (AxisGrid, Folded, Prefixed, Lost))


def axis_grids(entry: Entry) -> Iterator[AxisGrid]:
    """Yields the grids that an axis of a tensor holds."""
    if isinstance(entry, AxisGrid):
        yield entry
    elif isinstance(entry, Folded):
        yield from (part for part in entry.parts if isinstance(part, AxisGrid))
    elif isinstance(entry, Prefixed):
        yield from axis_grids(entry.rest)


def grids_of(entries: Iterable[Entry]) -> list[AxisGrid]:
    """Returns the grids that some axes of a tensor hold."""
    return [part for entry in entries for part in axis_grids(entry)]


def axes_of(entries: Iterable[Entry]) -> set[int]:
    """Returns the axes of the image whose positions some axes of a tensor hold."""
    return {part.axis for part in grids_of(entries)}


def after_move(entry: Entry, move: Callable[..., AxisGrid], *args: int) -> Entry:
    """Returns what a move of its positions leaves of an axis: they are lost where they are not in their order."""
    return move(entry, *args) if isinstance(entry, AxisGrid) else Lost() if holds_positions(entry) else entry


def signature(entry: Entry, with_choices: bool = False) -> tuple[object, ...]:
    """Returns what two axes must agree in to move together: image axis, stride and size, in their order."""
    if isinstance(entry, Prefixed):
        return (entry.count, *signature(entry.rest, with_choices))
    parts = entry.parts if isinstance(entry, Folded) else (entry,)
    keys = ("axis", "stride", "size", *(["choices"] if with_choices else []))
    return tuple(tuple(getattr(p, key) for key in keys) if isinstance(p, AxisGrid) else p for p in parts)


def choices(entry: Entry) -> tuple[str, ...]:
    """Returns the adaptive layers that chose the positions of an axis."""
    return tuple(name for axis_grid in axis_grids(entry) for name in axis_grid.choices)


def prefixed(count: int, entry: Entry) -> Entry:
    """Returns an axis whose positions stand behind so many entries without; they are lost if not in a known order."""
    if isinstance(entry, Prefixed):
        return Prefixed(entry.count + count, entry.rest)
    return Prefixed(count, entry) if isinstance(entry, (AxisGrid, Folded)) else Lost()


def without_prefix(entry: Entry, start: int, end: int, step: int, size: int) -> Entry:
    """Returns what is left of an axis of `size` entries of which those from `start` to `end` are taken."""
    if not isinstance(entry, Prefixed) or step != 1:
        return Lost() if holds_positions(entry) else entry
    if end <= entry.count:
        return None
    if end != size or start > entry.count:
        return Lost()
    return entry.rest if start == entry.count else Prefixed(entry.count - start, entry.rest)


def size_of(part: AxisGrid | int) -> int:
    """Returns the number of entries of a part of an axis."""
    return part if isinstance(part, int) else part.size


def reshaped(grid: Grid, old: Sequence[int], new: Sequence[int]) -> Grid:
    """Returns the grid of a tensor of shape `old` read as one of shape `new`, row by row.

    An axis that is split into a x b becomes one of a groups of b neighbours, and one of b entries without positions;
    merged with the axis behind it, which holds no positions, an axis grid becomes finer.
    """
    if any(isinstance(entry, (Lost, Prefixed)) for entry in grid):
        return _aligned(grid, old, new)
    parts: list[AxisGrid | int] = []
    for entry, size in zip(grid, old, strict=True):
        if isinstance(entry, Folded):
            parts += entry.parts
        else:
            parts.append(entry if isinstance(entry, AxisGrid) else size)
    found: list[Entry] = []
    for size in new:
        taken = _take(parts, size)
        if taken is None:
            return _aligned(grid, old, new)
        found.append(_entry(taken))
    return tuple(found)


def _take(parts: list[AxisGrid | int], size: int) -> list[AxisGrid | int] | None:
    """Takes parts of so many entries from the front of a list, splitting the last if need be; None if that fails."""
    taken: list[AxisGrid | int] = []
    if size == 1 and parts and size_of(parts[0]) == 1:
        return [parts.pop(0)]
    while size > 1:
        while parts and size_of(parts[0]) == 1:
            parts.pop(0)
        if not parts:
            return None
        part = parts.pop(0)
        have = size_of(part)
        if size % have == 0:
            taken.append(part)
            size //= have
        elif have % size == 0:
            taken.append(size if isinstance(part, int) else part.coarser(have // size))
            parts.insert(0, have // size)
            size = 1
        else:
            return None
    return taken


def _entry(parts: list[AxisGrid | int]) -> Entry:
    """Returns the entry of an axis that holds these parts."""
    kept: list[AxisGrid | int] = []
    for part in parts:
        last = kept[-1] if kept else None
        if isinstance(part, int) and last is not None:
            kept[-1] = last * part if isinstance(last, int) else last.finer(part) if part > 1 else last
        elif not (isinstance(last, int) and last == 1):
            kept.append(part)
        else:
            kept[-1] = part
    if not any(isinstance(part, AxisGrid) for part in kept):
        return None
    return kept[0] if len(kept) == 1 and isinstance(kept[0], AxisGrid) else Folded(tuple(kept))


def _aligned(grid: Grid, old: Sequence[int], new: Sequence[int]) -> Grid:
    """Returns what is left where axes cannot be followed one by one: those whose neighbours' sizes agree stay."""
    out: list[Entry] = [Lost() if any(map(holds_positions, grid)) else None] * len(new)
    i = j = 0
    # axes fall into groups of equal products; one that is alone in its group on both sides stays what it is
    while i < len(old) and j < len(new):
        first, second, left, right = i + 1, j + 1, old[i], new[j]
        while left != right:
            if left < right and first < len(old):
                left, first = left * old[first], first + 1
            elif second < len(new):
                right, second = right * new[second], second + 1
            else:
                return tuple(out)
        if first == i + 1 and second == j + 1:
            out[j] = grid[i]
        elif not any(map(holds_positions, grid[i:first])):
            out[j:second] = [None] * (second - j)
        i, j = first, second
    return tuple(out)
