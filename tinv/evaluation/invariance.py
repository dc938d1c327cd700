"""How invariant a network is to shifts of images in a folder: all measures in one pass, as an object."""

from __future__ import annotations

from pathlib import Path
from typing import Literal, get_args

from torch import nn

from tinv.data.formats.images import ImageFiles, OnError, find_images, subsample_evenly
from tinv.deprecation import renamed
from tinv.errors import TinvError
from tinv.evaluation.images import ImageLayout, Photographs
from tinv.evaluation.invariance_report import InvarianceReport
from tinv.evaluation.measuring import MeasuringPass
from tinv.evaluation.networks import normalization_of
from tinv.evaluation.running import Precision, device_of
from tinv.metrics import (
    CenterAccuracy,
    DiagonalAccuracy,
    InvarianceMetric,
    LayerEquivariance,
    LieDerivative,
    ShiftConsistency,
    TranslationSensitivityMap,
    WorstCaseAccuracy,
)
from tinv.translation import ShiftMode
from tinv.utils.arguments import NonNegativeInt, PositiveInt, Seed, checked

Measure = Literal[
    "consistency", "diagonal", "worst_case", "map", "layers", "attribution", "attribution_by_conversion", "lie"
]
NOT_ASKED: tuple[Measure, ...] = ("attribution_by_conversion", "lie")
MEASURES: tuple[Measure, ...] = tuple(measure for measure in get_args(Measure) if measure not in NOT_ASKED)
"""What is measured if nothing is said. The Lie derivative needs a network that forward mode can differentiate, and a
conversion of trained weights damages them."""

MAP_IMAGES = 128
LAYER_IMAGES = 32


@renamed(motion="mode", max_shift="offset_range")
@checked
def measure(
    network: nn.Module,
    images: str | Path,
    *,
    num_classes: PositiveInt = 1000,
    input_size: int | tuple[int, int] = 224,
    metrics: tuple[Measure, ...] | list[Measure] = MEASURES,
    mode: ShiftMode = "crop",
    offset_range: NonNegativeInt = 32,
    passes: PositiveInt = 5,
    max_images: PositiveInt | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    plain: nn.Module | None = None,
    partial: bool = False,
    attribution_images: PositiveInt = 256,
    on_error: OnError = "raise",
    batch_size: PositiveInt = 32,
    workers: NonNegativeInt = 0,
    seed: Seed = 0,
    device: str = "auto",
    precision: Precision = "32",
) -> InvarianceReport:
    """Measures how invariant a network is to shifts, on a folder of images, and which part breaks it.

    Args:
        network: Maps images (N, C, H, W) to (N, num_classes); set to evaluation mode, moved to the device.
        images: Folder; class folders are labels if they are as many as the classes, or some of ImageNet's.
        num_classes: Output classes.
        input_size: Pixels (H, W) that the network sees.
        metrics: What is measured; `lie`, the Lie derivative, and `attribution_by_conversion`, the same weights with one
            part after the other made exact, have to be asked for.
        mode: `crop` cuts windows of a larger photograph, `zero` moves it on a blank canvas, `circular` wraps it.
        offset_range: Views lie at offsets from 0 to so many pixels, a multiple of 4; the map holds shifts up to half of
            it to each side.
        passes: Pairs of views of each image.
        max_images: Spread evenly over the folder; None for all.
        mean: Mean of each channel, subtracted from values in 0..1; None takes the network's own, else ImageNet's.
        std: Standard deviation of each channel, divided by; None as for `mean`.
        plain: The network without policies, for the attribution; None for `network` itself.
        partial: Whether the attribution by conversion may leave layers that cannot be made exact.
        attribution_images: Most images that `attribution` looks at, spread evenly over those measured. Each costs four
            views of the network and four of a larger cut, which can hold tens of times the pixels.
        on_error: What a damaged file does.
        batch_size: Images a batch.
        workers: Processes that read; 0 reads in this one.
        seed: Seed of shifts and intervals; they depend on neither batch size nor workers.
        device: `auto` takes a GPU if there is one.
        precision: `32` shows exactness, `bf16` is faster on GPUs and on CPUs with AMX.

    Raises:
        TinvError: For a value out of range, a folder without images, a damaged file (unless skipped), or a network
            that cannot take the images.
    """
    size = (input_size, input_size) if isinstance(input_size, int) else input_size
    files = checked_images(images, size, mode, offset_range, max_images)
    layout = ImageLayout(size, offset_range, mode, *normalization_of(plain or network, mean, std))
    photographs = Photographs(files, layout, batch_size, workers, on_error)
    return MeasuringPass(network, plain or network, photographs, num_classes, seed, device_of(device), precision).run(
        _metrics(metrics, mode, offset_range, passes, seed), metrics, partial, attribution_images
    )


@checked
def checked_images(
    images: str | Path,
    size: tuple[int, int],
    mode: ShiftMode,
    offset_range: NonNegativeInt,
    max_images: PositiveInt | None,
) -> ImageFiles:
    """Returns the images that will be measured; see `measure` for the arguments.

    Raises:
        TinvError: For a value out of range, or a folder without images.
    """
    if offset_range < 4 or offset_range % 4:
        raise TinvError(f"offset_range must be a multiple of 4 pixels, not {offset_range}")
    if min(size) < 1:
        raise TinvError(f"input_size must be 1 pixel or more, not {min(size)}")
    if mode == "zero" and min(size) <= offset_range:
        raise TinvError(f"offset_range {offset_range} leaves no room for the image on a canvas of {min(size)} pixels")
    files = find_images(Path(images))
    return files if max_images is None else subsample_evenly(files, max_images)


def _metrics(
    wanted: tuple[Measure, ...] | list[Measure], mode: ShiftMode, shift: int, passes: int, seed: int
) -> dict[str, InvarianceMetric]:
    every: dict[str, InvarianceMetric] = {
        "consistency": ShiftConsistency(shift, mode, passes, seed=seed),
        "diagonal": DiagonalAccuracy(shift, mode, step=shift // 4, seed=seed),
        "worst_case": WorstCaseAccuracy(shift, mode, step=shift // 4, seed=seed),
        "map": TranslationSensitivityMap(shift // 2, shift // 4, mode, max_images=MAP_IMAGES),
        "layers": LayerEquivariance(shift, mode, max_images=LAYER_IMAGES, seed=seed),
        "lie": LieDerivative(seed=seed),
    }
    return {"acc": CenterAccuracy(seed), **{name: metric for name, metric in every.items() if name in wanted}}
