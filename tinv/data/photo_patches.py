"""Patches in Brown's format made of any images: each is warped, and what is found again in the warped copies."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tinv.data.folders import image_folder
from tinv.data.formats.cache_folder import build_cache_dir
from tinv.data.formats.images import ImageFiles, find_images, read_pixels, resize_and_center, subsample_evenly
from tinv.data.formats.patches import SIDE, write_patch_set
from tinv.data.patch_data import PatchData
from tinv.data.patch_pairs import all_pairs
from tinv.deprecation import renamed
from tinv.errors import TinvError
from tinv.utils.arguments import AtLeastTwo, PositiveInt, Seed
from tinv.utils.progress import progress

if TYPE_CHECKING:
    from cv2 import KeyPoint

SETS = ("train", "test_a", "test_b")
SHORTER_SIDE, LONGER_SIDE = 288, 8 * 288
"""Images are resized to the one, in pixels, and cut to the other, before key points are looked for."""

EXTENT = 6.0
"""Side of a patch over the size (diameter) of its key point."""

LEAST_EXTENT, MOST_EXTENT = 24.0, 128.0
"""Of a patch in the image, in pixels: smaller ones would be little but blur."""

NEAR, OCTAVES, ANGLE = 0.15, 0.25, np.pi / 8
"""A key point is found again if it is off by no more than this part of the patch's side, octaves and radians."""


class PhotoPatches(PatchData):
    """Patches around key points of images that are found again in warped copies, in the format of Brown's sets.

    Every image is turned, scaled, tilted, relit and blurred at random. SIFT key points (Lowe, IJCV 2004) are
    found in the image and in each copy by themselves. Those that agree, once the known warp is undone, in place
    (0.15 of the patch's side), scale (a quarter of an octave) and angle (22.5 degrees) show one point: as in Winder,
    Hua & Brown (CVPR 2009), with a homography in the place of a reconstruction. So patches keep the detector's errors.

    Images of `train`, `test_a` and `test_b` are different ones. The sets are written once, in the official format,
    to the cache.

    Args:
        root: Folder of images, flat or with class folders (searched for in the folder of data sets too).
        num_images: Number of images to train on.
        num_test_images: Number of images for each of the two test sets.
        num_copies: Number of warped copies of each image.
        num_points: Largest number of points of an image.
        data_seed: Seed of the warps and the test pairs; part of the data, not of the run's seed.
        num_pairs: Number of pairs to train on.
        num_test_pairs: Number of pairs of each test set, half of them of one point.
        **kwargs: See PatchData.

    Raises:
        TinvError: Without OpenCV (`pip install 'tinv[patches]'`).
    """

    @renamed(
        photographs="num_images",
        test_photographs="num_test_images",
        copies="num_copies",
        points="num_points",
        patch_seed="data_seed",
        n_pairs="num_pairs",
        test_pairs="num_test_pairs",
    )
    def __init__(
        self,
        root: str = "imagenet/val",
        num_images: PositiveInt = 500,
        num_test_images: PositiveInt = 250,
        num_copies: PositiveInt = 4,
        num_points: PositiveInt = 60,
        data_seed: Seed = 0,
        num_pairs: PositiveInt = 4000,
        num_test_pairs: AtLeastTwo = 5000,
        **kwargs: Any,
    ) -> None:
        super().__init__(train=SETS[0], test=SETS[1:], num_pairs=num_pairs, num_test_pairs=num_test_pairs, **kwargs)
        self.root, self.counts = root, (num_images, num_test_images, num_test_images)
        self.num_copies, self.num_points, self.data_seed = num_copies, num_points, data_seed
        self._sets_dir: Path | None = None

    def folders(self) -> dict[str, Path]:
        """Returns the folder of each set; the first time they are made."""
        if self._sets_dir is None:
            folder = image_folder(self.root)
            files = find_images(folder)
            if sum(self.counts) > len(files):
                raise TinvError(
                    f"num_images={self.counts[0]} and twice num_test_images={self.counts[1]} asked for, {folder} "
                    f"holds {len(files)}; set data.init_args.num_images and num_test_images"
                )
            files = subsample_evenly(files, sum(self.counts))
            files = files.take(np.random.default_rng((self.data_seed, 0)).permutation(len(files)))
            settings = [self.counts, self.num_copies, self.num_points, self.data_seed, self.num_test_pairs]
            key = hashlib.sha256(f"{settings} {files.fingerprint()}".encode()).hexdigest()
            sets_dir = self.cache_dir / f"photo-patches-{key[:24]}"
            build_cache_dir(sets_dir, "sets of patches", lambda temporary: self._make(files, temporary))
            self._sets_dir = sets_dir
        return {name: self._sets_dir / name for name in SETS}

    def _make(self, files: ImageFiles, temporary: Path) -> dict[str, Any]:
        begin = 0
        for name, count in zip(SETS, self.counts, strict=True):
            numbers = range(begin, begin + count)
            begin += count
            find = partial(find_points, copies=self.num_copies, most=self.num_points, seed=self.data_seed)
            with ThreadPoolExecutor(os.cpu_count()) as pool:
                found = pool.map(lambda number, find=find: find(files.path(number), number), numbers)
                groups = list(progress(found, f"finding points for {name}", count))
            write_found(temporary / name, groups, self.num_test_pairs, (self.data_seed, begin))
        return {"images": self.counts, "copies": self.num_copies, "points": self.num_points, "seed": self.data_seed}


