"""Batches of clips cut out of videos: which frames, what part of them, and how large."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from tinv.data.file_batches import BatchDataset
from tinv.data.formats.image_cache import ImageCache
from tinv.data.formats.images import ImageFiles
from tinv.data.formats.videos import VideoIndex, read_frames, scan
from tinv.translation import uniform

SCALES = tuple(0.5 ** (step / 4) for step in range(5))
"""Sides of training crops over the shorter side of the frame: 1 to a half in five steps (Hara et al., 2018)."""


class Clips(NamedTuple):
    """Which clips are cut out of which videos.

    Attributes:
        videos: Numbers of the videos, (N,) int64.
        begins: First frames, (N,) int64; -1 draws one anew each epoch.
    """

    videos: NDArray[np.int64]
    begins: NDArray[np.int64]


def one_clip_per_video(index: VideoIndex, videos: Sequence[int], length: int | None) -> Clips:
    """Returns one clip a video: drawn anew each epoch, or with a length given always the middle one."""
    numbers = np.array(videos, dtype=np.int64)
    middle = np.maximum(0, (index.frames[numbers] - (length or 0)) // 2)
    return Clips(numbers, np.full(len(numbers), -1) if length is None else middle)


def non_overlapping_clips(index: VideoIndex, videos: Sequence[int], length: int) -> Clips:
    """Returns all clips of each video that do not overlap; the last one may be short, and is then looped."""
    begins = [np.arange(0, index.frames[video], length) for video in videos]
    counts = [len(part) for part in begins]
    return Clips(np.repeat(np.array(videos, dtype=np.int64), counts), np.concatenate(begins).astype(np.int64))


def frames_of(begin: int, length: int, frames: int) -> NDArray[np.int64]:
    """Returns the numbers of the frames of a clip; what there is of it is repeated if the video ends before."""
    numbers: NDArray[np.int64] = begin + np.arange(length) % min(length, frames - begin)
    return numbers


class AllFrames:
    """All frames of a video one below the other, each resized to a shorter side: what is kept in a cache.

    Args:
        shorter_side: Shorter side of a frame, in pixels.
    """

    def __init__(self, shorter_side: int) -> None:
        self.shorter_side = shorter_side
        self.name = f"all frames of a video, upright, shorter side {shorter_side}"

    def __call__(self, path: Path) -> Tensor:
        """Returns (3, T * height, width) uint8."""
        times, keys = scan(path)
        frames = torch.from_numpy(read_frames(path, range(len(times)), times, keys))
        height, width = frames.shape[1:3]
        side = self.shorter_side
        small = (side, side * width // height) if height <= width else (side * height // width, side)
        return resize_frames(frames, *small).flatten(0, 1).permute(2, 0, 1)


class ClipDataset(BatchDataset):
    """Whole batches of clips.

    Training clips are cut as Hara et al. (2018) do: from one of four corners or the middle, a square of one of five
    sizes, mirrored one time in two. Others are the largest square in the middle.

    Args:
        files: Videos.
        index: Frames of the videos.
        clips: Clips to cut.
        length: Frames of a clip.
        size: Side of a clip in pixels.
        is_augmented: Whether clips are cut for training.
        seed: Seed of begin, corner, size and mirroring.
        cache: Cache of the frames of all videos, made by AllFrames; None decodes.
    """

    def __init__(
        self,
        files: ImageFiles,
        index: VideoIndex,
        clips: Clips,
        length: int,
        size: int,
        is_augmented: bool,
        seed: int,
        cache: ImageCache | None = None,
    ) -> None:
        super().__init__(files)
        self.index, self.clips, self.length, self.size = index, clips, length, size
        self.is_augmented, self.seed, self.cache = is_augmented, seed, cache
        # in tests the clips of one video follow each other: it is decoded once for all of them
        self._whole: tuple[int, Tensor] | None = None

    def __len__(self) -> int:
        return len(self.clips.videos)

    def file(self, number: int) -> int:
        """Returns the number of the video that a clip is of."""
        return int(self.clips.videos[number])

    def draws(self, index: Tensor, epoch: int) -> NDArray[np.float64]:
        """Returns what decides about each clip: (N, 4) begin, corner, size, mirroring."""
        return uniform(index.numpy(), 4, self.seed, epoch)

    def read(self, number: int, draws: Any) -> Tensor:
        """Returns a clip (T, size, size, 3) uint8."""
        video, begin = self.file(number), int(self.clips.begins[number])
        frames = int(self.index.frames[video])
        if begin < 0:
            begin = int(draws[0] * max(1, frames - self.length + 1))
        numbers = frames_of(begin, self.length, frames)
        if self.cache is None and not self.is_augmented and self._neighbours(number):
            return self._of_whole(video)[torch.from_numpy(numbers)]
        pixels = self._frames(video, np.unique(numbers))
        scale, corner = (SCALES[int(draws[2] * len(SCALES))], int(draws[1] * 5)) if self.is_augmented else (1.0, 4)
        pixels = resize_frames(crop(pixels, scale, corner), self.size, self.size)
        if self.is_augmented and draws[3] < 0.5:
            pixels = pixels.flip(2)
        return pixels[torch.from_numpy(numbers - begin)]

    def _neighbours(self, number: int) -> bool:
        others = self.clips.videos[max(0, number - 1) : number + 2]
        return bool((others == self.clips.videos[number]).sum() > 1)

    def _of_whole(self, video: int) -> Tensor:
        if self._whole is None or self._whole[0] != video:
            pixels = self._frames(video, np.arange(self.index.frames[video]))
            self._whole = video, resize_frames(crop(pixels, 1.0, 4), self.size, self.size)
        return self._whole[1]

    def _frames(self, video: int, numbers: NDArray[np.int64]) -> Tensor:
        if self.cache is not None:
            stacked = self.cache.read(video).permute(1, 2, 0)
            frames = stacked.view(int(self.index.frames[video]), -1, stacked.shape[1], 3)
            return frames[torch.from_numpy(numbers)]
        return torch.from_numpy(read_frames(self.files.path(video), numbers.tolist(), *self.index.of(video)))


def crop(frames: Tensor, scale: float, corner: int) -> Tensor:
    """Returns a square of frames (T, H, W, 3): `scale` times the shorter side, at a corner (0..3) or the middle (4)."""
    height, width = frames.shape[1:3]
    side = max(1, round(min(height, width) * scale))
    down, right = height - side, width - side
    top, left = [(0, 0), (0, right), (down, 0), (down, right), (down // 2, right // 2)][corner]
    return frames[:, top : top + side, left : left + side]


def resize_frames(frames: Tensor, height: int, width: int) -> Tensor:
    """Returns frames (T, H, W, 3) uint8 as (T, height, width, 3): bilinear, averaging where they shrink."""
    if frames.shape[1:3] == (height, width):
        return frames
    planes = frames.permute(0, 3, 1, 2)
    return F.interpolate(planes, (height, width), mode="bilinear", antialias=True).permute(0, 2, 3, 1).contiguous()
