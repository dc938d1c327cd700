"""Which part of a network breaks its invariance: the same weights, with one part after the other made exact."""

from __future__ import annotations

import copy
import warnings
from dataclasses import dataclass

from torch import Tensor, nn

from tinv.errors import TinvError
from tinv.metrics import ShiftConsistency
from tinv.metrics.views import Motion
from tinv.policies.cards import Padding
from tinv.policies.convert import PoolPolicy, Settings, convert

EXACT_PADDING: dict[Motion, tuple[Padding, PoolPolicy]] = {
    "circular": ("same_circular", "keep"),
    "zero": ("full_background", "full"),
    "crop": ("full_zero", "full"),
}
"""What makes borders harmless under each motion; for crops, where content comes in, nothing does it wholly."""


@dataclass
class Variant:
    """The network with some of its parts made exact.

    Attributes:
        name: what was made exact.
        network: None if it could not be made so.
        refusal: why not.
        consistency: its measure.
    """

    name: str
    network: nn.Module | None
    refusal: str
    consistency: ShiftConsistency

    @property
    def percent(self) -> float | None:
        """Of consistent pairs."""
        if self.network is None:
            return None
        return float(self.consistency.compute()[self.consistency.name])


def variants(network: nn.Module, example: Tensor, motion: Motion, consistency: ShiftConsistency) -> list[Variant]:
    """Returns the network unconverted, with exact padding, with exact subsampling, and with both.

    Args:
        network: not converted.
        example: images (N, C, H, W) as the network sees them.
        motion: of the views.
        consistency: measure to take, not yet updated.
    """
    padding, pool = EXACT_PADDING[motion]
    exact_padding, exact_subsampling = Settings(padding, pool=pool), Settings(subsampling="aps", stem="convert")
    both = Settings(padding, "aps", pool, "convert")
    found = [Variant("unconverted", network, "", copy.deepcopy(consistency))]
    for name, wanted in (
        (f"padding {padding}", exact_padding),
        ("subsampling aps", exact_subsampling),
        ("both", both),
    ):
        made, refusal = None, ""
        try:
            with warnings.catch_warnings():
                # a network without strides has nothing to subsample
                warnings.filterwarnings("ignore", message=".*changed nothing.*")
                made = convert(
                    network,
                    wanted.padding,
                    wanted.subsampling,
                    pool=wanted.pool,
                    stem=wanted.stem,
                    example_input=example,
                ).eval()
        except TinvError as error:
            refusal = str(error)
        found.append(Variant(name, made, refusal, copy.deepcopy(consistency)))
    return found


def explanation(measured: list[Variant], motion: Motion) -> list[str]:
    """Returns, in sentences, which part of the inconsistent pairs disappears with which part made exact."""
    percents = [variant.percent for variant in measured]
    if percents[0] is None or percents[0] == 100:
        return ["No pair of views got two answers: there is nothing to attribute."]
    lost = 100 - percents[0]
    lines = [f"{lost:.1f}% of the pairs get two answers."]
    for variant, percent in list(zip(measured, percents, strict=True))[1:]:
        if percent is None:
            lines.append(f"With {variant.name}: the network cannot be converted ({variant.refusal}).")
        else:
            share = 100 * (percent - percents[0]) / lost
            fewer = f"{share:.0f}% of them disappear" if share >= 0 else f"{-share:.0f}% more of them"
            lines.append(f"With {variant.name}: {100 - percent:.1f}%; {fewer}.")
    if percents[-1] is not None:
        left = 100 - percents[-1]
        cause = "the content that comes in and the head" if motion == "crop" else "the head"
        lines.append(f"Left with both, {left:.1f}%, is due to {cause}." if left else "With both, nothing is left.")
    lines.append("The weights were trained without these changes: shares say what breaks the invariance, not how a "
                 "network trained so would do.")  # fmt: skip
    return lines
