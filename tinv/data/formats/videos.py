"""Videos, as files or as folders of frames: how many frames each has, and how any of them is read."""

from __future__ import annotations

import contextlib
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinv.data.formats.cache_folder import build_cache_dir, read_arrays, read_manifest
from tinv.data.formats.images import SUFFIXES, ImageFiles, image_size, read_all, read_pixels
from tinv.errors import TinvError
from tinv.utils.io import reading, regular

CUT_SHORT = 0.9
"""A video whose file holds less than this part of the frames that its header names is damaged."""


@dataclass(frozen=True)
class VideoIndex:
    """What is known of videos once each was decoded.

    Attributes:
        frames: Number of frames of each video (N,), int64, 0 if it is damaged.
        begins: Where each video's frames begin in `times` and `keys`, (N + 1,) int64.
        times: Time stamps of all frames, in the units of their file; of folders -1.
        keys: Whether decoding can begin at a frame.
        damaged: Reason why a video cannot be read, by its number.
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


def index_videos(files: ImageFiles, cache: Path, workers: int = 0) -> VideoIndex:
    """Counts the frames of every video by decoding it, once: the counts in headers and of packets are often wrong.

    Args:
        files: Videos to look through.
        cache: Folder of all caches.
        workers: Number of processes that decode.

    Raises:
        TinvError: Without PyAV, if any is a file: not being able to decode is no damage, and is not recorded.
    """
    if any(not files.path(number).is_dir() for number in range(len(files))):
        _import_av()
    cache_dir = cache / f"upright-videos-{files.fingerprint()[:24]}"
    build_cache_dir(cache_dir, "an index of videos", lambda temporary: _write_index(files, temporary, workers))
    damaged = read_manifest(cache_dir)["damaged"]
    return VideoIndex(
        **read_arrays(cache_dir / "index.npz"), damaged={int(number): reason for number, reason in damaged.items()}
    )


def _write_index(files: ImageFiles, temporary: Path, workers: int) -> dict[str, Any]:
    times, keys, damaged = [], [], {}
    for number, scanned in enumerate(read_all(files, scan, workers, "indexing")):
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
    return {"folder": str(files.folder), "videos": len(files), "damaged": damaged}


def scan(path: Path) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Returns the time stamps of all frames of a video, -1 where there is none, and which are key frames.

    Raises:
        TinvError: If it is no video, is cut short, has no frames, or frames of several sizes.
    """
    if path.is_dir():
        images = _images_of(path)
        if not images:
            raise TinvError(f"{path} holds no frames ({', '.join(SUFFIXES)})")
        _check_sizes(path, [image_size(image) for image in images])
        return np.full(len(images), -1), np.ones(len(images), dtype=np.bool_)
    times, keys, sizes = [], [], []
    with reading(path, "a video"), _opened(path) as (container, stream):
        for frame in container.decode(stream):
            times.append(-1 if frame.pts is None else frame.pts)
            keys.append(bool(frame.key_frame))
            sizes.append((frame.width, frame.height) if _turn(frame)[0] else (frame.height, frame.width))
        stated = stream.frames
    if not times:
        raise TinvError(f"{path} holds no frames")
    _check_sizes(path, sizes)
    if len(times) < CUT_SHORT * stated and (there := _packets(path)) < CUT_SHORT * stated:
        raise TinvError(f"{path} is cut short: its header names {stated} frames, {min(there, len(times))} are there")
    return np.array(times, dtype=np.int64), np.array(keys, dtype=np.bool_)


def _check_sizes(path: Path, sizes: Sequence[tuple[int, int]]) -> None:
    for number, size in enumerate(sizes):
        if size != sizes[0]:
            before, after = (f"{width}x{height}" for height, width in (sizes[0], size))
            raise TinvError(f"{path} changes its size from {before} to {after} pixels at frame {number}")


def _packets(path: Path) -> int:
    """Returns how many frames a file holds, those that an edit list hides among them."""
    with reading(path, "a video"), _opened(path, ignore_editlist="1") as (container, stream):
        return sum(packet.size > 0 for packet in container.demux(stream))


