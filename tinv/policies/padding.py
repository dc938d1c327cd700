"""Padding policies: how many pixels a layer with a window adds at the border of its input, and what they hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, cast, get_args

from tinv.deprecation import moved
from tinv.errors import TinvError, unknown
from tinv.nn.pad_widths import PaddingMode, window_widths
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
            spatial axis and returns the padded batch.

    Raises:
        TinvError: For an unknown amount or mode.

    Examples:
        >>> PaddingPolicy("full", "background").name
        'full_background'
        >>> PaddingPolicy("same", "circular").widths(kernel_size=[3, 5], dilation=[1, 1])
        ((1, 1), (2, 2))
    """

    def __init__(self, amount: Amount = "keep", mode: str = "zeros") -> None:
        self.amount, self.mode = amount, mode
        if self.amount not in get_args(Amount):
            raise unknown("amount of padding", self.amount, get_args(Amount))
        if self.mode not in get_args(PaddingMode) and "." not in self.mode:
            raise unknown("padding mode", self.mode, get_args(PaddingMode))

    @property
    def name(self) -> str:
        """The word for it in configurations and tables, such as `same_circular`."""
        if self.amount in ("keep", "valid"):
            return self.amount
        return f"{self.amount}_{'zero' if self.mode == 'zeros' else self.mode.rpartition('.')[2]}"

    @property
    def card(self) -> Card:
        """What a user must know of it."""
        known = PADDING_CARDS.get(cast(Padding, self.name))
        return known or Card(f"{self.amount} padding by {self.mode}", "-", "not known", "not known")

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
        given: A name of `tinv list padding`, the dotted path of a class, a mapping as in a configuration, or a policy.

    Raises:
        TinvError: For an unknown name or class.
    """
    if isinstance(given, str) and given in PADDINGS:
        amount, _, mode = given.partition("_")
        return PaddingPolicy(cast(Amount, amount), "zeros" if mode in ("", "zero") else mode)
    return made_of(given, PaddingPolicy, "padding", PADDINGS)


_OLD = dict.fromkeys(("padding_amounts", "check_padding"), "tinv.policies.deprecated")
__getattr__ = moved(__name__, {**_OLD, "*": "tinv.nn.padding"})
