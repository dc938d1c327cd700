"""What images that are given have to be: floats of the right size, with the room that shifts need."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from tinv.errors import TinvError
from tinv.translation import CAMERA_SCALE, CANVASES, WINDOWS, ShiftMode

Size = tuple[int, int]


def check_shifts(size: Size, mode: ShiftMode, offset_range: int, step: int = 4) -> None:
    """Refuses shifts that make no sense for what the network sees.

    Args:
        size: (H, W) in pixels.
        mode: How images are moved.
        offset_range: Views lie at offsets of 0 to so many pixels.
        step: Pixels of which offset_range has to be a multiple; the default measures take quarters of it.

    Raises:
        TinvError: Naming the value.
    """
    if offset_range < step or offset_range % step:
        raise TinvError(f"offset_range must be a multiple of {step} pixels, not {offset_range}")
    if min(size) < 1:
        raise TinvError(f"input_size must be 1 pixel or more, not {min(size)}")
    if mode in CANVASES and min(size) <= offset_range:
        raise TinvError(f"offset_range {offset_range} leaves no room for the image on a canvas of {min(size)} pixels")


def check_images(images: Any, title: str) -> None:
    """Refuses what is no batch of images as a network takes them.

    Raises:
        TinvError: Saying what it is, and what it has to be.
    """
    if not isinstance(images, Tensor):
        raise TinvError(f"{title} holds a {type(images).__name__}, not a tensor of images (N, C, H, W)")
    if images.dim() != 4:
        hint = "; wrap a data set in torch.utils.data.DataLoader" if images.dim() == 3 else ""
        raise TinvError(f"{title} holds tensors of {images.dim()} axes, not images (N, C, H, W){hint}")
    if not images.is_floating_point():
        raise TinvError(
            f"{title} holds {str(images.dtype).removeprefix('torch.')}; give images as the network takes them, "
            "normalized floats"
        )


def view_size(shape: Sequence[int], wanted: Size | None, mode: ShiftMode, offset_range: int) -> Size:
    """Returns (H, W) of the views of images that are given: what the network sees.

    Args:
        shape: (C, H, W) of the images.
        wanted: The input size that was said; None for the size of the images, where they are not cropped.
        mode: How images are moved; `crop` needs offset_range more pixels than the network sees, `camera` so many at
            twice the resolution.
        offset_range: Views lie at offsets of 0 to so many pixels.

    Raises:
        TinvError: If the images have not the room that the mode needs, saying the size they need.
    """
    there = (shape[1], shape[2])
    scale = CAMERA_SCALE if mode == "camera" else 1
    if there[0] % scale or there[1] % scale:
        raise TinvError(f"images are {size_text(there)} pixels, which mode camera cannot halve; give even numbers")
    there = (there[0] // scale, there[1] // scale)
    more = offset_range if mode in WINDOWS else 0
    if wanted is None and not more:
        wanted = there
    if wanted is None:
        left = (there[0] - more, there[1] - more)
        say = f"say input_size {size_text(left)} if that is what the network takes, or " if min(left) > 0 else ""
        raise TinvError(
            f"images are {size_text(there)} pixels, and mode {mode} cuts views out of them that are {offset_range} "
            f"pixels (offset_range) smaller; {say}use mode circular, which keeps the size"
        )
    needed = (wanted[0] + more, wanted[1] + more)
    if there != needed:
        why = f" and {more} more an axis (offset_range), for mode {mode}" if more else f", for mode {mode}"
        raise TinvError(
            f"images are {size_text(there)} pixels, and have to be {size_text(needed)}: input_size "
            f"{size_text(wanted)}{why}"
        )
    return wanted


def size_text(shape: Sequence[int]) -> str:
    """Returns a shape as people write it, such as 3x224x224."""
    return "x".join(map(str, shape))