def read_frames(
    path: Path, numbers: Sequence[int], times: NDArray[np.int64], keys: NDArray[np.bool_]
) -> NDArray[np.uint8]:
    """Returns frames of a video, exactly those of the given numbers, however its key frames lie.

    Decoding begins at the last key frame before the first one asked for, and only frames that are asked for are turned
    to RGB, which costs more than decoding. Frames stand upright, as players show them.

    Args:
        path: Path of the video, or of a folder of frames.
        numbers: Frame numbers, ascending, from 0 on.
        times: Time stamps of all its frames, see `scan`.
        keys: Whether decoding can begin at a frame, for all its frames.

    Returns:
        (len(numbers), H, W, 3) red, green and blue.

    Raises:
        TinvError: If a frame cannot be read.
    """
    if path.is_dir():
        images = _images_of(path)
        with reading(path, "a folder of frames"):
            return np.stack([read_pixels(images[number]).permute(1, 2, 0).numpy() for number in numbers])
    begin = int(np.flatnonzero(keys[: numbers[0] + 1])[-1]) if keys[: numbers[0] + 1].any() else 0
    # time stamps can only be gone by where each is later than the one before
    seekable = begin > 0 and bool((np.diff(times) > 0).all()) and times[0] >= 0
    found = None
    if seekable:
        # where it cannot be sought, it is read from its beginning
        with contextlib.suppress(TinvError), reading(path, "a video"), _opened(path) as opened:
            found = _decode(*opened, numbers, times, begin)
    with reading(path, "a video"):
        if found is None:
            with _opened(path) as opened:
                found = _decode(*opened, numbers, times, 0)
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
    selected, found = set(numbers), []
    number: int | None = None if begin else -1
    for frame in container.decode(stream):
        if number is None:
            at = -1 if frame.pts is None else int(np.searchsorted(times, frame.pts))
            if not 0 <= at <= numbers[0] or times[at] != frame.pts:
                return None
            number = at
        else:
            number += 1
        if number in selected:
            pixels = reformatter.reformat(frame, format="rgb24").to_ndarray()
            found.append(_upright(np.asarray(pixels, dtype=np.uint8), *_turn(frame)))
            if number == numbers[-1]:
                return found
    return None


def _import_av() -> Any:
    try:
        import av
    except ImportError as error:
        raise TinvError("videos are decoded with PyAV: pip install 'tinv[video]'") from error
    return av


@contextlib.contextmanager
def _opened(path: Path, **options: str) -> Iterator[tuple[Any, Any]]:
    """Opens a container and its first video stream; decodes in one thread, since workers decode side by side."""
    with _import_av().open(str(regular(path)), metadata_errors="replace", options=options) as container:
        if not container.streams.video:
            raise TinvError(f"{path} holds no video stream")
        stream = container.streams.video[0]
        stream.thread_type = "NONE"
        yield container, stream


def _turn(frame: Any) -> tuple[bool, bool, bool]:
    """Returns what turns a frame upright, in quarter turns: whether to transpose it, flip its rows, its columns."""
    data = frame.side_data.get("DISPLAYMATRIX")
    if data is None:
        return False, False, False
    # x and y of the upright frame are (a x + c y) and (b x + d y) of the coded one
    a, b, _, c, d = np.frombuffer(bytes(data), dtype=np.int32)[:5].tolist()
    return (True, b < 0, c < 0) if abs(b) > abs(a) else (False, d < 0, a < 0)


def _upright(pixels: NDArray[np.uint8], transpose: bool, rows: bool, columns: bool) -> NDArray[np.uint8]:
    pixels = pixels.swapaxes(0, 1) if transpose else pixels
    return pixels[:: -1 if rows else 1, :: -1 if columns else 1]


def _images_of(folder: Path) -> list[Path]:
    """Returns the images of a folder of frames in the order of the numbers in their names."""
    with reading(folder, "a folder of frames"):
        names = [name for name in os.listdir(folder) if name.lower().endswith(SUFFIXES) and not name.startswith(".")]

    def by_numbers(name: str) -> tuple[list[str | int], str]:
        # texts and numbers take turns, so that each is compared with its like
        parts = re.split(r"([0-9]+)", name)
        return [int(part) if position % 2 else part for position, part in enumerate(parts)], name

    return [folder / name for name in sorted(names, key=by_numbers)]
