"""Patches in Brown's format made of any photographs: each is warped, and what is found again in the warped copies."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tinv.data.brown import PatchData
from tinv.data.cache_folder import ABOUT, make_once
from tinv.data.image_files import (
    ImageFiles,
    find_images,
    photographs_folder,
    read_pixels,
    resize_and_centre,
    spread,
)
from tinv.data.patch_pairs import all_pairs
from tinv.data.patch_set import SIDE, write_patch_set
from tinv.errors import TinvError
from tinv.utils.progress import progress

if TYPE_CHECKING:
    from cv2 import KeyPoint

SETS = ("train", "test_a", "test_b")
SHORTER_SIDE, LONGER_SIDE = 288, 8 * 288
"""Photographs are resized to the one, in pixels, and cut to the other, before key points are looked for."""

FOOTPRINT = 6.0
"""Side of a patch over the size (diameter) of its key point."""

LEAST_FOOTPRINT, MOST_FOOTPRINT = 24.0, 128.0
"""Of a patch in the photograph, in pixels: smaller ones would be little but blur."""

NEAR, OCTAVES, ANGLE = 0.15, 0.25, np.pi / 8
"""A key point is found again if it is off by no more than this part of the patch's side, octaves and radians."""


class PhotoPatches(PatchData):
    """Patches around key points of photographs that are found again in warped copies, in the format of Brown's sets.

    Every photograph is turned, scaled, tilted, relit and blurred at random. SIFT key points (Lowe, IJCV 2004) are
    found in the photograph and in each copy by themselves. Those that agree, once the known warp is undone, in place
    (0.15 of the patch's side), scale (a quarter of an octave) and angle (22.5 degrees) show one point: as in Winder,
    Hua & Brown (CVPR 2009), with a homography in the place of a reconstruction. So patches keep the detector's errors.

    Photographs of `train`, `test_a` and `test_b` are different ones. The sets are written once, in the official format,
    to the cache.

    Args:
        root: folder of photographs, flat or with class folders (searched for in the folder of data sets too).
        photographs: number to train on.
        test_photographs: number for each of the two test sets.
        copies: warped copies of each photograph.
        points: most points of a photograph.
        patch_seed: of the warps and the test pairs; part of the data, not of the run's seed.
        n_pairs: pairs to train on.
        test_pairs: of each test set, half of them of one point.
        **kwargs: see PatchData.

    Raises:
        TinvError: without OpenCV (`pip install 'tinv[patches]'`).
    """

    def __init__(
        self,
        root: str = "imagenet/val",
        photographs: int = 500,
        test_photographs: int = 250,
        copies: int = 4,
        points: int = 60,
        patch_seed: int = 0,
        n_pairs: int = 4000,
        test_pairs: int = 5000,
        **kwargs: Any,
    ) -> None:
        super().__init__(train=SETS[0], test=SETS[1:], n_pairs=n_pairs, test_pairs=test_pairs, **kwargs)
        for key, value, least in (
            ("photographs", photographs, 1),
            ("test_photographs", test_photographs, 1),
            ("copies", copies, 1),
            ("points", points, 1),
            ("test_pairs", test_pairs, 2),
        ):
            if value < least:
                raise TinvError(f"{key} must be {least} or more, not {value}")
        self.root, self.counts = root, (photographs, test_photographs, test_photographs)
        self.copies, self.points, self.patch_seed = copies, points, patch_seed
        self._place: Path | None = None

    def prepare_data(self) -> None:
        """Makes the sets, if they have not been made."""
        for name in SETS:
            self._read(name)

    def folders(self) -> dict[str, Path]:
        """Returns the folder of each set; the first time they are made."""
        if self._place is None:
            folder = photographs_folder(self.root)
            files = find_images(folder)
            if sum(self.counts) > len(files):
                raise TinvError(
                    f"photographs={self.counts[0]} and twice test_photographs={self.counts[1]} asked for, {folder} "
                    f"holds {len(files)}; set data.init_args.photographs and test_photographs"
                )
            files = spread(files, sum(self.counts))
            files = files.take(np.random.default_rng((self.patch_seed, 0)).permutation(len(files)))
            settings = [self.counts, self.copies, self.points, self.patch_seed, self.test_pairs]
            key = hashlib.sha256(f"{settings} {files.fingerprint()}".encode()).hexdigest()
            place = self.cache_dir / f"photo-patches-{key[:24]}"
            make_once(place, "sets of patches", lambda temporary: self._make(files, temporary))
            self._place = place
        return {name: self._place / name for name in SETS}

    def _make(self, files: ImageFiles, temporary: Path) -> None:
        begin = 0
        for name, count in zip(SETS, self.counts, strict=True):
            numbers = range(begin, begin + count)
            begin += count
            find = partial(find_points, copies=self.copies, most=self.points, seed=self.patch_seed)
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                found = pool.map(lambda number, find=find: find(files.path(number), number), numbers)
                groups = list(progress(found, f"finding points for {name}", count))
            write_found(temporary / name, groups, self.test_pairs, (self.patch_seed, begin))
        about = {"photographs": self.counts, "copies": self.copies, "points": self.points, "seed": self.patch_seed}
        (temporary / ABOUT).write_text(json.dumps(about, indent=2) + "\n")


