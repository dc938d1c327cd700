"""A network inside one of the modules of `tinv.select`, and what it is compared with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

from torch import nn

from tinv.errors import TinvError
from tinv.evaluation.image_checks import size_text
from tinv.select import CenterCrop, CircularCanonical, CropSelect, PatchAnchor, Selection
from tinv.select.scores import ScoreName

SelectName = Literal["crop", "circular", "anchor"]
"""crop: `tinv.select.CropSelect`, the crop that the content says out of a larger window; circular: `CircularCanonical`,
the image rolled to a canonical place; anchor: `PatchAnchor`, the same by the patches of a transformer."""

SELECT_RANGE = 32
"""Positions of the crop along each axis, if nothing is said."""
SELECT_PATCH = 16


@dataclass(frozen=True)
class SelectOptions:
    """How a network is shown what the content says.

    Attributes:
        name: Which module is put around it.
        positions: Positions of the crop along each axis, for `crop`.
        patch: Pixels a side of a patch, for `anchor`.
        score: What is largest at the chosen place, for `crop` and `circular`.
    """

    name: SelectName
    positions: int = SELECT_RANGE
    patch: int = SELECT_PATCH
    score: ScoreName = "random"

    def window(self, size: tuple[int, int]) -> tuple[int, int]:
        """Returns the pixels (H, W) that are shown to the module so that the network sees `size`."""
        more = self.positions - 1 if self.name == "crop" else 0
        return size[0] + more, size[1] + more

    def around(self, network: nn.Module, window: tuple[int, int]) -> tuple[Selection, nn.Module]:
        """Returns the network in its module, and the network that it is compared with, for images of so many pixels.

        Raises:
            TinvError: If the images leave nothing for the network to see.
        """
        if self.name == "circular":
            return CircularCanonical(network, self.score), network
        if self.name == "anchor":
            return PatchAnchor(network, self.patch), network
        crop = [pixels - self.positions + 1 for pixels in window]
        if min(crop) < 1:
            raise TinvError(
                f"select crop with select_range {self.positions} leaves no crop of images of {size_text(window)} "
                "pixels; take a smaller select_range or larger images"
            )
        return CropSelect(network, crop, self.score), CenterCrop(network, crop)

    def card(self) -> dict[str, Any]:
        """Returns what is said of it in `measure.json`."""
        own: dict[str, dict[str, Any]] = {
            "crop": {"range": self.positions, "score": self.score},
            "circular": {"score": self.score},
            "anchor": {"patch": self.patch},
        }
        return {"select": self.name, **own[self.name]}


def select_options(
    select: SelectName | None, positions: int | None, patch: int | None, score: ScoreName | None
) -> SelectOptions | None:
    """Returns how a network is shown what the content says; None if it is not.

    Args:
        select: Which module is put around it.
        positions: Positions of the crop; None for `SELECT_RANGE`.
        patch: Pixels of a patch; None for `SELECT_PATCH`.
        score: What is largest at the chosen place; None for `random`.

    Raises:
        TinvError: For an option that the module does not take.
    """
    given: dict[str, Any] = {"select_range": positions, "select_patch": patch, "select_score": score}
    takes = {"crop": ("select_range", "select_score"), "circular": ("select_score",), "anchor": ("select_patch",)}
    for name, value in given.items():
        if value is not None and name not in takes.get(select or "", ()):
            owners = [owner for owner, names in takes.items() if name in names]
            raise TinvError(f"{name} is for select {' and '.join(owners)}; leave it out")
    if select is None:
        return None
    return SelectOptions(select, positions or SELECT_RANGE, patch or SELECT_PATCH, score or "random")
