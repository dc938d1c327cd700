"""Tries every claim of a network's verdict numerically: shifts of random images in float64, one axis at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import cached_property
from typing import Any, Literal

import torch
from torch import Tensor, nn

from tinv.errors import TinvError
from tinv.graph.break_reason import Move
from tinv.graph.converted import geometry_of
from tinv.graph.exact_invariance import ExactInvariance, InvariantShifts
from tinv.graph.geometry import total_stride
from tinv.graph.graph_run import GraphRun, Reasons, first_break, output_grids
from tinv.graph.grid import Grid
from tinv.graph.invariance_analyzer import InvarianceAnalyzer
from tinv.graph.moved_maps import fourier_shift, moved_image, moved_maps
from tinv.graph.random_statistics import exact_copy, with_random_statistics
from tinv.graph.verification_result import KINDS, Measured, SizeResult, Verification
from tinv.utils.progress import progress

EXACT = 1e-9
"""Largest relative error in float64 that counts as exact."""
DULL = 1e-4
"""An output that differs less from image to image, as a part of its values, says nothing of its image."""
FRACTIONS = (0.25, 0.5, 1.3)
"""Pixels of the shifts by parts of a pixel that are tried."""


def verify(network: nn.Module, images: Tensor) -> Verification:
    """Tries every claim of a network's verdict on random images in float64, and finds what breaks the rest.

    A copy of the network gets random norms and biases. Where a claim of the network's verdict rests on its own, such as
    on biases of zero, it is tried with those. Images are moved along one axis at a time by every number of pixels up to
    the total stride, and by some more: rolled, and on a canvas of zeros on which their content stays. The output has to
    be unchanged, or, where it has positions, to move along. Two more sizes are tried beside that of the images: odd
    ones, and even ones that 4 does not divide; there, what the verdict at that size claims.

    The error of a shift is the largest |f(shifted) - f(x)| over the largest |f(x) - m|, m the mean of f over two
    images; up to 1e-9 counts as exact.

    Args:
        network: Converted or not; it is left as it is.
        images: One batch (N, C, *spatial), which says the size; the first image is tried beside a random one, unless
            all of its values are the same.

    Returns:
        What was claimed and measured by size, kind of shift and axis, and the first layer that breaks each.

    Raises:
        LayerError: Naming a layer that cannot be traced, or cannot run on a map of its size.
        TinvError: If the output hardly depends on the image, so that nothing can be told.

    Examples:
        >>> network = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2, padding=1, padding_mode="circular"), nn.ReLU())
        >>> network.append(nn.AdaptiveAvgPool2d(1)) and None
        >>> found = verify(network, torch.zeros(1, 3, 16, 16))
        >>> found.holds, [str(axis) for axis in found.sizes[0].of("circular")]
        (True, ['exact for multiples of 2', 'exact for multiples of 2'])
    """
    trials = [_Trial(network, images[:1], size) for size in _sizes(tuple(images.shape[2:]))]
    axes = range(images.dim() - 2)
    jobs = [(trial, kind, axis) for trial in trials for kind in KINDS for axis in axes]
    for trial, kind, axis in progress(jobs, "trying shifts", len(jobs)):
        try:
            trial.measure(kind, axis)
        except TinvError as error:
            if trial is trials[0]:
                raise
            trial.note = f"not tried: {error}"
    return Verification(tuple(trial.result() for trial in trials))


def _sizes(size: tuple[int, ...]) -> list[tuple[int, ...]]:
    """Returns a size, one of odd numbers, and one of even numbers of which 4 does not divide the first."""
    last = len(size) - 1
    odd = tuple((n | 1) + 2 * (axis == last and last > 0) for axis, n in enumerate(size))
    even = tuple(n + (2 - n) % 4 if axis < last or last == 0 else n + n % 2 for axis, n in enumerate(size))
    return list(dict.fromkeys([size, odd, even]))


class _Side:
    """A copy of the network, and what its verdict claims.

    Args:
        network: In float64 and in evaluation.
        example: Images (N, C, *spatial).
    """

    def __init__(self, network: nn.Module, example: Tensor) -> None:
        self.network = network
        self.geometry = geometry_of(network, example)
        with torch.no_grad():
            analyzer = InvarianceAnalyzer(self.geometry, network)
            self.verdict = analyzer.run()
        self.grids = output_grids(self.geometry)
        self.reasons = _reasons(analyzer)

    def claim(self, kind: str, axis: int) -> InvariantShifts:
        return claims(self.verdict, kind)[axis]

    @torch.no_grad()
    def outputs(self, images: Tensor) -> list[Tensor]:
        return [t.double() if not t.is_complex() else t for t in GraphRun(self.geometry, self.network).outputs(images)]


def claims(verdict: ExactInvariance, kind: str) -> tuple[InvariantShifts, ...]:
    """Returns what a verdict claims of a kind of shift, by axis; nothing for a kind that it does not know."""
    found = getattr(verdict, kind, None)
    known = isinstance(found, tuple) and all(isinstance(shifts, InvariantShifts) for shifts in found)
    return found if known and found is not None else ()


def _reasons(analyzer: InvarianceAnalyzer) -> Reasons:
    found: dict[tuple[str, str, int], str] = {}
    for states in analyzer.states.values():
        for state in states if isinstance(states, list) else [states]:
            for (kind, axis), shifts in state.shifts.items() if state is not None else ():
                if shifts.layer:
                    found.setdefault((shifts.layer, kind, axis), shifts.reason)
    return found


class _Trial:
    """All that is tried at one size.

    Args:
        network: The network; it is left as it is.
        image: One image (1, C, *spatial); of another size than `size`, random images are tried alone.
        size: Pixels of each spatial axis.
    """

    def __init__(self, network: nn.Module, image: Tensor, size: tuple[int, ...]) -> None:
        self.network, self.size, self.note = network, size, ""
        # all shifts up to the total stride are tried, or only what the verdict claims
        self.everything = tuple(image.shape[2:]) == size
        example = image if self.everything else image.new_zeros(*image.shape[:2], *size)
        self.images = _images(example.double(), 2)
        self.measured: list[Measured] = []

    @cached_property
    def random(self) -> _Side:
        """The network with random norms and biases."""
        side = _Side(with_random_statistics(self.network), self.images[0])
        self.check_images(side)
        return side

    @cached_property
    def own(self) -> _Side:
        """The network with its own norms and biases."""
        side = _Side(exact_copy(self.network), self.images[0])
        self.check_images(side)
        return side

    def check_images(self, side: _Side) -> None:
        """Raises TinvError for outputs that tell nothing."""
        pairs = list(zip(*(side.outputs(image) for image in self.images), strict=True))
        if not all(bool(a.isfinite().all() and b.isfinite().all()) for a, b in pairs):
            raise TinvError("the output is not finite in float64, so that no claim can be tried")
        if not any(a.numel() and _variation(a, b) > DULL * float(a.abs().max()) for a, b in pairs):
            raise TinvError("the output hardly depends on the image, so that no claim can be tried")

    def result(self) -> SizeResult:
        """Returns what was claimed and measured."""
        return SizeResult(self.size, tuple(self.measured), self.note)

    def measure(self, kind: str, axis: int) -> None:
        """Tries one kind of shift along one axis, unless the verdict knows no such kind, or this size cannot be run."""
        if self.note or not claims(self.own.verdict, kind):
            return
        claim = self.own.claim(kind, axis)
        # a claim that random norms and biases take away rests on those that the network has
        side = self.random if self.random.claim(kind, axis).unit == claim.unit else self.own
        size = self.images[0].shape[2 + axis]
        total = math.lcm(total_stride(side.geometry, axis), claim.unit or 1)
        room = min(total, size // 2)
        shifts = _shifts(kind, size, total, room, claim.unit, self.everything)
        errors = dict.fromkeys(shifts, 0.0)
        images = [_band_limited(image, axis) if kind == "fractional" else image for image in self.images]
        befores = [side.outputs(moved_image(image, kind, axis, 0, room)) for image in images]
        scales = [max(_variation(a, b), DULL * float(a.abs().max())) for a, b in zip(*befores, strict=True)]
        for number, (image, before) in enumerate(zip(images, befores, strict=True)):
            for pixels in shifts if number == 0 else self.again(errors, claim.unit, total):
                after = side.outputs(moved_image(image, kind, axis, pixels, room))
                found = _error(before, after, side.grids, axis, pixels, scales)
                errors[pixels] = max(errors[pixels], found)
        unit = _unit(errors)
        held = claim.unit is None or all(
            errors[p] <= EXACT for p in shifts if kind == "fractional" or not p % claim.unit
        )
        layer, reason = self.blame(side, kind, axis, room, errors, claim.unit, unit)
        error = max((e for p, e in errors.items() if unit is None or p % unit), default=0.0)
        exact = max((e for p, e in errors.items() if unit is not None and not p % unit), default=0.0)
        statistics: Literal["random", "own"] = "random" if side is self.random else "own"
        self.measured.append(
            Measured(kind, axis, claim, unit, error, exact, tuple(shifts), held, layer, reason, statistics)
        )

    def again(self, errors: dict[float, float], claimed: int | None, total: int) -> list[float]:
        """Returns the shifts that a second image is tried at, which tells luck from a rule.

        They are a few of those that are claimed, and all that were exact though nothing was claimed of them.
        """
        few = {1, claimed, total} if self.everything else set()
        more = {p for p, error in errors.items() if error <= EXACT and (claimed is None or p % claimed)}
        return [p for p in errors if p in few or p in more]

    def blame(
        self,
        side: _Side,
        kind: str,
        axis: int,
        room: int,
        errors: dict[float, float],
        claimed: int | None,
        unit: int | None,
    ) -> tuple[str, str]:
        """Returns the first layer that breaks a shift that is not exact, and why.

        The shift is a multiple of what is claimed, if one is not exact; else where nothing is exact the largest, which
        strides divide; else the least.
        """
        failed = [p for p, e in errors.items() if e > EXACT]
        if not failed:
            return "", ""
        broken = [p for p in failed if claimed and not p % claimed]
        whole = [p for p in failed if p == max(errors) or not p % total_stride(side.geometry, axis)]
        pixels = (broken or (whole if unit is None else []) or failed)[0]
        image = _band_limited(self.images[0], axis) if kind == "fractional" else self.images[0]
        before, after = (moved_image(image, kind, axis, p, room) for p in (0, pixels))
        return first_break(side.geometry, side.network, Move(kind, axis, pixels, before, after), side.reasons)


def _images(image: Tensor, count: int) -> list[Tensor]:
    """Returns random images of the size of one, the first of which is that itself unless it is all the same."""
    random = torch.Generator().manual_seed(0)
    made = [torch.randn(image.shape, generator=random, dtype=torch.double).to(image.device) for _ in range(count)]
    return made if float(image.min()) == float(image.max()) else [image, *made[1:]]


def _band_limited(image: Tensor, axis: int) -> Tensor:
    """Returns an image without the Nyquist frequency along an axis, which no shift by parts of a pixel moves."""
    moved = fourier_shift(image, 2 + axis, 0.5)
    return fourier_shift(moved, 2 + axis, -0.5)


def _shifts(kind: str, size: int, total: int, room: int, claimed: int | None, everything: bool) -> list[float]:
    """Returns the shifts that are tried, in pixels."""
    if kind == "fractional":
        return [p for p in (*FRACTIONS, total / 2 + 0.5) if p < size]
    unit = claimed or total
    wanted = {unit, 2 * unit, 3 * unit, total, size // 2 // unit * unit}
    wanted |= set(range(1, total + 1)) if everything else {1}
    most = room if kind == "zero_canvas" else size - 1
    return sorted(p for p in wanted if 1 <= p <= most)


def _unit(errors: dict[float, float]) -> int | None:
    """Returns the least number of pixels whose multiples are all exact, of those that were tried; None for none."""
    for unit in sorted(errors):
        if unit != int(unit):
            return 1 if max(errors.values()) <= EXACT else None
        if all(error <= EXACT for pixels, error in errors.items() if not pixels % unit):
            return int(unit)
    return None


def _variation(first: Tensor, second: Tensor) -> float:
    """Returns the largest distance of two outputs from their mean."""
    return float((first - second).abs().max()) / 2 if first.numel() else 0.0


def _error(
    before: Sequence[Tensor],
    after: Sequence[Tensor],
    grids: Sequence[Grid],
    axis: int,
    pixels: float,
    scales: Sequence[float],
) -> float:
    """Returns the largest relative change of all tensors of an output, each moved along where it has positions."""
    changes = []
    everywhere: Any = grids if len(grids) == len(before) else [None] * len(before)
    for old, new, grid, scale in zip(before, after, everywhere, scales, strict=True):
        moved = old if grid is None else next(moved_maps(old, grid, axis, pixels), old)
        changes.append(float((new - moved).abs().max()) / (scale or 1.0))
    return max(changes, default=0.0)
