"""Attribution by conversion: the same weights, with one part of the network after the other made exact.

It asks another question than attribution by real context (`tinv.evaluation.context_attribution`), which leaves the
weights what they were trained for: how these weights do in a network that is exact.

Weights were trained without these changes, so that a conversion may damage a network beside making a part of it exact.
Each condition's accuracy is therefore measured on the same images, and a share is marked where accuracy fell by more
than `MARKED_FROM` points: there it says little of the part.
"""

from __future__ import annotations

import copy
import math
import warnings
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from tinv.errors import TinvError
from tinv.metrics import ShiftConsistency
from tinv.metrics.answers import undefined_unless_finite
from tinv.policies.cards import Padding
from tinv.policies.conversion import ConversionPolicy, PoolPolicy
from tinv.surgery.convert import convert
from tinv.translation import WINDOWS, ShiftMode

EXACT_PADDING: dict[ShiftMode, tuple[Padding, PoolPolicy]] = {
    "circular": ("same_circular", "keep"),
    "fractional": ("same_circular", "keep"),
    "zero": ("full_background", "full"),
    "mean": ("full_zero", "full"),
    "crop": ("full_zero", "full"),
    "camera": ("full_zero", "full"),
}
"""What makes borders harmless under each mode. Nothing does it wholly where content comes in (crop, camera), or where
the border has the colour of each image (mean)."""
MARKED_FROM = 5.0
"""Percentage points of accuracy that a conversion may cost before its share is marked."""


@dataclass
class Variant:
    """The network with some of its parts made exact.

    Attributes:
        name: What was made exact.
        network: None if it could not be made so.
        refusal: Why not.
        consistency: Its measure.
        partial: Layers that could not be made exact.
        right: Images that were classified correctly where they are.
        labelled: Images that have a label.
    """

    name: str
    network: nn.Module | None
    refusal: str
    consistency: ShiftConsistency
    partial: tuple[str, ...] = ()
    right: float = 0
    labelled: int = 0

    @property
    def accuracy(self) -> float | None:
        """Of unshifted images, in percent; None without labels, and where answers are not finite."""
        if not self.labelled or self.network is None or math.isnan(self.right):
            return None
        return 100 * self.right / self.labelled

    def count(self, logits: Tensor, targets: Tensor) -> None:
        """Counts the images that are classified correctly; `targets` below 0 are no labels."""
        known = targets >= 0
        self.right += float(undefined_unless_finite(logits.argmax(1) == targets, logits)[known].sum())
        self.labelled += int(known.sum())

    @property
    def percent(self) -> float | None:
        """Of consistent pairs; None without network, and where answers are not finite."""
        if self.network is None:
            return None
        found = float(self.consistency.compute()[self.consistency.name])
        return None if math.isnan(found) else found


def variants(
    network: nn.Module, example: Tensor, mode: ShiftMode, consistency: ShiftConsistency, partial: bool = False
) -> list[Variant]:
    """Returns the network unconverted, with exact padding, with exact subsampling, and with both.

    Args:
        network: Not converted.
        example: Images (N, C, H, W) as the network sees them.
        mode: Mode of the views.
        consistency: Measure to take, not yet updated.
        partial: Whether layers that cannot be made exact are left.
    """
    padding, pool = EXACT_PADDING[mode]
    exact = {
        f"padding {padding}": ConversionPolicy(padding, pool=pool, partial=partial),
        "subsampling aps": ConversionPolicy(subsampling="aps", stem="convert", partial=partial),
        "both": ConversionPolicy(padding, "aps", pool, "convert", partial=partial),
    }
    found = [Variant("unconverted", network, "", copy.deepcopy(consistency))]
    for name, policy in exact.items():
        made, refusal = None, ""
        try:
            with warnings.catch_warnings():
                # a network without strides has nothing to subsample
                warnings.filterwarnings("ignore", message=".*changed nothing.*")
                if name != "both":
                    # one part alone is not meant to be exact
                    warnings.filterwarnings("ignore", message=".*follows no shift exactly.*")
                made = convert(network, policy=policy, example_input=example).eval()
        except TinvError as error:
            refusal = str(error)
        left = tuple(note.layer for note in getattr(getattr(made, "conversion", None), "partial", []))
        found.append(Variant(name, made, refusal, copy.deepcopy(consistency), left))
    return found


