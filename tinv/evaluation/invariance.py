"""How invariant a network is to shifts of images: all measures in one pass, as an object."""

from __future__ import annotations

import warnings
from inspect import signature
from pathlib import Path
from typing import Any, Literal, cast, get_args

import torch
from torch import nn

from tinv.data.formats.images import ImageFiles, OnError
from tinv.deprecation import renamed
from tinv.errors import TinvError, TinvWarning
from tinv.evaluation.callables import Network, as_module, outputs_of, refuse_without_layers
from tinv.evaluation.image_checks import check_shifts
from tinv.evaluation.image_sources import (
    Images,
    ImageSource,
    find_files,
    given_images,
    is_files,
    transformed_images,
)
from tinv.evaluation.images import ImageLayout, Photographs
from tinv.evaluation.invariance_report import InvarianceReport
from tinv.evaluation.measuring import MeasuringPass
from tinv.evaluation.networks import normalization_of
from tinv.evaluation.protocol import Protocol, ProtocolName, load_protocol
from tinv.evaluation.running import Precision, device_of
from tinv.evaluation.selected import SelectName, select_options
from tinv.evaluation.transformed_files import Transform
from tinv.metrics import (
    CenterAccuracy,
    DiagonalAccuracy,
    InvarianceMetric,
    LayerEquivariance,
    LayerLieDerivative,
    LieDerivative,
    ShiftComb,
    ShiftConsistency,
    ShiftRing,
    TranslationSensitivityMap,
    WorstCaseAccuracy,
)
from tinv.select.scores import ScoreName
from tinv.translation import ShiftMode
from tinv.utils.arguments import NonNegativeInt, PositiveInt, Seed, checked

Measure = Literal[
    "consistency",
    "diagonal",
    "worst_case",
    "ring",
    "comb",
    "map",
    "layers",
    "attribution",
    "gallery",
    "attribution_by_conversion",
    "lie",
    "lie_layers",
]
NOT_ASKED: tuple[Measure, ...] = ("attribution_by_conversion", "lie", "lie_layers")
MEASURES: tuple[Measure, ...] = tuple(measure for measure in get_args(Measure) if measure not in NOT_ASKED)
"""What is measured if nothing is said. The Lie derivative needs a network that forward mode can differentiate, and a
conversion of trained weights damages them."""

NEEDS_LAYERS: tuple[Measure, ...] = ("comb", "layers", "attribution", "attribution_by_conversion", "lie", "lie_layers")
"""Measures that look into the network or differentiate it, which only a module of torch allows."""

INPUT_SIZE = 224
"""Pixels a side that a network sees of photographs in files, if nothing is said."""

MAP_IMAGES = 128
RING_IMAGES = 1024
COMB_IMAGES = 32
LAYER_IMAGES = 32


