"""All policies of a conversion together: checked once, printed once, saved once."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Literal, get_args

from tinv.deprecation import moved
from tinv.errors import unknown
from tinv.policies.activation import ActivationPolicy, activation_policy
from tinv.policies.padding import PaddingPolicy, padding_policy
from tinv.policies.subsampling import SubsamplingPolicy, subsampling_policy
from tinv.policies.tokens import TokenPolicy, token_policy

PoolPolicy = Literal["keep", "valid", "same", "full"]
Stem = Literal["keep", "convert"]
Axes = Literal["space", "space+time"]
BlurPadding = Literal["as_padding", "zero", "reflect", "replicate", "circular"]


@dataclass(frozen=True)
class ConversionPolicy:
    """The policies of a conversion; see `tinv.convert` for each.

    Args:
        padding: A name, a `PaddingPolicy` or a mapping with its `class_path`.
        subsampling: A name, a `SubsamplingPolicy` or a mapping with its `class_path`.
        pool: Padding of pools.
        stem: Whether the stride of the first convolution is kept.
        axes: Of clips, whether time is treated too.
        blur_padding: What the border of blurs holds.
        activation: A name, an `ActivationPolicy` or a mapping with its `class_path`.
        partial: Whether layers that cannot take a policy are left, which otherwise is an error.
        tokens: A name, a `TokenPolicy` or a mapping with its `class_path`.

    Raises:
        TinvError: For a name that does not exist.

    Examples:
        >>> print(ConversionPolicy("full_zero", "blur3", pool="full"))
        padding=full_zero, subsampling=blur3, pool=full
    """

    padding: PaddingPolicy = field(default_factory=PaddingPolicy)
    subsampling: SubsamplingPolicy = field(default_factory=lambda: subsampling_policy("keep"))
    pool: PoolPolicy = "keep"
    stem: Stem = "keep"
    axes: Axes = "space"
    blur_padding: BlurPadding = "as_padding"
    activation: ActivationPolicy = field(default_factory=ActivationPolicy)
    partial: bool = False
    tokens: TokenPolicy = field(default_factory=TokenPolicy)

    def __init__(
        self,
        padding: str | PaddingPolicy | Mapping[str, Any] = "keep",
        subsampling: str | SubsamplingPolicy | Mapping[str, Any] = "keep",
        pool: PoolPolicy = "keep",
        stem: Stem = "keep",
        axes: Axes = "space",
        blur_padding: BlurPadding = "as_padding",
        activation: str | ActivationPolicy | Mapping[str, Any] = "keep",
        partial: bool = False,
        tokens: str | TokenPolicy | Mapping[str, Any] = "keep",
    ) -> None:
        vars(self).update(pool=pool, stem=stem, axes=axes, blur_padding=blur_padding, partial=partial)
        vars(self)["padding"] = padding_policy(padding)
        vars(self)["subsampling"] = subsampling_policy(subsampling)
        vars(self)["activation"] = activation_policy(activation)
        vars(self)["tokens"] = token_policy(tokens)
        for name, choices in (("pool", PoolPolicy), ("stem", Stem), ("axes", Axes), ("blur_padding", BlurPadding)):
            if getattr(self, name) not in get_args(choices):
                raise unknown(name, getattr(self, name), get_args(choices))

    @property
    def keeps_all(self) -> bool:
        """Whether nothing is to be changed."""
        treats = self.subsampling.treats_strides or self.activation.treats_activations
        treats = treats or self.tokens.treats_tokens
        return self.padding.amount == self.pool == "keep" and not treats

    def treated_axes(self, axes: int) -> tuple[int, ...]:
        """Returns the spatial axes, of so many, that the policies treat: all, or for clips those of space."""
        return tuple(range(1, axes)) if axes == 3 and self.axes == "space" else tuple(range(axes))

    def to_dict(self) -> dict[str, Any]:
        """Returns the options by name, each as it is written in a table."""
        return {f.name: v if isinstance(v := getattr(self, f.name), bool) else str(v) for f in fields(self)}

    def __str__(self) -> str:
        """The policies that are not at their default."""
        default = ConversionPolicy()
        names = [f.name for f in fields(self)]
        said = {name: getattr(self, name) for name in names if getattr(self, name) != getattr(default, name)}
        return ", ".join(f"{name}={value}" for name, value in said.items()) or "padding=keep, subsampling=keep"


__getattr__ = moved(__name__, {"Settings": f"{__name__}:ConversionPolicy"})
