"""Activation policies: what stands for the activations of a network, or of those that are kept, what is around them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, cast

from tinv.errors import TinvError
from tinv.policies.base import Policy, made_of
from tinv.policies.cards import ACTIVATION_CARDS, ACTIVATIONS, Activation, Card

if TYPE_CHECKING:
    from torch import Tensor, nn

GATES = ("Sigmoid", "Hardsigmoid", "HardSigmoid", "HardSigmoidMe", "sigmoid", "hardsigmoid", "expit")
"""Activations between 0 and 1, by the name of their class or function."""


class ActivationPolicy(Policy):
    """Leaves the network's own activations. Your own subclass, with a `layer`, works wherever a name does.

    An activation is a function of each value that is not linear, of a map with positions. Those of vectors, as in heads
    and squeeze-excite gates, are left: without positions they make no frequencies.

    Attributes:
        runs_own: Whether the layer runs the network's own activation, and takes the weight of a PReLU after the map.
    """

    runs_own: ClassVar[bool] = True

    @property
    def name(self) -> str:
        """The word for it; the name of its class for one of your own."""
        return "keep" if type(self) is ActivationPolicy else type(self).__name__

    @property
    def card(self) -> Card:
        """What a user must know of it."""
        known = ACTIVATION_CARDS.get(cast(Activation, self.name))
        return known or Card("a policy of your own", "-", "not known", "not known")

    @property
    def treats_activations(self) -> bool:
        """Whether any activation is replaced."""
        return type(self) is not ActivationPolicy

    def layer(
        self, activation: Callable[..., Tensor], what: str, axes: tuple[int, ...], channels: Mapping[int, int]
    ) -> nn.Module | None:
        """Returns the module that stands for an activation; None leaves it.

        Args:
            activation: The network's own, a module that overwrites nothing.
            what: Name of its class or function.
            axes: Axes of the tensor that hold positions and are treated, 2 and 3 of maps (N, C, H, W).
            channels: Sizes of the axes that hold channels, by the number of the axis: {1: C} of maps (N, C, H, W).

        Returns:
            A module of a map that gives one of the same shape, best a `tinv.nn.BandLimitedActivation`, which says for
            the verdict which shifts it follows.

        Raises:
            TinvError: If this activation cannot be replaced; the layer is then refused with that reason.
        """
        return None


class Upsampled(ActivationPolicy):
    """The network's own activations on a finer grid (Michaeli et al., CVPR 2023).

    Args:
        factor: Positions of the finer grid for each pixel, 2 or more.

    Raises:
        TinvError: For another factor.
    """

    def __init__(self, factor: int = 2) -> None:
        if not isinstance(factor, int) or factor < 2:
            raise TinvError(f"the factor of an upsampled activation is an integer of 2 or more, not {factor}")
        self.factor = factor

    @property
    def name(self) -> str:
        """`up2` for twice the pixels."""
        return f"up{self.factor}"

    def layer(
        self, activation: Callable[..., Tensor], what: str, axes: tuple[int, ...], channels: Mapping[int, int]
    ) -> nn.Module:
        """Returns an `UpsampledActivation`."""
        from tinv.nn.activation import UpsampledActivation

        return UpsampledActivation(activation, axes, self.factor)


class Polynomial(ActivationPolicy):
    """A trained polynomial of degree 2 for each channel on a grid of twice the pixels (Michaeli et al., CVPR 2023).

    Args:
        scale: Values that stand for 1 in the polynomial, see `tinv.nn.PolynomialActivation`.

    Raises:
        TinvError: For a scale that is not above 0.
    """

    runs_own = False

    def __init__(self, scale: float = 7.0) -> None:
        if not scale > 0:
            raise TinvError(f"the scale of a polynomial activation is a number above 0, not {scale}")
        self.scale = float(scale)

    @property
    def name(self) -> str:
        """`poly2`, with the scale if it is another one."""
        return "poly2" if self.scale == 7 else f"poly2_scale{self.scale:g}"

    def layer(
        self, activation: Callable[..., Tensor], what: str, axes: tuple[int, ...], channels: Mapping[int, int]
    ) -> nn.Module:
        """Returns a `PolynomialActivation`; raises TinvError for gates, and where channels are not on one axis."""
        from tinv.nn.activation import PolynomialActivation

        if what in GATES:
            raise TinvError(f"{what} gives numbers from 0 to 1, which a polynomial does not")
        if len(channels) != 1:
            raise TinvError(f"its channels are on {len(channels)} axes, and poly2 has a polynomial for each channel")
        [(axis, size)] = channels.items()
        return PolynomialActivation(size, axes, axis, self.scale)


_BUILT_IN = {policy.name: policy for policy in (ActivationPolicy(), Upsampled(), Polynomial())}


def activation_policy(given: str | ActivationPolicy | Mapping[str, Any]) -> ActivationPolicy:
    """Returns an activation policy from its name, itself, or a `class_path` with `init_args`.

    Args:
        given: A name of `tinv list activation`, the dotted path of a class, a mapping as in a configuration, or a
            policy.

    Raises:
        TinvError: For an unknown name or class.

    Examples:
        >>> activation_policy("up2")
        Upsampled(factor=2)
        >>> activation_policy({"class_path": "tinv.policies.activation.Upsampled", "init_args": {"factor": 4}}).name
        'up4'
    """
    if isinstance(given, str) and given in _BUILT_IN:
        return _BUILT_IN[given]
    return made_of(given, ActivationPolicy, "activation", ACTIVATIONS)
