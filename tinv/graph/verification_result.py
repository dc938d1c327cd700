"""What a trial of a verdict's claims has measured, as an object that prints itself."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import TYPE_CHECKING, Any, Literal

from tinv.graph.exact_invariance import InvariantShifts

if TYPE_CHECKING:
    from rich.table import Table

AXES = {1: ("length",), 2: ("height", "width"), 3: ("time", "height", "width")}
"""Names of the axes of images, by how many there are."""
KINDS = {"circular": "circular", "zero_canvas": "zero canvas", "fractional": "fractional"}
"""Kinds of shift as the table shows them."""


@dataclass(frozen=True)
class Measured:
    """One kind of shift along one axis, as claimed and as measured.

    Attributes:
        kind: `circular`, `zero_canvas`, or `fractional` where the verdict has it.
        axis: Spatial axis, 0 for the first.
        claim: What the verdict says of it.
        unit: Least number of pixels whose multiples, of the shifts tried, are all exact; 1: every one of them; None:
            none.
        error: Largest relative error of the shifts that are not multiples of `unit`; 0 if there are none.
        exact_error: Largest relative error of those that are.
        tried: Shifts that were tried, in pixels; empty where no multiple of the stride fits in the image.
        holds: Whether all multiples of what is claimed are exact; True where nothing is claimed.
        layer: First layer whose map does not move with the image; empty where every shift is exact.
        reason: Why.
        statistics: Whether norms and biases were `random`, or the network's `own`, on which the claim rests.
    """

    kind: str
    axis: int
    claim: InvariantShifts
    unit: int | None
    error: float
    exact_error: float
    tried: tuple[float, ...]
    holds: bool
    layer: str
    reason: str
    statistics: Literal["random", "own"]

    def __str__(self) -> str:
        """What was measured."""
        if not self.tried:
            return "not tried: no shift fits in the image"
        if self.unit is None:
            return f"not exact, error {self.error:.1e}"
        return "exact" if self.unit == 1 else f"exact for multiples of {self.unit}"

    @property
    def claimed(self) -> str:
        """What the verdict says of it."""
        unit = self.claim.unit
        return "none" if unit is None else "every shift" if unit == 1 else f"multiples of {unit}"

    @property
    def outcome(self) -> str:
        """`holds`, `does not hold`, or that the verdict claims less than what was measured."""
        if not self.holds:
            return "does not hold"
        if not self.tried:
            return "not tried"
        less = self.unit is not None and (self.claim.unit is None or self.unit < self.claim.unit)
        word = "holds" if self.claim.unit is not None else "nothing claimed"
        return f"{word}; more is measured" if less else word

    @property
    def because(self) -> str:
        """The first layer that breaks it, and why."""
        return f"{self.layer}: {self.reason}" if self.layer else ""


@dataclass(frozen=True)
class SizeResult:
    """All kinds of shift along all axes at one size of the image.

    Attributes:
        size: Pixels of each spatial axis.
        measured: By kind of shift and axis.
        note: Why nothing was tried at this size; empty if something was.
    """

    size: tuple[int, ...]
    measured: tuple[Measured, ...]
    note: str = ""

    @property
    def name(self) -> str:
        """The size as it is written, such as `64x64`."""
        return "x".join(map(str, self.size))

    def of(self, kind: str) -> tuple[Measured, ...]:
        """Returns what was measured of one kind of shift, by axis."""
        return tuple(one for one in self.measured if one.kind == kind)

    def rows(self) -> Iterator[tuple[str, str, Measured]]:
        """Yields kind, axes and what was measured, once for axes that do not differ in what is said of them."""
        names = AXES[len(self.size)]
        for kind in KINDS:
            groups: dict[tuple[str, ...], list[Measured]] = {}
            for one in self.of(kind):
                key = (one.claimed, str(one.unit), str(bool(one.tried)), one.outcome, one.because, one.statistics)
                groups.setdefault(key, []).append(one)
            for group in groups.values():
                worst = max(group, key=lambda one: one.error)
                yield KINDS[kind], ", ".join(names[one.axis] for one in group), replace(worst, axis=group[0].axis)


@dataclass(frozen=True)
class Verification:
    """What was claimed and measured at several sizes of the image.

    Attributes:
        sizes: What was found at each size, the given one first.
    """

    sizes: tuple[SizeResult, ...]

    @property
    def holds(self) -> bool:
        """Whether every claim holds."""
        return all(one.holds for size in self.sizes for one in size.measured)

    @property
    def failures(self) -> tuple[str, ...]:
        """A line for each claim that does not hold."""
        return tuple(
            f"{kind} shifts along {axes} on {size.name} images: claimed {one.claimed}, measured: {one} "
            f"({one.because or 'no single layer was found'})"
            for size in self.sizes
            for kind, axes, one in size.rows()
            if not one.holds
        )

    def table(self) -> Table:
        """Returns claims and measurements, for a terminal."""
        from rich import box
        from rich.markup import escape
        from rich.table import Table

        table = Table(
            title="Claims, tried in float64", title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, expand=True
        )
        table.add_column("size", no_wrap=True)
        table.add_column("shifts", overflow="fold", max_width=14)
        table.add_column("claimed", overflow="fold", max_width=12)
        table.add_column("measured, and the first layer that breaks it", overflow="fold", ratio=1)
        table.add_column("claim", overflow="fold", max_width=14)
        for size in self.sizes:
            for number, (kind, axes, one) in enumerate(size.rows()):
                own = " (with the network's own norms and biases)" if one.statistics == "own" else ""
                measured = f"{one}{own}" + (f"\n{one.because}" if one.because else "")
                name = size.name if number == 0 else ""
                table.add_row(name, f"{kind}\n[dim]{axes}[/]", one.claimed, escape(measured), one.outcome)
            if size.note:
                table.add_row(size.name, "", "", escape(size.note), "")
        return table

    def lines(self) -> list[str]:
        """Returns what stands below the table: the shifts that were tried, and the claims that do not hold."""
        said = [f"tried on {size.name} images: {_tried(size)}" for size in self.sizes if size.measured]
        if not any(one.claim.unit for size in self.sizes for one in size.measured):
            return [*said, "the verdict claims nothing at these sizes"]
        if self.holds:
            return [*said, "every claim of the verdict holds"]
        return [*said, *(f"does not hold: {failure}" for failure in self.failures)]

    def print(self) -> None:
        """Prints the table and the lines below it."""
        from rich.console import Console

        console = Console(highlight=False)
        console.print(self.table())
        for line in self.lines():
            console.print(line, markup=False)

    def to_dict(self) -> dict[str, Any]:
        """Returns everything as JSON can hold it."""
        sizes = [
            {
                "size": size.size,
                "note": size.note,
                "measured": [asdict(one) | {"measured": str(one), "outcome": one.outcome} for one in size.measured],
            }
            for size in self.sizes
        ]
        return {"holds": self.holds, "failures": self.failures, "sizes": sizes}

    def __str__(self) -> str:
        from rich.console import Console

        console = Console(width=120, highlight=False, color_system=None, force_jupyter=False)
        with console.capture() as capture:
            console.print(self.table())
        return capture.get() + "\n" + "\n".join(self.lines())


def _tried(size: SizeResult) -> str:
    """Returns the shifts that were tried, by kind, along the first axis for which any were."""
    said = []
    for kind in KINDS:
        shifts = next((one.tried for one in size.of(kind) if one.tried), ())
        if shifts:
            said.append(f"{KINDS[kind]} {_ranges(shifts)}")
    return f"{'; '.join(said)} pixels along each axis" if said else "no shift fits in the image"


def _ranges(shifts: tuple[float, ...]) -> str:
    """Returns numbers as text, runs of three and more as `1-32`."""
    runs: list[list[float]] = []
    for shift in shifts:
        if runs and shift == runs[-1][-1] + 1:
            runs[-1].append(shift)
        else:
            runs.append([shift])
    return ", ".join(f"{run[0]:g}-{run[-1]:g}" if len(run) > 2 else ", ".join(f"{p:g}" for p in run) for run in runs)
