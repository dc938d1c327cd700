"""All policies of a conversion together."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

from tinv.errors import unknown
from tinv.nn.padding import check_padding
from tinv.nn.subsampling import check_subsampling
from tinv.policies.cards import Padding, Subsampling

PoolPolicy = Literal["keep", "valid", "same", "full"]
Stem = Literal["keep", "convert"]
Axes = Literal["space", "space+time"]
BlurPadding = Literal["as_padding", "zero", "reflect", "replicate", "circular"]


@dataclass(frozen=True)
class Settings:
    """The policies of a conversion; see `convert` for each."""

    padding: Padding = "keep"
    subsampling: Subsampling = "keep"
    pool: PoolPolicy = "keep"
    stem: Stem = "keep"
    axes: Axes = "space"
    blur_padding: BlurPadding = "as_padding"
    partial: bool = False

    def check(self) -> None:
        """Raises TinvError for a name that does not exist."""
        check_padding(self.padding)
        check_subsampling(self.subsampling)
        for name, choices in (("pool", PoolPolicy), ("stem", Stem), ("axes", Axes), ("blur_padding", BlurPadding)):
            if getattr(self, name) not in get_args(choices):
                raise unknown(name, getattr(self, name), get_args(choices))

    @property
    def keeps_all(self) -> bool:
        """Whether nothing is to be changed."""
        return (self.padding, self.subsampling, self.pool) == ("keep", "keep", "keep")

    def __str__(self) -> str:
        """The policies that are not at their default."""
        said = {name: value for name, value in vars(self).items() if value != getattr(Settings, name)}
        return ", ".join(f"{name}={value}" for name, value in said.items()) or "padding=keep, subsampling=keep"


def policy_axes(settings: Settings, axes: int) -> tuple[int, ...]:
    """Returns the spatial axes that the policies treat: all, or for clips those of space."""
    return tuple(range(1, axes)) if axes == 3 and settings.axes == "space" else tuple(range(axes))
