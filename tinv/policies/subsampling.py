"""Subsampling policies: what carries the strides of a network."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

from tinv.deprecation import RenamedWarning, moved
from tinv.errors import TinvError
from tinv.policies.base import Policy, made_of
from tinv.policies.cards import SUBSAMPLING_CARDS, SUBSAMPLINGS, Card, Subsampling, adaptive_card
from tinv.policies.padding import PaddingPolicy

if TYPE_CHECKING:
    from torch import nn


class SubsamplingPolicy(Policy, ABC):
    """Base of subsampling policies; your own subclass works wherever a name does.

    A strided convolution or pool gets stride 1, and `layer` gives the module that takes over its stride.

    Attributes:
        card: What it does, its source, for which shifts it is exact, and what it costs.
        treats_strides: Whether strides are taken out of the layers that have them.
        dilates: Whether later layers are dilated instead, so that no layer carries the stride.
        allow_inexact: Of policies that choose a polyphase component: whether sizes that a stride does not divide are
            refused (False), warned of (None) or taken without a word (True).
    """

    card: Card = Card("a policy of your own", "-", "not known", "not known")
    treats_strides: ClassVar[bool] = True
    dilates: ClassVar[bool] = False
    allow_inexact: bool | None = None

    @abstractmethod
    def layer(self, stride: tuple[int, ...], channels: int, padding: PaddingPolicy) -> nn.Module | None:
        """Returns the module that carries a stride; None where none is needed.

        Args:
            stride: Pixels of each spatial axis, 1 on those that keep their resolution.
            channels: Channels C of the map.
            padding: Padding of filters that the module applies.

        Returns:
            A module (N, C, *spatial) -> (N, C, *spatial'), best a `tinv.nn.Subsampler`, which says for geometry and
            verdict what it sees and which shifts it follows.
        """

    def in_place_of_blur(
        self, size: Sequence[int], stride: tuple[int, ...], channels: int, padding: PaddingPolicy
    ) -> nn.Module | None:
        """Returns what stands for a blur that the network has already; None leaves it.

        Args:
            size: Pixels of the filter on each spatial axis.
            stride: Pixels of each spatial axis.
            channels: Channels C of the map.
            padding: Padding of the filter.

        Raises:
            TinvError: If the policy needs a network without blurs.
        """
        return None


class _Named(SubsamplingPolicy):
    """One that has a word and a card in `cards.py`."""

    @property
    def card(self) -> Card:  # type: ignore[override]
        """What a user must know of it."""
        return SUBSAMPLING_CARDS[cast(Subsampling, self.name)]


class KeepStrides(_Named):
    """Leaves strides as they are."""

    name = "keep"
    treats_strides = False

    def layer(self, stride: tuple[int, ...], channels: int, padding: PaddingPolicy) -> None:
        """Returns None."""


class Dilated(_Named):
    """Takes strides out and dilates all later layers, so that their weights see the same distances."""

    name = "dilated"
    dilates = True

    def layer(self, stride: tuple[int, ...], channels: int, padding: PaddingPolicy) -> None:
        """Returns None."""

    def in_place_of_blur(
        self, size: Sequence[int], stride: tuple[int, ...], channels: int, padding: PaddingPolicy
    ) -> None:
        """Raises TinvError: a blur without its stride has no purpose."""
        raise TinvError("it blurs already; subsampling=dilated needs the network without blur")


class Blur(_Named):
    """A binomial filter, then the stride (Zhang, ICML 2019).

    Args:
        size: Pixels of the filter, 1 to 7; 1 is plain sampling.
    """

    def __init__(self, size: Literal[1, 2, 3, 4, 5, 6, 7] = 3) -> None:
        if size not in range(1, 8):
            raise TinvError(f"blur filter size must be 1 to 7, not {size}")
        self.size = size

    @property
    def name(self) -> str:
        """`blur3` for a filter of 3 pixels."""
        return f"blur{self.size}"

    def layer(self, stride: tuple[int, ...], channels: int, padding: PaddingPolicy) -> nn.Module:
        """Returns a `BlurPool`; an axis that keeps its resolution is not blurred."""
        from tinv.nn.subsampling import BlurPool

        return BlurPool(_sizes(self.size, stride), stride, padding.mode, padding.amount == "full")


class APS(_Named):
    """Of all ways to take every s-th pixel the one of largest norm (Chaman & Dokmanic, CVPR 2021).

    All branches of one resolution follow one choice.

    Args:
        blur: Pixels of a binomial filter before the choice, 1 (none), 3 or 5.
        norm: Norm that is compared, 1, 2 or "inf". Largest magnitudes often tie, see `AdaptivePolyphaseSampling`.
        allow_inexact: What `convert` does at sizes that a stride does not divide, where nothing is exact: False
            refuses them, None warns, True takes them without a word.

    Raises:
        TinvError: For another filter or norm.
    """

    def __init__(
        self, blur: Literal[1, 3, 5] = 1, norm: Literal[1, 2, "inf"] = 2, allow_inexact: bool | None = None
    ) -> None:
        if blur not in (1, 3, 5):
            raise TinvError(f"the blur of adaptive subsampling is 1, 3 or 5 pixels, not {blur}")
        if norm not in (1, 2, "inf"):
            raise TinvError(f"the norm of adaptive subsampling is 1, 2 or inf, not {norm}")
        self.blur, self.norm, self.allow_inexact = blur, norm, allow_inexact

    @property
    def name(self) -> str:
        """`aps`; `aps_blur3` with a filter of 3 pixels; `aps_l1` and `aps_linf` with those norms."""
        norm = "" if self.norm == 2 else f"_l{self.norm}"
        return ("aps" if self.blur == 1 else f"aps_blur{self.blur}") + norm

    @property
    def card(self) -> Card:  # type: ignore[override]
        """What a user must know of it."""
        return adaptive_card(self.blur, self.norm)

    def layer(self, stride: tuple[int, ...], channels: int, padding: PaddingPolicy) -> nn.Module:
        """Returns an `AdaptivePolyphaseSampling`."""
        return self._sampling(stride, _sizes(self.blur, stride), padding)

    def in_place_of_blur(
        self, size: Sequence[int], stride: tuple[int, ...], channels: int, padding: PaddingPolicy
    ) -> nn.Module:
        """Returns an `AdaptivePolyphaseSampling` with the larger of the two filters."""
        return self._sampling(list(stride), max(size[0], self.blur), padding)

    def _sampling(self, stride: Sequence[int], blur: int | Sequence[int], padding: PaddingPolicy) -> nn.Module:
        from tinv.nn.subsampling import AdaptivePolyphaseSampling

        return AdaptivePolyphaseSampling(stride, blur, padding.mode, padding.amount == "full", self.norm)


class LPS(_Named):
    """Of all ways to take every s-th pixel the one of largest learned logit (Rojas-Gomez et al., NeurIPS 2022).

    All branches of one resolution follow one choice, made with the weights of the first of them.

    Args:
        blur: Pixels of a binomial filter before the choice, 1 (none) to 7.
        hidden: Channels between the two convolutions of the logits; None takes those of the map.
        temperature: Temperature of the choice in training, at its start and at its end.
        allow_inexact: What `convert` does at sizes that a stride does not divide, where nothing is exact: False
            refuses them, None warns, True takes them without a word.
    """

    def __init__(
        self,
        blur: int = 1,
        hidden: int | None = None,
        temperature: tuple[float, float] = (1.0, 0.1),
        allow_inexact: bool | None = None,
    ) -> None:
        # a configuration gives a list
        self.blur, self.hidden, self.temperature = blur, hidden, tuple(temperature)
        self.allow_inexact = allow_inexact

    @property
    def name(self) -> str:
        """`lps`; `lps_blur3` with a filter of 3 pixels."""
        return "lps" if self.blur == 1 else f"lps_blur{self.blur}"

    @property
    def card(self) -> Card:  # type: ignore[override]
        """What a user must know of it."""
        return SUBSAMPLING_CARDS["lps"]

    def layer(self, stride: tuple[int, ...], channels: int, padding: PaddingPolicy) -> nn.Module:
        """Returns a `LearnedPolyphaseSampling`."""
        return self._sampling(stride, _sizes(self.blur, stride), channels, padding)

    def in_place_of_blur(
        self, size: Sequence[int], stride: tuple[int, ...], channels: int, padding: PaddingPolicy
    ) -> nn.Module:
        """Returns a `LearnedPolyphaseSampling` with the larger of the two filters."""
        return self._sampling(stride, [max(s, self.blur) for s in size], channels, padding)

    def _sampling(self, stride: Sequence[int], blur: Sequence[int], channels: int, padding: PaddingPolicy) -> nn.Module:
        from tinv.nn.learned_subsampling import LearnedPolyphaseSampling

        full, temperature = padding.amount == "full", cast(tuple[float, float], self.temperature)
        return LearnedPolyphaseSampling(channels, stride, self.hidden, temperature, blur, padding.mode, full)


class TIPS(_Named):
    """A learned mixture of the ways to take every s-th pixel, for each channel (Saha & Gokhale, WACV 2025).

    Args:
        undo_weight: Weight of the loss of undoing a shift.
        undo_from: Share of the training, 0 to 1, after which that loss is added.
        mix_weight: Weight of the loss of equal weights.
        max_shift: Largest shift that is undone, in pixels.
    """

    name = "tips"

    def __init__(
        self, undo_weight: float = 0.35, undo_from: float = 0.4, mix_weight: float = 0.35, max_shift: int = 2
    ) -> None:
        self.undo_weight, self.undo_from, self.mix_weight = undo_weight, undo_from, mix_weight
        self.max_shift = max_shift

    def layer(self, stride: tuple[int, ...], channels: int, padding: PaddingPolicy) -> nn.Module:
        """Returns a `TIPSPooling`."""
        from tinv.nn.learned_subsampling import TIPSPooling

        return TIPSPooling(channels, stride, padding.mode, **vars(self))


class AdaptiveBlur(_Named):
    """A filter of its own for each position and group of channels, then the stride (Zou et al., BMVC 2020).

    Args:
        size: Pixels of the filter, 2 or more.
        groups: Groups of channels with a filter each; None takes the largest divisor of the channels up to 8.
    """

    name = "adaptive_blur"

    def __init__(self, size: int = 3, groups: int | None = None) -> None:
        self.size, self.groups = size, groups

    def layer(self, stride: tuple[int, ...], channels: int, padding: PaddingPolicy) -> nn.Module:
        """Returns an `AdaptiveBlurPool`; an axis that keeps its resolution is not blurred."""
        from tinv.nn.learned_subsampling import AdaptiveBlurPool

        return AdaptiveBlurPool(channels, stride, self.size, self.groups, padding.mode, padding.amount == "full")


class Ideal(_Named):
    """An ideal low-pass filter, then the stride (Michaeli et al., CVPR 2023)."""

    name = "ideal"

    def layer(self, stride: tuple[int, ...], channels: int, padding: PaddingPolicy) -> nn.Module:
        """Returns an `IdealSubsampling`; an axis that keeps its resolution is left as it is."""
        from tinv.nn.frequency import IdealSubsampling

        return IdealSubsampling(stride)


class FLC(_Named):
    """A crop of the centred spectrum (FrequencyLowCut pooling; Grabinski et al., ECCV 2022)."""

    name = "flc"

    def layer(self, stride: tuple[int, ...], channels: int, padding: PaddingPolicy) -> nn.Module:
        """Returns an `FLCPooling`; an axis that keeps its resolution is left as it is."""
        from tinv.nn.frequency import FLCPooling

        return FLCPooling(stride)


class ASAP(_Named):
    """A crop of the centred spectrum under a Hamming window (Grabinski et al., arXiv 2307.09804)."""

    name = "asap"

    def layer(self, stride: tuple[int, ...], channels: int, padding: PaddingPolicy) -> nn.Module:
        """Returns an `ASAPPooling`; an axis that keeps its resolution is left as it is."""
        from tinv.nn.frequency import ASAPPooling

        return ASAPPooling(stride)


def _sizes(size: int, stride: Sequence[int]) -> list[int]:
    return [size if s > 1 else 1 for s in stride]


_BUILT_IN: dict[str, SubsamplingPolicy] = {
    policy.name: policy
    for policy in (
        KeepStrides(),
        Dilated(),
        *(Blur(cast(Any, size)) for size in range(1, 8)),
        *(APS(cast(Any, blur)) for blur in (1, 3, 5)),
        *(APS(norm=cast(Any, norm)) for norm in (1, "inf")),
        Ideal(),
        FLC(),
        ASAP(),
        LPS(),
        TIPS(),
        AdaptiveBlur(),
    )
}


def subsampling_policy(given: str | SubsamplingPolicy | Mapping[str, Any]) -> SubsamplingPolicy:
    """Returns a subsampling policy from its name, itself, or a `class_path` with `init_args`.

    Args:
        given: A name of `tinv list subsampling`, the dotted path of a class, a mapping as in a configuration, or a
            policy.

    Raises:
        TinvError: For an unknown name or class.

    Examples:
        >>> subsampling_policy("blur3")
        Blur(size=3)
        >>> subsampling_policy({"class_path": "tinv.policies.subsampling.Blur", "init_args": {"size": 5}}).name
        'blur5'
    """
    if given == "dense":
        warnings.warn("subsampling=dense is now subsampling=dilated", RenamedWarning, stacklevel=2)
        given = "dilated"
    if isinstance(given, str) and given in _BUILT_IN:
        return _BUILT_IN[given]
    return made_of(given, SubsamplingPolicy, "subsampling", SUBSAMPLINGS)  # type: ignore[type-abstract]


_OLD = dict.fromkeys(("subsampler", "check_subsampling"), "tinv.policies.deprecated")
_OLD["AdaptivePolyphaseSampling"] = f"{__name__}:APS"
__getattr__ = moved(__name__, {**_OLD, "*": "tinv.nn.subsampling"})