@renamed(motion="mode", max_shift="offset_range")
@checked
def measure(
    network: Network,
    images: Images,
    *,
    num_classes: PositiveInt | None = None,
    input_size: int | tuple[int, int] | None = None,
    metrics: tuple[Measure, ...] | list[Measure] = MEASURES,
    mode: ShiftMode = "crop",
    offset_range: NonNegativeInt = 32,
    passes: PositiveInt = 5,
    max_images: PositiveInt | None = None,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    transform: Transform | None = None,
    plain: nn.Module | None = None,
    partial: bool = False,
    attribution_images: PositiveInt = 64,
    on_error: OnError = "raise",
    batch_size: PositiveInt = 32,
    workers: NonNegativeInt = 0,
    seed: Seed = 0,
    device: str = "auto",
    precision: Precision = "32",
    protocol: ProtocolName | None = None,
    as_published: bool = False,
    select: SelectName | None = None,
    select_range: PositiveInt | None = None,
    select_patch: PositiveInt | None = None,
    select_score: ScoreName | None = None,
) -> InvarianceReport:
    """Measures how invariant a network is to shifts, on images, and which part breaks it.

    Args:
        network: Any callable that maps images (N, C, H, W) to vectors (N, num_classes). A module of torch is set to
            evaluation mode and moved to the device; anything else is called as it is, and only what needs no layers is
            measured by default.
        images: A folder, whose class folders are labels if they are as many as the classes, or some of ImageNet's; a
            list of paths; a tensor (N, C, H, W), or a tuple of it and classes (N,); or a data loader or another
            iterable of batches, images or (images, classes, ...). Tensors and batches are as the network takes them,
            with the room of the mode: `crop` needs offset_range pixels an axis more than input_size, `zero` so many
            zeros around the content that none leaves the image. Shifts follow the place of an image, so that a loader
            must not shuffle if numbers are to be the same again.
        num_classes: Numbers that the network returns for each image; None takes them from its first answer.
        input_size: Pixels (H, W) that the network sees; None for 224 of files, and for the size of tensors, batches
            and transformed images, except under `crop`, which needs it.
        metrics: What is measured; `lie` and `lie_layers`, the Lie derivative and its split over layers, and
            `attribution_by_conversion`, the same weights with one part after the other made exact, have to be asked
            for. What looks into layers, converts or differentiates needs a module of torch.
        mode: `crop` cuts windows of a larger photograph, `camera` at twice the resolution, reduced afterwards; `zero`
            moves it on a blank canvas, `mean` on one of its mean colour; `circular` wraps it, as does `fractional`, by
            parts of a pixel.
        offset_range: Views lie at offsets from 0 to so many pixels, a multiple of 4; the map holds shifts up to half of
            it to each side.
        passes: Pairs of views of each image.
        max_images: Spread evenly over folder, list or tensor, the first of batches; None for all.
        mean: Mean of each channel, subtracted from values in 0..1 of files; None takes the network's own, else
            ImageNet's.
        std: Standard deviation of each channel, divided by; None as for `mean`.
        transform: Takes a PIL image (RGB, upright) of a file and returns a float tensor (C, h, w) as the network takes
            it, with the room of the mode, in place of tinv's own layout and of mean and std.
        plain: The network without policies, for the attribution; None for `network` itself.
        partial: Whether the attribution may leave layers that cannot be made exact.
        attribution_images: Most images that `attribution` looks at, spread evenly over those measured. Each costs four
            views of the network and four of a larger cut, which can hold tens of times the pixels.
        on_error: What a damaged file does.
        batch_size: Images a batch.
        workers: Processes that read; 0 reads in this one.
        seed: Seed of shifts and intervals; they depend on neither batch size nor workers.
        device: `auto` takes a GPU if there is one.
        precision: `32` shows exactness, `bf16` is faster on GPUs and on CPUs with AMX.
        protocol: Measures what a paper measured, as it did: layout, shifts and metrics are the protocol's.
        as_published: Whether the peculiarities of the paper's public code are repeated, such as one shift a batch.
        select: Measures the network inside a module of `tinv.select`, which chooses by content what it is shown, beside
            the network without it: `crop` cuts out of a larger window (without: its middle), `circular` rolls the
            image, `anchor` rolls it to the patches of a transformer. What needs layers is not measured.
        select_range: Positions of the crop along each axis, for `crop`; the window is as many pixels larger than
            input_size, less 1. None for 32; `tinv.select.range_for` says how many are needed.
        select_patch: Pixels a side of a patch, for `anchor`; None for 16.
        select_score: What is largest at the chosen place, for `crop` and `circular`; None for `random`.

    Raises:
        TinvError: For a value out of range, an option that a protocol decides or the select does not take, no images,
            images without the room of the mode, a damaged file (unless skipped), a network that cannot take the images
            or returns no vectors, and a measure that it does not take.

    Examples:
        >>> report = measure(
        ...     lambda images: images.mean((2, 3)),
        ...     torch.rand(4, 3, 16, 16),
        ...     metrics=["consistency"],
        ...     mode="circular",
        ...     offset_range=8,
        ... )
        >>> report.metrics["consistency"]
        100.0
    """
    size = (input_size, input_size) if isinstance(input_size, int) else input_size
    recipe = None if protocol is None else load_protocol(protocol)
    if recipe is not None:
        _check_protocol(recipe, size, metrics, mode, offset_range, passes)
        size, mode, offset_range = (recipe.input_size,) * 2, recipe.mode, recipe.offset_range
    elif as_published:
        raise TinvError("as_published repeats what the code of a paper does; name its protocol too")
    else:
        metrics = _measurable(metrics, network, select)
    selecting = select_options(select, select_range, select_patch, select_score)
    if selecting is not None and recipe is not None and selecting.name == "crop":
        raise TinvError(f"protocol {recipe.name} says which window is shown, and select crop needs a larger one")
    module = as_module(network)
    if plain is not None and module is not network:
        raise TinvError("plain is for the attribution, which needs a network that is an nn.Module; leave it out")
    on = device_of(device)
    if selecting is not None and size is not None:
        size = selecting.window(size)
    source: ImageSource
    if is_files(images) and transform is None:
        normalization = normalization_of(plain or module, mean, std)
        seen = size or (INPUT_SIZE, INPUT_SIZE)
        seen = seen if size or selecting is None else selecting.window(seen)
        files = checked_images(cast(Any, images), seen, mode, offset_range, max_images, protocol)
        layout = ImageLayout(seen, offset_range, mode, *normalization, None if recipe is None else recipe.resize)
        source = Photographs(files, layout, batch_size, workers, on_error)
    else:
        step = 4 if recipe is None else 1
        source = _as_given(images, transform, size, mode, offset_range, step, max_images, batch_size, workers, on_error)
        _refuse_normalization(mean, std, transform)
    example = torch.zeros(1, len(source.layout.mean), *source.layout.size, dtype=source.dtype)
    shown, alone = (module, None) if selecting is None else selecting.around(module, source.layout.size)
    classes = outputs_of(shown, example, on)
    if num_classes not in (None, classes):
        raise TinvError(f"num_classes is {num_classes}, and the network returns {classes} numbers for each image")
    measuring = MeasuringPass(shown, plain or module, source, classes, seed, on, precision, alone)
    if recipe is not None:
        chosen, without = (recipe.make_metrics(seed, as_published) for _ in range(2))
        report = measuring.run(chosen, (), partial, attribution_images, without)
        report.protocol = recipe.card(as_published)
    else:
        chosen, without = (_metrics(metrics, mode, offset_range, passes, seed) for _ in range(2))
        report = measuring.run(chosen, metrics, partial, attribution_images, without)
    report.select = {} if selecting is None else selecting.card()
    return report


