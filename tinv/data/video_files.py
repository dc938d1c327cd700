"""Videos, as files or as folders of frames: how many frames each has, and how any of them is read."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import DataLoader, Dataset

from tinv.data.cache_folder import ABOUT, make_once
from tinv.data.image_files import SUFFIXES, ImageFiles, read_pixels
from tinv.errors import TinvError
from tinv.progress import progress

CUT_SHORT = 0.9
"""A video whose file holds less than this part of the frames that its header names is damaged."""


@dataclass(frozen=True)
class VideoFiles(ImageFiles):
    """Videos of a folder: files, or folders of numbered images. See ImageFiles for the attributes."""


@dataclass(frozen=True)
class VideoIndex:
    """What is known of videos once each was decoded.

    Attributes:
        frames: (N,) int64, how many frames each has, 0 if it is damaged.
        begins: (N + 1,) int64, where each one's frames begin in `times` and `keys`.
        times: time stamps of all frames, in the units of their file; of folders -1.
        keys: whether decoding can begin at a frame.
        damaged: why a video cannot be read, by its number.
    """

    frames: NDArray[np.int64]
    begins: NDArray[np.int64]
    times: NDArray[np.int64]
    keys: NDArray[np.bool_]
    damaged: dict[int, str]

    def of(self, number: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Returns times and keys of the frames of a video."""
        part = slice(self.begins[number], self.begins[number + 1])
        return self.times[part], self.keys[part]


def index_videos(files: VideoFiles, cache: Path, workers: int = 0) -> VideoIndex:
    """Counts the frames of every video by decoding it, once: the counts in headers and of packets are often wrong.

    Args:
        files: to look through.
        cache: folder of all caches.
        workers: processes that decode.

    Raises:
        TinvError: without PyAV, if any is a file: not being able to decode is no damage, and not kept in mind.
    """
    if any(not files.path(number).is_dir() for number in range(len(files))):
        _import_av()
    place = cache / f"videos-{files.fingerprint()[:24]}"
    make_once(place, "an index of videos", lambda temporary: _write_index(files, temporary, workers))
    with np.load(place / "index.npz") as arrays:
        parts = {name: arrays[name] for name in ("frames", "begins", "times", "keys")}
    about = json.loads((place / ABOUT).read_text())
    return VideoIndex(**parts, damaged={int(number): reason for number, reason in about["damaged"].items()})


def _write_index(files: VideoFiles, temporary: Path, workers: int) -> None:
    loader: DataLoader[Any] = DataLoader(_Scanned(files), batch_size=None, num_workers=workers)
    times, keys, damaged = [], [], {}
    for number, scanned in enumerate(progress(loader, f"indexing {files.folder}", len(files))):
        if isinstance(scanned, str):
            damaged[number] = scanned
            scanned = (np.empty(0, np.int64), np.empty(0, np.bool_))
        times.append(scanned[0])
        keys.append(scanned[1])
    frames = np.array([len(part) for part in times], dtype=np.int64)
    np.savez(
        temporary / "index.npz",
        frames=frames,
        begins=np.concatenate([[0], np.cumsum(frames)]),
        times=np.concatenate(times),
        keys=np.concatenate(keys),
    )
    about = {"folder": str(files.folder), "videos": len(files), "damaged": damaged}
    (temporary / ABOUT).write_text(json.dumps(about, indent=2) + "\n")


class _Scanned(Dataset[Any]):
    def __init__(self, files: VideoFiles) -> None:
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, number: int) -> tuple[NDArray[np.int64], NDArray[np.bool_]] | str:
        try:
            return scan(self.files.path(number))
        except TinvError as error:
            return str(error)


