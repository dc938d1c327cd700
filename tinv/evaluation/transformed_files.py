"""Image files under a transform of the user's own."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision.transforms.v2 import functional as T

from tinv.data.formats.images import ImageFiles, OnError, read_pixels
from tinv.errors import TinvError

Transform = Callable[[Image.Image], Tensor]
"""Takes a picture (RGB, upright) and returns a float tensor (C, h, w) as the network takes it."""


@dataclass(frozen=True)
class _Unread:
    """Why there is no image: an error would lose its message on the way out of a worker."""

    reason: str
    damaged: bool


class _TransformedFiles(Dataset[Any]):
    def __init__(self, files: ImageFiles, transform: Transform) -> None:
        self.files, self.transform = files, transform

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, number: int) -> Tensor | _Unread:
        path = self.files.path(number)
        try:
            picture = T.to_pil_image(read_pixels(path))
        except TinvError as error:
            return _Unread(str(error), True)
        return self._transformed(path, picture)

    def _transformed(self, path: Path, picture: Image.Image) -> Tensor | _Unread:
        try:
            made: Any = self.transform(picture)
        except Exception as error:  # whatever the user's function raises
            reason = str(error).partition("\n")[0]
            return _Unread(f"transform cannot take {path} ({type(error).__name__}: {reason[:150]})", False)
        if isinstance(made, Tensor) and made.dim() == 3 and made.is_floating_point():
            return made
        kind = f"{made.dtype} of {made.dim()} axes" if isinstance(made, Tensor) else type(made).__name__
        what = f"transform returns {kind} for {path}"
        return _Unread(f"{what}, not a float tensor (C, h, w); end it in ToTensor or ToDtype(torch.float32)", False)


def transformed_batches(
    files: ImageFiles, transform: Transform, size: int, workers: int, on_error: OnError, skipped: set[str]
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Yields what a transform makes of files: images (N, C, h, w), targets (N,) and numbers (N,).

    Args:
        files: Files to read.
        transform: The transform.
        size: Images a batch.
        workers: Processes that read; 0 reads in this one.
        on_error: What a damaged file does.
        skipped: Set to which the paths of damaged files are added.

    Raises:
        TinvError: For a damaged file, unless it is skipped, a transform that fails or returns no image, images of
            different sizes, or if no file can be read.
    """
    # a generator of its own: a loader would draw from everyone's random numbers
    loader: DataLoader[Any] = DataLoader(
        _TransformedFiles(files, transform), batch_size=None, num_workers=workers, generator=torch.Generator()
    )
    kept: list[Tensor] = []
    numbers: list[int] = []
    shape: torch.Size | None = None
    problem = ""
    for number, made in enumerate(loader):
        if isinstance(made, _Unread):
            problem = problem or made.reason
            _skip_or_raise(made, on_error)
            skipped.add(str(files.path(number)))
        else:
            shape = shape or made.shape
            if made.shape != shape:
                raise TinvError(
                    f"{files.path(number)} came out of the transform as {_text(made.shape)}, the images before it as "
                    f"{_text(shape)}; let the transform end in one size"
                )
            kept.append(made)
            numbers.append(number)
        if len(kept) == size or (kept and number == len(files) - 1):
            yield torch.stack(kept), torch.from_numpy(files.targets[numbers]), torch.tensor(numbers)
            kept, numbers = [], []
    if shape is None:
        raise TinvError(f"none of {len(files)} files could be read, although on_error: skip; {problem}")


def _skip_or_raise(made: _Unread, on_error: OnError) -> None:
    if not made.damaged:
        raise TinvError(made.reason)
    if on_error == "raise":
        raise TinvError(f"{made.reason}; remove it, or leave such files out with on_error: skip")


def _text(shape: torch.Size) -> str:
    return "x".join(map(str, shape))