def write_found(
    folder: Path, photographs: Sequence[Sequence[NDArray[np.uint8]]], test_pairs: int, seed: Sequence[int]
) -> None:
    """Writes a set in the official format.

    Args:
        folder: to fill.
        photographs: of each, its points; of each point its patches (K, 64, 64).
        test_pairs: half of them of one point.
        seed: of the choice of pairs.

    Raises:
        TinvError: if there are not as many pairs.
    """
    groups = [(number, patches) for number, points in enumerate(photographs) for patches in points]
    points = np.repeat(np.arange(len(groups)), [len(patches) for _, patches in groups])
    images = np.repeat([number for number, _ in groups], [len(patches) for _, patches in groups])
    random = np.random.default_rng(list(seed))
    same = random.permutation(all_pairs(points))[: (test_pairs + 1) // 2]
    other = random.integers(len(points), size=(4 * test_pairs, 2)) if len(points) else np.empty((0, 2), np.int64)
    other = other[points[other[:, 0]] != points[other[:, 1]]][: test_pairs // 2]
    if len(same) + len(other) < test_pairs:
        raise TinvError(
            f"only {len(groups)} points with {len(same)} pairs were found in {len(photographs)} photographs for "
            f"{folder.name}, test_pairs={test_pairs} needs {test_pairs // 2}; take more photographs, copies or points, "
            "or fewer test_pairs"
        )
    pairs = random.permutation(np.concatenate([same, other]))
    write_patch_set(folder, np.concatenate([p for _, p in groups]), points.tolist(), pairs, images.tolist())


def find_points(path: Path, number: int, copies: int, most: int, seed: int) -> list[NDArray[np.uint8]]:
    """Returns the patches of every point of a photograph that is found again: for each (K, 64, 64), K at least 2.

    Args:
        path: of the photograph.
        number: of the photograph, which decides the warps.
        copies: warped copies.
        most: points to return, those of the strongest contrast.
        seed: of the warps.
    """
    cv2 = _opencv()
    whole = read_pixels(path, SHORTER_SIDE)
    # the whole photograph but of those that are longer than any camera makes
    height, width = (min(int(SHORTER_SIDE * size / min(whole.shape[1:])), LONGER_SIDE) for size in whole.shape[1:])
    pixels = resize_and_centre(whole, SHORTER_SIDE, height, width).permute(1, 2, 0).numpy()
    photograph = cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_RGB2GRAY)
    random = np.random.default_rng((seed, 1, number))
    chosen = _apart(_detect(photograph), 4 * most)
    patches = [[_patch(photograph, point)] for point in chosen]
    for _ in range(copies):
        warp = _random_warp(photograph.shape, random)
        copy = _relight(cv2.warpPerspective(photograph, warp, photograph.shape[::-1], flags=cv2.INTER_LINEAR), random)
        there = _detect(copy)
        # key points whose patch would show what lies outside the photograph are none
        inside = cv2.warpPerspective(np.full_like(photograph, 255), warp, photograph.shape[::-1])
        there = [point for point in there if (_patch(inside, point) == 255).all()]
        for number_of_point, again in _found_again(chosen, there, warp):
            patches[number_of_point].append(_patch(copy, again))
    return [np.stack(group) for group in patches if len(group) > 1][:most]


def _opencv() -> Any:
    try:
        import cv2
    except ImportError as error:
        raise TinvError("PhotoPatches finds key points with OpenCV: pip install 'tinv[patches]'") from error
    # one photograph a thread is what runs side by side
    cv2.setNumThreads(1)
    return cv2


def _footprint(point: KeyPoint) -> float:
    return FOOTPRINT * float(point.size)


def _detect(image: NDArray[np.uint8]) -> list[KeyPoint]:
    """Returns the SIFT key points whose patches lie in the image, the strongest first."""
    height, width = image.shape
    kept = []
    for point in _opencv().SIFT_create().detect(image, None):
        # a turned square reaches as far as its half diagonal
        reach = _footprint(point) / 2**0.5
        x, y = point.pt
        inside = reach <= x < width - reach and reach <= y < height - reach
        if inside and LEAST_FOOTPRINT <= _footprint(point) <= MOST_FOOTPRINT:
            kept.append(point)
    # ties by place, so that the order is the same everywhere
    return sorted(kept, key=lambda point: (-point.response, point.pt, point.angle))


def _apart(points: Sequence[KeyPoint], most: int) -> list[KeyPoint]:
    """Returns the first of all points of about one place and scale: their patches would show the same."""
    kept: list[KeyPoint] = []
    for point in points:
        x, y = point.pt
        alike = any(
            np.hypot(x - other.pt[0], y - other.pt[1]) < 0.25 * _footprint(other)
            and abs(np.log2(point.size / other.size)) < 1
            for other in kept
        )
        if not alike:
            kept.append(point)
        if len(kept) == most:
            break
    return kept


def _patch(image: NDArray[np.uint8], point: KeyPoint) -> NDArray[np.uint8]:
    """Returns the (64, 64) pixels of a key point's square, turned upright."""
    cv2 = _opencv()
    step = _footprint(point) / SIDE
    angle = np.deg2rad(point.angle)
    along, across = np.cos(angle) * step, np.sin(angle) * step
    middle = (SIDE - 1) / 2
    x = point.pt[0] - along * middle + across * middle
    y = point.pt[1] - across * middle - along * middle
    place = np.array([[along, -across, x], [across, along, y]])
    if step > 1:
        # averages before it samples
        image = cv2.GaussianBlur(image, (0, 0), 0.5 * step)
    taken: NDArray[np.uint8] = cv2.warpAffine(image, place, (SIDE, SIDE), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP)
    return taken


def _random_warp(shape: tuple[int, ...], random: np.random.Generator) -> NDArray[np.float64]:
    """Returns a homography: turned up to 30 degrees, scaled by up to 0.6 octaves, slanted, tilted, moved a little."""
    height, width = shape
    angle = np.deg2rad(random.uniform(-30, 30))
    scale = 2 ** random.uniform(-0.6, 0.6)
    about = np.array([[1, 0, -width / 2], [0, 1, -height / 2], [0, 0, 1]])
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    slant = np.array([[1, random.uniform(-0.5, 0.5), 0], [0, 2 ** random.uniform(-0.7, 0.7), 0], [0, 0, 1]])
    size = max(height, width)
    tilt = np.eye(3)
    tilt[2, :2] = random.uniform(-0.4, 0.4, size=2) / size
    back = np.array([[1, 0, width / 2], [0, 1, height / 2], [0, 0, 1]])
    back[:2, 2] += random.uniform(-0.1, 0.1, size=2) * size
    warp: NDArray[np.float64] = back @ tilt @ np.diag([scale, scale, 1]) @ turn @ slant @ about
    return warp


def _relight(image: NDArray[np.uint8], random: np.random.Generator) -> NDArray[np.uint8]:
    """Returns an image with other gamma, contrast and brightness, light that falls off to a side, blur and noise."""
    values = (image / 255.0) ** (2 ** random.uniform(-1, 1))
    values = (values - 0.5) * random.uniform(0.5, 1.5) + 0.5 + random.uniform(-0.2, 0.2)
    down, across = (np.linspace(-0.5, 0.5, size) * random.uniform(-0.8, 0.8) for size in image.shape)
    values = values * (1 + down[:, None] + across)
    if (blur := random.uniform(-1.5, 1.5)) > 0.1:
        values = _opencv().GaussianBlur(values, (0, 0), blur)
    values = values + random.normal(scale=random.uniform(0, 0.06), size=values.shape)
    lit: NDArray[np.uint8] = (values.clip(0, 1) * 255).round().astype(np.uint8)
    return lit


def _found_again(
    chosen: Sequence[KeyPoint], there: Sequence[KeyPoint], warp: NDArray[np.float64]
) -> list[tuple[int, KeyPoint]]:
    """Returns which points are found in a warped copy, each with the nearest key point that agrees."""
    if not there:
        return []
    places = np.array([point.pt for point in there])
    sizes = np.array([point.size for point in there])
    angles = np.deg2rad([point.angle for point in there])
    found = []
    for number, point in enumerate(chosen):
        centre = _moved(warp, np.array(point.pt))
        # how the warp scales and turns at this place: by what it does to a step along the key point's direction
        angle = np.deg2rad(point.angle)
        step = 0.1 * np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        along, across = (_moved(warp, np.array(point.pt) + by) - centre for by in step)
        area = abs(along[0] * across[1] - along[1] * across[0]) ** 0.5 / 0.1
        size, angle = point.size * area, np.arctan2(along[1], along[0])
        away = np.hypot(*(places - centre).T)
        turned = np.abs((angles - angle + np.pi) % (2 * np.pi) - np.pi)
        good = (away <= NEAR * FOOTPRINT * size) & (np.abs(np.log2(sizes / size)) <= OCTAVES) & (turned <= ANGLE)
        if good.any():
            found.append((number, there[int(np.where(good, away, np.inf).argmin())]))
    return found


def _moved(warp: NDArray[np.float64], place: NDArray[np.float64]) -> NDArray[np.float64]:
    x, y, w = warp @ np.array([*place, 1.0])
    moved: NDArray[np.float64] = np.array([x, y]) / w
    return moved