def _check_protocol(recipe: Protocol, size: tuple[int, int] | None, *given: Any) -> None:
    """Refuses options that a protocol decides; those that were left out have their defaults."""
    defaults = {name: parameter.default for name, parameter in signature(measure).parameters.items()}
    names = ("metrics", "mode", "offset_range", "passes")
    for name, value in zip(names, given, strict=True):
        if value != defaults[name]:
            raise TinvError(f"protocol {recipe.name} says {name}; leave {name} out, or the protocol")
    if size not in (None, (recipe.input_size,) * 2):
        raise TinvError(
            f"protocol {recipe.name} shows images of {recipe.input_size} pixels a side, not {size[0]}x{size[1]}; leave "
            "input_size out, or the protocol"
        )


def _measurable(
    metrics: tuple[Measure, ...] | list[Measure], network: Network, select: SelectName | None
) -> list[Measure]:
    """Returns the measures that a network allows; those that were not chosen are left out, and named."""
    if tuple(metrics) != MEASURES or (isinstance(network, nn.Module) and select is None):
        refuse_without_layers(metrics, NEEDS_LAYERS, network)
        if select is not None and (found := [name for name in metrics if name in NEEDS_LAYERS]):
            raise TinvError(
                f"metrics: {', '.join(found)} cannot be measured with select {select}, whose choice has neither layers "
                "nor a derivative; leave them out, or measure the network without select"
            )
        return list(metrics)
    left = [name for name in metrics if name in NEEDS_LAYERS]
    why = (
        "the network is no nn.Module, whose layers could be seen" if select is None else f"select {select} is no layer"
    )
    warnings.warn(f"{why}: measured without {', '.join(left)}", TinvWarning, stacklevel=5)
    return [name for name in metrics if name not in left]


def _as_given(
    images: Any,
    transform: Transform | None,
    size: tuple[int, int] | None,
    mode: ShiftMode,
    offset_range: int,
    step: int,
    max_images: int | None,
    batch_size: int,
    workers: int,
    on_error: OnError,
) -> ImageSource:
    if transform is None:
        return given_images(images, size, mode, offset_range, max_images, batch_size, step)
    if not is_files(images):
        raise TinvError(
            f"transform is for files, and images is a {type(images).__name__}, which is taken as it is; leave it out"
        )
    files = find_files(images, max_images)
    return transformed_images(files, transform, size, mode, offset_range, batch_size, workers, on_error, step)


def _refuse_normalization(mean: object, std: object, transform: object) -> None:
    """Refuses what would have no effect on images that are taken as they are."""
    given = [name for name, value in (("mean", mean), ("std", std)) if value is not None]
    if given:
        what = "what the transform returns is" if transform is not None else "tensors and batches are"
        raise TinvError(f"{given[0]} is for files in tinv's own layout; {what} taken as given, so leave it out")


@checked
def checked_images(
    images: str | Path | list[str | Path] | tuple[str | Path, ...],
    size: tuple[int, int],
    mode: ShiftMode,
    offset_range: NonNegativeInt,
    max_images: PositiveInt | None,
    protocol: ProtocolName | None = None,
) -> ImageFiles:
    """Returns the image files that will be measured; see `measure` for the arguments.

    Raises:
        TinvError: For a value out of range, or a folder without images.
    """
    if protocol is None:
        check_shifts(size, mode, offset_range)
    return find_files(images, max_images)


def _metrics(
    wanted: tuple[Measure, ...] | list[Measure], mode: ShiftMode, shift: int, passes: int, seed: int
) -> dict[str, InvarianceMetric]:
    every: dict[str, InvarianceMetric] = {
        "consistency": ShiftConsistency(shift, mode, passes, seed=seed),
        "diagonal": DiagonalAccuracy(shift, mode, step=shift // 4, seed=seed),
        "worst_case": WorstCaseAccuracy(shift, mode, step=shift // 4, seed=seed),
        "ring": ShiftRing(1, mode=mode, max_images=RING_IMAGES, seed=seed),
        "comb": ShiftComb(shift, mode, max_images=COMB_IMAGES, seed=seed),
        "map": TranslationSensitivityMap(shift // 2, shift // 4, mode, max_images=MAP_IMAGES, seed=seed),
        "layers": LayerEquivariance(shift, mode, max_images=LAYER_IMAGES, seed=seed),
        "lie": LieDerivative(seed=seed),
        "lie_layers": LayerLieDerivative(seed=seed),
    }
    return {"acc": CenterAccuracy(seed), **{name: metric for name, metric in every.items() if name in wanted}}
