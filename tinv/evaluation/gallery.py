"""Images that change their answer under the smallest move: what an inconsistent network looks like."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import takewhile
from typing import Any

import torch
from torch import Tensor

from tinv.metrics.views import shifted_views
from tinv.models.features import as_logits
from tinv.translation import WINDOWS, ShiftMode

GALLERY_IMAGES = 64
"""The first images of a folder, among which changes are looked for."""
GALLERY_FLIPS = 24
"""Changes that are shown at most."""

SIZES = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64, 96, 128)
"""Pixels of the moves that are tried; larger ones a third or a half apart, since a change there is rarely the first."""
DIRECTIONS = ((1, 0), (-1, 0), (0, 1), (0, -1), (1, 1), (1, -1), (-1, 1), (-1, -1))
"""(x, y) of the moves, the shorter ones first."""


@dataclass(frozen=True)
class Answer:
    """What a network says of a view.

    Attributes:
        number: Number of the most likely class.
        name: Name of that class.
        probability: Its probability, 0 to 1.
    """

    number: int
    name: str
    probability: float


@dataclass(frozen=True)
class Flip:
    """An image whose answer changes when it is moved.

    Attributes:
        file: Path of the image in its folder.
        label: Name of its class; None if it is not known.
        move: (dx, dy) in pixels, positive to the right and down: the smallest that was tried and changes the answer.
        before: The answer to the view in the middle.
        after: The answer to the view that shows the image moved.
        views: Both views as the network sees them, (C, H, W) uint8 each.
    """

    file: str
    label: str | None
    move: tuple[float, float]
    before: Answer
    after: Answer
    views: tuple[Tensor, Tensor]

    def to_dict(self) -> dict[str, Any]:
        """Returns all but the pixels, as JSON can hold it."""
        answers = {"before": vars(self.before).copy(), "after": vars(self.after).copy()}
        return {"file": self.file, "label": self.label, "move": list(self.move), **answers}


@dataclass(frozen=True)
class Change:
    """The smallest move that changes the answer to one image of a batch.

    Attributes:
        image: Number of the image in the batch.
        move: (dx, dy) in pixels.
        before: Probabilities (classes,) of the view in the middle.
        after: Those of the image moved.
    """

    image: int
    move: tuple[int, int]
    before: Tensor
    after: Tensor


def moves(offset_range: int) -> Iterable[list[tuple[int, int]]]:
    """Yields the moves (dx, dy) of every size, growing; the last is half of the range, which is all room there is.

    Args:
        offset_range: Largest offset of a view in pixels, 2 or more.

    Examples:
        >>> [size[0] for size in moves(14)]
        [(1, 0), (2, 0), (3, 0), (4, 0), (6, 0), (7, 0)]
    """
    half = offset_range // 2
    for size in [*takewhile(lambda tried: tried < half, SIZES), half]:
        yield [(size * x, size * y) for x, y in DIRECTIONS]


def gallery_views(offset_range: int) -> int:
    """Returns how many views of an image are looked at that never changes its answer.

    Args:
        offset_range: Largest offset of a view in pixels.
    """
    return sum(len(size) for size in moves(offset_range))


def moved_views(images: Tensor, move: tuple[int, int], offset_range: int, mode: ShiftMode) -> Tensor:
    """Returns the views (N, C, H, W) that show images moved by (dx, dy) pixels; (0, 0) is the view in the middle.

    Args:
        images: (N, C, h, w), as `shifted_views` takes them.
        move: (dx, dy), positive to the right and down, at most half of offset_range each.
        offset_range: Largest offset of a view in pixels.
        mode: How views differ.
    """
    by = torch.tensor(move, device=images.device).expand(len(images), 2)
    # a window that begins further left shows its content further right
    offsets = offset_range // 2 + (-by if mode in WINDOWS else by)
    return shifted_views(images, offsets, offset_range, mode)


def smallest_changes(
    network: Callable[[Tensor], Any],
    images: Tensor,
    offset_range: int,
    mode: ShiftMode,
    most: int = GALLERY_FLIPS,
    batch_size: int = 32,
    progress: Callable[[float], None] = lambda _: None,
) -> list[Change]:
    """Finds the images whose answer changes under the smallest moves, by trying moves of growing size.

    Every move is tried on all images that have not changed yet, so that those found first are those that need least;
    it ends once there are enough. Images whose answers are not finite are left out.

    Args:
        network: Maps (N, C, H, W) to (N, classes).
        images: (N, C, h, w) with room for the views, as `Photographs.batches` yields them.
        offset_range: Largest offset of a view in pixels.
        mode: How views differ.
        most: Changes to find at most.
        batch_size: Images a pass.
        progress: Is told which share of the moves has been tried.

    Returns:
        At most `most` of them, the smallest move first (by max(|dx|, |dy|), then in the order of `moves`).
    """

    def answers(some: Tensor, move: tuple[int, int]) -> Tensor:
        views = (moved_views(part, move, offset_range, mode) for part in torch.split(some, batch_size))
        return torch.cat([as_logits(network(view)).float().softmax(dim=1).cpu() for view in views])

    found: list[Change] = []
    if not len(images):
        return found
    with torch.no_grad():
        still = answers(images, (0, 0))
        left = torch.arange(len(images))[still.isfinite().all(dim=1)]
        tried = [move for size in moves(offset_range) for move in size]
        for number, move in enumerate(tried):
            progress(number / len(tried))
            if not len(left) or len(found) >= most:
                break
            moved = answers(images[left.to(images.device)], move)
            changed = (moved.argmax(dim=1) != still[left].argmax(dim=1)) & moved.isfinite().all(dim=1)
            found += [
                Change(int(image), move, still[image], after)
                for image, after in zip(left[changed], moved[changed], strict=True)
            ]
            left = left[~changed]
    return found[:most]


def flips(
    changes: Sequence[Change],
    images: Tensor,
    offset_range: int,
    mode: ShiftMode,
    names: Sequence[str],
    files: Sequence[str],
    labels: Sequence[str | None],
    pixels: Callable[[Tensor], Tensor],
) -> list[Flip]:
    """Returns changes with the pictures and words that people see.

    Args:
        changes: As `smallest_changes` returns them.
        images: (N, C, h, w) that they were found on.
        offset_range: Largest offset of a view in pixels.
        mode: How views differ.
        names: Name of each class of the network.
        files: Path of each image (N,).
        labels: Name of the class of each image (N,), None where it is not known.
        pixels: Maps images as the network takes them to uint8, as `ImageLayout.pixels` does.
    """

    def view(change: Change, move: tuple[int, int]) -> Tensor:
        one = images[change.image : change.image + 1]
        return pixels(moved_views(one, move, offset_range, mode))[0].cpu()

    return [
        Flip(
            files[change.image],
            labels[change.image],
            change.move,
            _answer(change.before, names),
            _answer(change.after, names),
            (view(change, (0, 0)), view(change, change.move)),
        )
        for change in changes
    ]


def _answer(probabilities: Tensor, names: Sequence[str]) -> Answer:
    number = int(probabilities.argmax())
    return Answer(number, names[number] if number < len(names) else f"class {number}", float(probabilities[number]))
