"""Padding policies: how many pixels a layer with a window adds at the border of its input, and what they hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast, get_args

from tinv.deprecation import moved
from tinv.errors import TinvError, unknown
from tinv.nn.pad_widths import PaddingMode, joined_modes, window_widths
from tinv.policies.base import Policy, made_of
from tinv.policies.cards import PADDING_CARDS, PADDINGS, Card, Padding

Amount = Literal["keep", "valid", "same", "full"]


class PaddingPolicy(Policy):
    """How many pixels are added on each side, and what they hold (Kayhan & van Gemert, CVPR 2020, "Convolution types").

    Args:
        amount: `keep` leaves each layer its own padding. Of a kernel of size k and dilation d, `valid` adds nothing,
            `same` d(k-1) pixels in all, half a side (of an odd total the extra pixel goes right), and `full` d(k-1)
            a side.
        mode: What the new pixels hold: one of torch's words, `background`, or the dotted path of a function
            `pad(images, widths)` of your own, which takes a batch (N, C, *spatial) and a pair of widths for every
            spatial axis and returns the padded batch. Or one word for each axis that is treated, first axis first: any
            of `zeros`, `circular`, `reflect`, `replicate`, `symmetric` and `background`.

    Raises:
        TinvError: For an unknown amount or mode, and one that cannot stand beside others.

    Examples:
        >>> PaddingPolicy("full", "background").name
        'full_background'
        >>> PaddingPolicy("same", "circular").widths(kernel_size=[3, 5], dilation=[1, 1])
        ((1, 1), (2, 2))
        >>> PaddingPolicy("same", ("reflect", "circular")).name
        'same_reflect+circular'
    """

    def __init__(self, amount: Amount = "keep", mode: str | Sequence[str] = "zeros") -> None:
        if amount not in get_args(Amount):
            raise unknown("amount of padding", amount, get_args(Amount))
        self.amount = amount
        self.mode: str | tuple[str, ...] = mode if isinstance(mode, str) else tuple(mode)
        if not isinstance(self.mode, str) or "+" in self.mode:
            self.mode = tuple(joined_modes(self.mode).split("+"))
        elif self.mode not in get_args(PaddingMode) and "." not in self.mode:
            raise unknown("padding mode", self.mode, get_args(PaddingMode))

    @property
    def name(self) -> str:
        """The word for it in configurations and tables, such as `same_circular`."""
        if self.amount in ("keep", "valid"):
            return self.amount
        mode = self.mode
        if not isinstance(mode, str):
            width = self.amount == "same" and mode == (*("zeros",) * (len(mode) - 1), "circular") and len(mode) > 1
            mode = "circular_width" if width else mode[0] if len(set(mode)) == 1 else "+".join(mode)
        return f"{self.amount}_{'zero' if mode == 'zeros' else mode.rpartition('.')[2]}"

    @property
    def card(self) -> Card:
        """What a user must know of it."""
        known = PADDING_CARDS.get(cast(Padding, self.name))
        if known is None and not isinstance(self.mode, str):
            return self._mixed_card()
        return known or Card(f"{self.amount} padding by {self.mode}", "-", "not known", "not known")

    def _mixed_card(self) -> Card:
        amounts = {"same": "d(k-1)/2 a side", "full": "d(k-1) a side"}
        exact = "never"
        if self.amount == "same" and "circular" in self.mode:
            exact = (
                "circular shifts along the axes that are wrapped around, by multiples of the total stride, on sizes "
                "divisible by it"
            )
        if self.amount == "full" and "background" in self.mode and "zeros" not in self.mode:
            exact = (
                "shifts on a zero canvas along the axes of background, by multiples of the total stride, with pool=full"
            )
        what = (
            f"{amounts.get(self.amount, self.amount)}, a mode for each axis, first axis first: {', '.join(self.mode)}"
        )
        return Card(what, "-", exact, "one copy per layer and mode")

    def layer_mode(self, treated: Sequence[int], axes: int) -> str:
        """Returns the padding mode of layers that slide over all spatial axes of a network.

        Args:
            treated: Axes that the policy treats; the others get zeros where there is a mode for each axis.
            axes: Spatial axes of the network.

        Raises:
            TinvError: If there is a mode for each axis, and not as many as are treated.
        """
        if isinstance(self.mode, str):
            return self.mode
        if len(self.mode) != len(treated):
            every = {1: ("length",), 2: ("height", "width"), 3: ("time", "height", "width")}[axes]
            names = ", ".join(every[axis] for axis in treated)
            count = "1 axis" if len(treated) == 1 else f"{len(treated)} axes"
            hint = "; axes=space+time treats time too" if 1 < len(treated) < axes else ""
            raise TinvError(
                f"padding {'+'.join(self.mode)} has {len(self.mode)} modes, but the policies treat {count} of this "
                f"network ({names}); name one mode for each{hint}"
            )
        modes = dict(zip(treated, self.mode, strict=True))
        return "+".join(modes.get(axis, "zeros") for axis in range(axes))

    @property
    def resizes(self) -> bool:
        """Whether maps come out at other sizes than under the padding of most networks."""
        return self.amount in ("valid", "full")

    def widths(self, kernel_size: Sequence[int], dilation: Sequence[int]) -> tuple[tuple[int, int], ...]:
        """Returns the pixels to add (left, right) on each spatial axis; the stride plays no part.

        Args:
            kernel_size: K of each axis.
            dilation: D of each axis.

        Raises:
            TinvError: For `keep`, which stands for whatever the layer had.
        """
        if self.amount == "keep":
            raise TinvError(f"padding 'keep' has no widths of its own; name one of {', '.join(PADDINGS[1:])}")
        return window_widths(self.amount, kernel_size, dilation)


def padding_policy(given: str | PaddingPolicy | Mapping[str, Any]) -> PaddingPolicy:
    """Returns a padding policy from its name, itself, or a `class_path` with `init_args`.

    Args:
        given: A name of `tinv list padding`, one with a mode for each axis such as `same_circular+zeros`, the dotted
            path of a class, a mapping as in a configuration, or a policy.

    Raises:
        TinvError: For an unknown name or class.
    """
    if isinstance(given, str) and "+" in given and "." not in given:
        amount, _, mode = given.partition("_")
        return PaddingPolicy(cast(Amount, amount), tuple(mode.split("+")))
    if isinstance(given, str) and given in PADDINGS:
        amount, _, mode = given.partition("_")
        return PaddingPolicy(cast(Amount, amount), "zeros" if mode in ("", "zero") else mode)
    return made_of(given, PaddingPolicy, "padding", PADDINGS)


_OLD = dict.fromkeys(("padding_amounts", "check_padding"), "tinv.policies.deprecated")
__getattr__ = moved(__name__, {**_OLD, "*": "tinv.nn.padding"})