def write_found(
    folder: Path, found: Sequence[Sequence[NDArray[np.uint8]]], num_test_pairs: int, seed: Sequence[int]
) -> None:
    """Writes a set in the official format.

    Args:
        folder: Folder to fill.
        found: Points of each image; of each point its patches (K, 64, 64).
        num_test_pairs: Number of test pairs, half of them of one point.
        seed: Seed of the choice of pairs.

    Raises:
        TinvError: If there are not as many pairs.
    """
    groups = [(number, patches) for number, points in enumerate(found) for patches in points]
    points = np.repeat(np.arange(len(groups)), [len(patches) for _, patches in groups])
    images = np.repeat([number for number, _ in groups], [len(patches) for _, patches in groups])
    random = np.random.default_rng(list(seed))
    same = random.permutation(all_pairs(points))[: (num_test_pairs + 1) // 2]
    other = random.integers(len(points), size=(4 * num_test_pairs, 2)) if len(points) else np.empty((0, 2), np.int64)
    other = other[points[other[:, 0]] != points[other[:, 1]]][: num_test_pairs // 2]
    if len(same) + len(other) < num_test_pairs:
        raise TinvError(
            f"only {len(groups)} points with {len(same)} pairs were found in {len(found)} images for "
            f"{folder.name}, num_test_pairs={num_test_pairs} needs {num_test_pairs // 2}; take more images, copies or "
            "points, or fewer num_test_pairs"
        )
    pairs = random.permutation(np.concatenate([same, other]))
    write_patch_set(folder, np.concatenate([p for _, p in groups]), points.tolist(), pairs, images.tolist())


def find_points(path: Path, number: int, copies: int, most: int, seed: int) -> list[NDArray[np.uint8]]:
    """Returns the patches of every point of an image that is found again: for each (K, 64, 64) with K at least 2.

    Args:
        path: Path of the image.
        number: Number of the image, which decides the warps.
        copies: Number of warped copies.
        most: Largest number of points to return, those of the strongest contrast.
        seed: Seed of the warps.
    """
    cv2 = _opencv()
    whole = read_pixels(path, SHORTER_SIDE)
    # the whole image but of those that are longer than any camera makes
    height, width = (min(int(SHORTER_SIDE * size / min(whole.shape[1:])), LONGER_SIDE) for size in whole.shape[1:])
    pixels = resize_and_center(whole, SHORTER_SIDE, height, width).permute(1, 2, 0).numpy()
    image = cv2.cvtColor(np.ascontiguousarray(pixels), cv2.COLOR_RGB2GRAY)
    random = np.random.default_rng((seed, 1, number))
    chosen = _non_max_suppression(_detect(image), 4 * most)
    patches = [[_patch(image, point)] for point in chosen]
    for _ in range(copies):
        warp = _random_warp(image.shape, random)
        copy = _photometric_jitter(cv2.warpPerspective(image, warp, image.shape[::-1], flags=cv2.INTER_LINEAR), random)
        there = _detect(copy)
        # key points whose patch would show what lies outside the image are none
        inside = cv2.warpPerspective(np.full_like(image, 255), warp, image.shape[::-1])
        there = [point for point in there if (_patch(inside, point) == 255).all()]
        for number_of_point, again in _match_keypoints(chosen, there, warp):
            patches[number_of_point].append(_patch(copy, again))
    return [np.stack(group) for group in patches if len(group) > 1][:most]


def _opencv() -> Any:
    try:
        import cv2
    except ImportError as error:
        raise TinvError("PhotoPatches finds key points with OpenCV: pip install 'tinv[patches]'") from error
    # one image a thread is what runs side by side
    cv2.setNumThreads(1)
    return cv2


def _patch_extent(point: KeyPoint) -> float:
    return EXTENT * float(point.size)


def _detect(image: NDArray[np.uint8]) -> list[KeyPoint]:
    """Returns the SIFT key points whose patches lie in the image, the strongest first."""
    height, width = image.shape
    kept = []
    for point in _opencv().SIFT_create().detect(image, None):
        # a turned square extends as far as its half diagonal
        radius = _patch_extent(point) / 2**0.5
        x, y = point.pt
        inside = radius <= x < width - radius and radius <= y < height - radius
        if inside and LEAST_EXTENT <= _patch_extent(point) <= MOST_EXTENT:
            kept.append(point)
    # ties by position, so that the order is the same everywhere
    return sorted(kept, key=lambda point: (-point.response, point.pt, point.angle))


def _non_max_suppression(points: Sequence[KeyPoint], most: int) -> list[KeyPoint]:
    """Returns the first of all points of about one position and scale: their patches would show the same."""
    kept: list[KeyPoint] = []
    for point in points:
        x, y = point.pt
        alike = any(
            np.hypot(x - other.pt[0], y - other.pt[1]) < 0.25 * _patch_extent(other)
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
    step = _patch_extent(point) / SIDE
    angle = np.deg2rad(point.angle)
    along, across = np.cos(angle) * step, np.sin(angle) * step
    middle = (SIDE - 1) / 2
    x = point.pt[0] - along * middle + across * middle
    y = point.pt[1] - across * middle - along * middle
    affine = np.array([[along, -across, x], [across, along, y]])
    if step > 1:
        # averages before it samples
        image = cv2.GaussianBlur(image, (0, 0), 0.5 * step)
    taken: NDArray[np.uint8] = cv2.warpAffine(
        image, affine, (SIDE, SIDE), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    )
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


def _photometric_jitter(image: NDArray[np.uint8], random: np.random.Generator) -> NDArray[np.uint8]:
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


def _match_keypoints(
    chosen: Sequence[KeyPoint], there: Sequence[KeyPoint], warp: NDArray[np.float64]
) -> list[tuple[int, KeyPoint]]:
    """Returns which points are found in a warped copy, each with the nearest key point that agrees."""
    if not there:
        return []
    positions = np.array([point.pt for point in there])
    sizes = np.array([point.size for point in there])
    angles = np.deg2rad([point.angle for point in there])
    found = []
    for number, point in enumerate(chosen):
        center = _warped(warp, np.array(point.pt))
        # how the warp scales and turns at this point: by what it does to a step along the key point's direction
        angle = np.deg2rad(point.angle)
        step = 0.1 * np.array([[np.cos(angle), np.sin(angle)], [-np.sin(angle), np.cos(angle)]])
        along, across = (_warped(warp, np.array(point.pt) + by) - center for by in step)
        area = abs(along[0] * across[1] - along[1] * across[0]) ** 0.5 / 0.1
        size, angle = point.size * area, np.arctan2(along[1], along[0])
        away = np.hypot(*(positions - center).T)
        turned = np.abs((angles - angle + np.pi) % (2 * np.pi) - np.pi)
        good = (away <= NEAR * EXTENT * size) & (np.abs(np.log2(sizes / size)) <= OCTAVES) & (turned <= ANGLE)
        if good.any():
            found.append((number, there[int(np.where(good, away, np.inf).argmin())]))
    return found


def _warped(warp: NDArray[np.float64], point: NDArray[np.float64]) -> NDArray[np.float64]:
    x, y, w = warp @ np.array([*point, 1.0])
    warped: NDArray[np.float64] = np.array([x, y]) / w
    return warped
