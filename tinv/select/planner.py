"""How many positions of a crop are needed so that images keep their crop under small shifts, and what they give."""

from __future__ import annotations

import math
from typing import Literal

from tinv.errors import TinvError
from tinv.utils.arguments import PositiveInt, checked


@checked
def expected_consistency(
    positions: PositiveInt, max_shift: PositiveInt = 1, axes: Literal[1, 2] = 1, every: bool = False
) -> float:
    r"""Returns the expected share of images that keep the crop of `CropSelect` when they move.

    An image keeps its crop if the maximum over all positions that are seen before or after the move lies where both
    see it. With a maximum that is spread uniformly, K positions along an axis and a move by d pixels that is

    $$\frac{K - d}{K + d}, \qquad \frac{(K - d)^2}{2 K^2 - (K - d)^2}, \qquad \left(\frac{K - 2d}{K + 2d}\right)^a$$

    along one axis; along both at once, where two squares overlap; and for every move of up to d pixels in both
    directions along a axes, which all see the inner K - 2d and together the outer K + 2d.

    It is an expectation under that assumption. The scores of neighbouring pixels are alike, so that without `suppress`
    the largest score of the range often lies at its border, where it rises further outside, and fewer images keep
    their crop. `suppress` takes those out. What is left of the assumption is the photographer, who puts fine detail in
    the middle or elsewhere. The certificate of `CropSelect` says it of each image.

    Args:
        positions: Positions of the crop along each axis: size of the window less size of the crop, plus 1.
        max_shift: Pixels of the move.
        axes: 1 moves along one axis, 2 along both by the same number of pixels.
        every: Whether the crop has to stay under every move of up to max_shift pixels, in both directions.

    Returns:
        Percent, 0 to 100.

    Examples:
        >>> round(expected_consistency(54), 1)
        96.4
    """
    k, d = positions, max_shift
    if every:
        return 100 * (max(0, k - 2 * d) / (k + 2 * d)) ** axes
    both = max(0, k - d)
    return 100 * (both / (k + d) if axes == 1 else both**2 / (2 * k**2 - both**2))


@checked
def range_for(consistency: float, max_shift: PositiveInt = 1, axes: Literal[1, 2] = 1, every: bool = False) -> int:
    """Returns how many positions along each axis a crop needs so that a share of images keeps it when they move.

    A window has to be as many pixels larger than the crop, less one. See `expected_consistency` for what is assumed.

    Args:
        consistency: Percent of images that are to keep their crop, more than 1 and less than 100.
        max_shift: Pixels of the move.
        axes: 1 moves along one axis, 2 along both by the same number of pixels.
        every: Whether the crop has to stay under every move of up to max_shift pixels, in both directions.

    Returns:
        The smallest number of positions that is expected to give it.

    Raises:
        TinvError: For a share that no range gives, or that looks like a fraction.

    Examples:
        >>> range_for(95)
        39
        >>> range_for(95, max_shift=2, axes=2)
        155
    """
    if not 1 < consistency < 100:
        raise TinvError(f"consistency must be a percentage of more than 1 and less than 100, not {consistency}")
    share, d = consistency / 100, max_shift
    found: float
    if every:
        root = float(share ** (1 / axes))
        found = 2 * d * (1 + root) / (1 - root)
    elif axes == 1:
        found = d * (1 + share) / (1 - share)
    else:
        found = d / (1 - math.sqrt(2 * share / (1 + share)))
    positions: int = max(1, math.floor(found) - 1)  # one too few, and up: rounding may put the root on either side
    while expected_consistency(positions, max_shift, axes, every) < consistency:
        positions += 1
    return positions