def scan(path: Path) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Returns the time stamps of all frames of a video, -1 where there is none, and which are key frames.

    Raises:
        TinvError: if it is no video, is cut short, or has no frames.
    """
    if path.is_dir():
        count = len(_images_of(path))
        if not count:
            raise TinvError(f"{path} holds no frames ({', '.join(SUFFIXES)})")
        return np.full(count, -1), np.ones(count, dtype=np.bool_)
    times, keys = [], []
    with _Opened(path) as (container, stream):
        try:
            for frame in container.decode(stream):
                times.append(-1 if frame.pts is None else frame.pts)
                keys.append(bool(frame.key_frame))
        except (OSError, ValueError) as error:
            raise _damaged(path, error) from error
        stated = stream.frames
    if not times:
        raise TinvError(f"{path} holds no frames")
    if len(times) < CUT_SHORT * stated:
        raise TinvError(f"{path} is cut short: its header names {stated} frames, {len(times)} are there")
    return np.array(times, dtype=np.int64), np.array(keys, dtype=np.bool_)


def read_frames(
    path: Path, numbers: Sequence[int], times: NDArray[np.int64], keys: NDArray[np.bool_]
) -> NDArray[np.uint8]:
    """Returns frames of a video, exactly those of the given numbers, however its key frames lie.

    Decoding begins at the last key frame before the first one asked for, and only frames that are asked for are turned
    into colours, which costs more than decoding.

    Args:
        path: of the video, or of a folder of frames.
        numbers: of the frames, rising, from 0 on.
        times: of all its frames, see `scan`.
        keys: likewise.

    Returns:
        (len(numbers), H, W, 3) red, green and blue.

    Raises:
        TinvError: if a frame cannot be read.
    """
    if path.is_dir():
        images = _images_of(path)
        return np.stack([read_pixels(images[number]).permute(1, 2, 0).numpy() for number in numbers])
    begin = int(np.flatnonzero(keys[: numbers[0] + 1])[-1]) if keys[: numbers[0] + 1].any() else 0
    # time stamps can only be gone by where each is later than the one before
    seekable = begin > 0 and bool((np.diff(times) > 0).all()) and times[0] >= 0
    with _Opened(path) as (container, stream):
        try:
            found = _decode(container, stream, numbers, times, begin) if seekable else None
            if found is None:
                container.seek(0, stream=stream)
                found = _decode(container, stream, numbers, times, 0)
        except (OSError, ValueError) as error:
            raise _damaged(path, error) from error
    if found is None:
        raise TinvError(f"{path} ends before frame {numbers[-1]}, it has changed since it was indexed")
    return np.stack(found)


def _decode(
    container: Any, stream: Any, numbers: Sequence[int], times: NDArray[np.int64], begin: int
) -> list[NDArray[np.uint8]] | None:
    """Returns frames, decoding from a key frame on; None if that is not where it leads, or the video ends before."""
    if begin:
        container.seek(int(times[begin]), stream=stream, backward=True)
    from av.video.reformatter import VideoReformatter

    reformatter = VideoReformatter()  # one for all frames: setting it up costs as much as a frame
    wanted, found = set(numbers), []
    number: int | None = None if begin else -1
    for frame in container.decode(stream):
        if number is None:
            at = -1 if frame.pts is None else int(np.searchsorted(times, frame.pts))
            if not 0 <= at <= numbers[0] or times[at] != frame.pts:
                return None
            number = at
        else:
            number += 1
        if number in wanted:
            colours = reformatter.reformat(frame, format="rgb24").to_ndarray()
            found.append(np.asarray(colours, dtype=np.uint8))
            if number == numbers[-1]:
                return found
    return None


def _import_av() -> Any:
    try:
        import av
    except ImportError as error:
        raise TinvError("videos are decoded with PyAV: pip install 'tinv[video]'") from error
    return av


class _Opened:
    """A container and its first stream of pictures; decodes in one thread, since workers decode side by side."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __enter__(self) -> tuple[Any, Any]:
        av = _import_av()
        try:
            self.container = av.open(str(self.path), metadata_errors="replace")
        except (OSError, ValueError) as error:
            raise _damaged(self.path, error) from error
        if not self.container.streams.video:
            self.container.close()
            raise TinvError(f"{self.path} holds no pictures")
        stream = self.container.streams.video[0]
        stream.thread_type = "NONE"
        return self.container, stream

    def __exit__(self, *_: object) -> None:
        self.container.close()


def _damaged(path: Path, error: Exception) -> TinvError:
    reason = getattr(error, "strerror", None) or str(error)
    return TinvError(f"{path} cannot be decoded as a video ({reason})")


def _images_of(folder: Path) -> list[Path]:
    names = sorted(name for name in os.listdir(folder) if name.lower().endswith(SUFFIXES) and not name.startswith("."))
    return [folder / name for name in names]