def is_marked(variant: Variant, unconverted: Variant) -> bool:
    """Returns whether a condition lost so much accuracy that its share says little."""
    before, after = unconverted.accuracy, variant.accuracy
    return before is not None and after is not None and before - after > MARKED_FROM


def share(variant: Variant, unconverted: Variant) -> float | None:
    """Returns the percentage of the inconsistent pairs that disappear; below 0 where there are more."""
    before, after = unconverted.percent, variant.percent
    return None if before is None or after is None or before == 100 else 100 * (after - before) / (100 - before)


def by_conversion(measured: list[Variant], mode: ShiftMode) -> dict[str, Any]:
    """Returns consistency, accuracy and share of each condition, as JSON can hold it, and what they say."""
    return {
        "consistency": {part.name: part.percent for part in measured},
        "accuracy": {part.name: part.accuracy for part in measured},
        "share": {part.name: share(part, measured[0]) for part in measured[1:]},
        "accuracy_fell": [part.name for part in measured[1:] if is_marked(part, measured[0])],
        "partial": {part.name: part.partial for part in measured if part.partial},
        "refused": {part.name: part.refusal for part in measured if part.network is None},
        "explanation": explanation(measured, mode),
    }


def explanation(measured: list[Variant], mode: ShiftMode) -> list[str]:
    """Returns, in sentences, which part of the inconsistent pairs disappears with which part made exact."""
    unconverted, both = measured[0], measured[-1]
    if unconverted.percent is None:
        return ["The network's answers are not finite: there is nothing to attribute."]
    if unconverted.percent == 100:
        return ["No pair of views got two answers: there is nothing to attribute."]
    known = unconverted.accuracy is not None
    accuracy = f"; accuracy {unconverted.accuracy:.1f}%" if known else ""
    lines = [f"{100 - unconverted.percent:.1f}% of the pairs get two answers{accuracy}."]
    lines += [_sentence(variant, unconverted) for variant in measured[1:]]
    if both.percent is not None:
        left = 100 - both.percent
        cause = "the content that comes in and the head" if mode in WINDOWS else "the head"
        if is_marked(both, unconverted):
            lines.append(f"Left with both, {left:.1f}%, cannot be attributed, as the conversion itself cost accuracy.")
        else:
            lines.append(f"Left with both, {left:.1f}%, is due to {cause}." if left else "With both, nothing is left.")
    if any(is_marked(variant, unconverted) for variant in measured):
        lines.append(
            f"(*) Accuracy fell by more than {MARKED_FROM:.0f} points: the conversion damages these weights, and the "
            "share says little of the part."
        )
    if not known:
        lines.append("Without labels accuracy is not known, so that damage by the conversion itself cannot be seen.")
    lines.append("The weights were trained without these changes: shares say what breaks the invariance, not how a "
                 "network trained so would do.")  # fmt: skip
    return lines


def _sentence(variant: Variant, unconverted: Variant) -> str:
    if variant.network is None:
        return f"With {variant.name}: the network cannot be converted ({variant.refusal})."
    if variant.percent is None:
        return f"With {variant.name}: the network's answers are not finite."
    part = share(variant, unconverted)
    assert part is not None
    fewer = f"{part:.0f}% of them disappear" if part >= 0 else f"{-part:.0f}% more of them"
    mark = " (*)" if is_marked(variant, unconverted) else ""
    accuracy = f"; accuracy {variant.accuracy:.1f}%{mark}" if variant.accuracy is not None else ""
    left = f"; partial, without {', '.join(variant.partial[:3])}" if variant.partial else ""
    return f"With {variant.name}: {100 - variant.percent:.1f}%; {fewer}{accuracy}{left}."
