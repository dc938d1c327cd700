"""How invariant a network is to shifts of images in a folder: all measures in one pass, as an object."""

from __future__ import annotations

from inspect import signature
from pathlib import Path
from typing import Any, Literal, get_args

from torch import nn

from tinv.data.formats.images import ImageFiles, OnError, find_images, subsample_evenly
from tinv.deprecation import renamed
from tinv.errors import TinvError
from tinv.evaluation.images import ImageLayout, Photographs
from tinv.evaluation.invariance_report import InvarianceReport
from tinv.evaluation.measuring import MeasuringPass
from tinv.evaluation.networks import normalization_of
from tinv.evaluation.protocol import Protocol, ProtocolName, load_protocol
from tinv.evaluation.running import Precision, device_of
from tinv.metrics import (
    CenterAccuracy,
    DiagonalAccuracy,
    InvarianceMetric,
    LayerEquivariance,
    LieDerivative,
    ShiftComb,
    ShiftConsistency,
    ShiftRing,
    TranslationSensitivityMap,
    WorstCaseAccuracy,
)
from tinv.translation import CANVASES, ShiftMode
from tinv.utils.arguments import NonNegativeInt, PositiveInt, Seed, checked

Measure = Literal[
    "consistency", "diagonal", "worst_case", "ring", "comb", "map", "layers", "attribution", "gallery", "lie"
]
MEASURES: tuple[Measure, ...] = tuple(measure for measure in get_args(Measure) if measure != "lie")
"""What is measured if nothing is said; the Lie derivative needs a network that forward mode can differentiate."""

MAP_IMAGES = 128
RING_IMAGES = 1024
COMB_IMAGES = 64
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
    on_error: OnError = "raise",
    batch_size: PositiveInt = 32,
    workers: NonNegativeInt = 0,
    seed: Seed = 0,
    device: str = "auto",
    precision: Precision = "32",
    protocol: ProtocolName | None = None,
    as_published: bool = False,
) -> InvarianceReport:
    """Measures how invariant a network is to shifts, on a folder of images, and which part breaks it.

    Args:
        network: Maps images (N, C, H, W) to (N, num_classes); set to evaluation mode, moved to the device.
        images: Folder; class folders are labels if they are as many as the classes, or some of ImageNet's.
        num_classes: Output classes.
        input_size: Pixels (H, W) that the network sees.
        metrics: What is measured; `lie`, the Lie derivative, has to be asked for.
        mode: `crop` cuts windows of a larger photograph, `camera` at twice the resolution, reduced afterwards; `zero`
            moves it on a blank canvas, `mean` on one of its mean colour; `circular` wraps it, as does `fractional`, by
            parts of a pixel.
        offset_range: Views lie at offsets from 0 to so many pixels, a multiple of 4; the map holds shifts up to half of
            it to each side.
        passes: Pairs of views of each image.
        max_images: Spread evenly over the folder; None for all.
        mean: Mean of each channel, subtracted from values in 0..1; None takes the network's own, else ImageNet's.
        std: Standard deviation of each channel, divided by; None as for `mean`.
        plain: The network without policies, for the attribution; None for `network` itself.
        partial: Whether the attribution may leave layers that cannot be made exact.
        on_error: What a damaged file does.
        batch_size: Images a batch.
        workers: Processes that read; 0 reads in this one.
        seed: Seed of shifts and intervals; they depend on neither batch size nor workers.
        device: `auto` takes a GPU if there is one.
        precision: `32` shows exactness, `bf16` is faster on GPUs and on CPUs with AMX.
        protocol: Measures what a paper measured, as it did: layout, shifts and metrics are the protocol's.
        as_published: Whether the peculiarities of the paper's public code are repeated, such as one shift a batch.

    Raises:
        TinvError: For a value out of range, an option that a protocol decides, a folder without images, a damaged file
            (unless skipped), or a network that cannot take the images.
    """
    size = (input_size, input_size) if isinstance(input_size, int) else input_size
    recipe = None if protocol is None else load_protocol(protocol)
    if recipe is not None:
        _check_protocol(recipe, size, metrics, mode, offset_range, passes)
        size, mode, offset_range = (recipe.input_size,) * 2, recipe.mode, recipe.offset_range
    elif as_published:
        raise TinvError("as_published repeats what the code of a paper does; name its protocol too")
    files = checked_images(images, size, mode, offset_range, max_images, protocol)
    resize = None if recipe is None else recipe.resize
    layout = ImageLayout(size, offset_range, mode, *normalization_of(plain or network, mean, std), resize)
    photographs = Photographs(files, layout, batch_size, workers, on_error)
    measuring = MeasuringPass(network, plain or network, photographs, num_classes, seed, device_of(device), precision)
    if recipe is not None:
        report = measuring.run(recipe.make_metrics(seed, as_published), attribute=False, partial=partial)
        report.protocol = recipe.card(as_published)
        return report
    chosen = _metrics(metrics, mode, offset_range, passes, seed)
    return measuring.run(chosen, "attribution" in metrics, partial, "gallery" in metrics)


def _check_protocol(recipe: Protocol, size: tuple[int, int], *given: Any) -> None:
    """Refuses options that a protocol decides; those that were left out have their defaults."""
    defaults = {name: parameter.default for name, parameter in signature(measure).parameters.items()}
    names = ("metrics", "mode", "offset_range", "passes")
    for name, value in zip(names, given, strict=True):
        if value != defaults[name]:
            raise TinvError(f"protocol {recipe.name} says {name}; leave {name} out, or the protocol")
    if size not in ((recipe.input_size,) * 2, (defaults["input_size"],) * 2):
        raise TinvError(
            f"protocol {recipe.name} shows images of {recipe.input_size} pixels a side, not {size[0]}x{size[1]}; leave "
            "input_size out, or the protocol"
        )


@checked
def checked_images(
    images: str | Path,
    size: tuple[int, int],
    mode: ShiftMode,
    offset_range: NonNegativeInt,
    max_images: PositiveInt | None,
    protocol: ProtocolName | None = None,
) -> ImageFiles:
    """Returns the images that will be measured; see `measure` for the arguments.

    Raises:
        TinvError: For a value out of range, or a folder without images.
    """
    if protocol is None and (offset_range < 4 or offset_range % 4):
        raise TinvError(f"offset_range must be a multiple of 4 pixels, not {offset_range}")
    if min(size) < 1:
        raise TinvError(f"input_size must be 1 pixel or more, not {min(size)}")
    if mode in CANVASES and min(size) <= offset_range:
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
        "ring": ShiftRing(1, mode=mode, max_images=RING_IMAGES, seed=seed),
        "comb": ShiftComb(shift, mode, max_images=COMB_IMAGES, seed=seed),
        "map": TranslationSensitivityMap(shift // 2, shift // 4, mode, max_images=MAP_IMAGES),
        "layers": LayerEquivariance(shift, mode, max_images=LAYER_IMAGES, seed=seed),
        "lie": LieDerivative(seed=seed),
    }
    return {"acc": CenterAccuracy(seed), **{name: metric for name, metric in every.items() if name in wanted}}
