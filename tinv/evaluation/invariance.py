"""How invariant a network is to shifts of images in a folder: all measures in one pass, as an object."""

from __future__ import annotations

import json
import math
import warnings
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal, get_args

import torch
from torch import Tensor, nn

from tinv.artifacts import write_artifacts
from tinv.data.formats.images import ImageFiles, OnError, find_images, subsample_evenly
from tinv.deprecation import renamed
from tinv.errors import TinvError, TinvWarning
from tinv.evaluation.attribution import Variant, explanation, is_marked, share, variants
from tinv.evaluation.images import ImageLayout, Photographs, class_numbers
from tinv.evaluation.networks import normalization_of
from tinv.evaluation.running import Precision, autocast, device_of, print_table
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
from tinv.metrics.answers import undefined_message
from tinv.metrics.views import UNLABELLED, center_view
from tinv.models.features import as_logits
from tinv.translation import ShiftMode
from tinv.utils.arguments import NonNegativeInt, PositiveInt, Seed, checked
from tinv.utils.io import write_atomically
from tinv.utils.progress import progress

Measure = Literal["consistency", "diagonal", "worst_case", "map", "layers", "attribution", "lie"]
MEASURES: tuple[Measure, ...] = tuple(measure for measure in get_args(Measure) if measure != "lie")
"""What is measured if nothing is said; the Lie derivative needs a network that forward mode can differentiate."""

MAP_IMAGES = 128
LAYER_IMAGES = 32
ATTRIBUTION_IMAGES = 32
"""Exact networks cost many times the plain one: they see the first images only."""
ATTRIBUTION_PASSES = 2


@dataclass
class InvarianceReport:
    """What `tinv.measure` found.

    Attributes:
        images: Number of images that were measured.
        labelled: Whether the folders were the network's classes.
        metrics: Numbers by name, with `NAME_low` and `NAME_high` the ends of 95% bootstrap intervals over images.
            Accuracies and consistencies are percentages, cosine similarities lie in -1..1. What is not defined is left
            out.
        skipped: Paths of damaged files.
        partial: Layers that a policy asked for was not put on.
        attribution: Consistency, accuracy and share of each condition, and `explanation` in sentences; empty if it was
            not asked for.
        layers: `shift` in pixels, and relative equivariance errors of every layer; empty if they were not asked for.
        shifts: How images were moved, for titles.
        measured: The metrics themselves, with what they hold beyond numbers, by name.
    """

    images: int
    labelled: bool
    metrics: dict[str, float]
    skipped: list[str] = field(default_factory=list)
    partial: list[dict[str, str]] = field(default_factory=list)
    attribution: dict[str, Any] = field(default_factory=dict)
    layers: dict[str, Any] = field(default_factory=dict)
    shifts: str = ""
    measured: dict[str, InvarianceMetric] = field(default_factory=dict, repr=False)

    def to_dict(self) -> dict[str, Any]:
        """Returns everything but the metrics themselves, as JSON can hold it."""
        found = {key: getattr(self, key) for key in ("images", "skipped", "labelled", "partial", "metrics")}
        return found | {key: part for key in ("attribution", "layers") if (part := getattr(self, key))}

    def save(self, folder: Path, **more: Any) -> None:
        """Writes `measure.json`, then figures and arrays of the metrics.

        Args:
            folder: To write to, which is there.
            **more: Put into `measure.json` first.
        """
        write_atomically(folder / "measure.json", json.dumps({**more, **self.to_dict()}, indent=2) + "\n")
        for name, metric in self.measured.items():
            write_artifacts(metric, folder, name)

    def rows(self) -> list[tuple[str, str, str]]:
        """Returns a line for each number: its name, its value and the ends of its interval, as they are printed."""
        units = {key: metric.unit_of(key) for metric in self.measured.values() for key in metric.compute()}
        found = []
        for key in (k for k in self.metrics if not k.endswith(("_low", "_high"))):
            digits = 1 if units.get(key) == "percent" else 3
            ends = [self.metrics[f"{key}_{end}"] for end in ("low", "high") if f"{key}_{end}" in self.metrics]
            between = " .. ".join(f"{end:.{digits}f}" for end in ends) if len(ends) == 2 else ""
            found.append((key, f"{self.metrics[key]:.{digits}f}", between))
        return found

    def print(self, title: str) -> None:
        """Prints the numbers as a table, and what the attribution says.

        Args:
            title: Name of the network and its policy.
        """
        heading = f"{title}: {self.images} images, {self.shifts}"
        print_table(heading, ("measure", "value", "95% interval"), self.rows())
        for line in self.attribution.get("explanation", []):
            print(line)
        if self.skipped:
            print(f"{len(self.skipped)} damaged files were skipped; measure.json names them")

    def __str__(self) -> str:
        lines = [f"{self.images} images"]
        lines += [f"{name:<34}{value:>8}  {between}".rstrip() for name, value, between in self.rows()]
        return "\n".join([*lines, *self.attribution.get("explanation", [])])


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
) -> InvarianceReport:
    """Measures how invariant a network is to shifts, on a folder of images, and which part breaks it.

    Args:
        network: Maps images (N, C, H, W) to (N, num_classes); set to evaluation mode, moved to the device.
        images: Folder; class folders are labels if they are as many as the classes, or some of ImageNet's.
        num_classes: Output classes.
        input_size: Pixels (H, W) that the network sees.
        metrics: What is measured; `lie`, the Lie derivative, has to be asked for.
        mode: `crop` cuts windows of a larger photograph, `zero` moves it on a blank canvas, `circular` wraps it.
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

    Raises:
        TinvError: For a value out of range, a folder without images, a damaged file (unless skipped), or a network
            that cannot take the images.
    """
    size = (input_size, input_size) if isinstance(input_size, int) else input_size
    files = checked_images(images, size, mode, offset_range, max_images)
    layout = ImageLayout(size, offset_range, mode, *normalization_of(plain or network, mean, std))
    photographs = Photographs(files, layout, batch_size, workers, on_error)
    return _Pass(network, plain or network, photographs, num_classes, seed, device_of(device), precision).run(
        _metrics(metrics, mode, offset_range, passes, seed), "attribution" in metrics, partial
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


@dataclass
class _Pass:
    """One pass over the images, in which every metric sees every batch."""

    network: nn.Module
    plain: nn.Module
    photographs: Photographs
    num_classes: int
    seed: int
    device: torch.device
    precision: Precision

    def __post_init__(self) -> None:
        self.shift, self.mode = self.photographs.layout.offset_range, self.photographs.layout.mode
        folder, folders = self.photographs.files.folder, self.photographs.files.classes
        self.classes = class_numbers(folders, self.num_classes)
        if folders and self.classes is None:
            message = f"{folder} has {len(folders)} class folders, the network {self.num_classes} classes"
            warnings.warn(f"{message}: measured without labels", TinvWarning, stacklevel=6)

    def run(self, metrics: dict[str, InvarianceMetric], attribute: bool, partial: bool) -> InvarianceReport:
        for net in (self.network, self.plain):
            net.eval().to(self.device).to(memory_format=torch.channels_last)
        metrics = {name: metric.to(self.device) for name, metric in metrics.items()}
        example = torch.zeros(1, len(self.photographs.layout.mean), *self.photographs.layout.size)
        parts: list[Variant] = []
        if attribute:
            consistency = ShiftConsistency(self.shift, self.mode, ATTRIBUTION_PASSES, seed=self.seed)
            parts = variants(self.plain, example.to(self.device), self.mode, consistency, partial)
            for part in parts:
                part.consistency.to(self.device)
        for name, metric in metrics.items():
            try:
                metric.check(self.network, example.shape[1:])
            except TinvError as error:
                raise TinvError(f"metrics: {name} cannot be measured: {error}") from error
        seen = self.look(metrics, parts)
        if not seen:
            raise TinvError(f"no image of {self.photographs.files.folder} could be read")
        return self.report(metrics, parts, seen)

    def look(self, metrics: dict[str, InvarianceMetric], parts: list[Variant]) -> int:
        """Shows every image to every metric; returns how many there were."""
        seen, photographs = 0, self.photographs
        batches = -(-len(photographs.files) // photographs.batch_size)
        with torch.no_grad(), autocast(self.precision, self.device):
            for images, targets, index in progress(photographs.batches(self.device), "measuring batches", batches):
                targets = self.labels(targets)
                logits = as_logits(self.network(center_view(images, self.shift, self.mode)))
                for metric in metrics.values():
                    given = center_view(images, self.shift - metric.crop_margin, self.mode)
                    metric.update(self.network, given, logits, targets, index)
                some = slice(0, max(0, ATTRIBUTION_IMAGES - seen))
                for part in parts:
                    if part.network is not None and len(images[some]):
                        part.consistency.update(part.network, images[some], logits[some], targets[some], index[some])
                        part.count(part.network(center_view(images[some], self.shift, self.mode)), targets[some])
                seen += len(images)
        return seen

    def labels(self, targets: Tensor) -> Tensor:
        """Returns the network's classes of folders (N,), or what stands for none."""
        return torch.full_like(targets, UNLABELLED) if self.classes is None else self.classes.to(self.device)[targets]

    def report(self, metrics: dict[str, InvarianceMetric], parts: list[Variant], seen: int) -> InvarianceReport:
        results = {key: float(value) for metric in metrics.values() for key, value in metric.compute().items()}
        if (message := undefined_message(results)) is not None:
            warnings.warn(message, TinvWarning, stacklevel=6)
        found = InvarianceReport(
            images=seen,
            labelled=self.classes is not None,
            # agreement among right answers is not defined where none is right; JSON knows no NaN
            metrics={key: value for key, value in results.items() if not math.isnan(value)},
            skipped=sorted(self.photographs.skipped),
            partial=[vars(note) for note in getattr(getattr(self.network, "conversion", None), "partial", [])],
            shifts=f"{self.mode}, views up to {self.shift} pixels apart",
            measured=metrics,
        )
        if parts:
            found.attribution = {
                "consistency": {part.name: part.percent for part in parts},
                "accuracy": {part.name: part.accuracy for part in parts},
                "share": {part.name: share(part, parts[0]) for part in parts[1:]},
                "accuracy_fell": [part.name for part in parts[1:] if is_marked(part, parts[0])],
                "partial": {part.name: part.partial for part in parts if part.partial},
                "refused": {part.name: part.refusal for part in parts if part.network is None},
                "explanation": explanation(parts, self.mode),
            }
        layers = metrics.get("layers")
        if isinstance(layers, LayerEquivariance) and layers.layers is not None:
            errors = [vars(e) for e in layers.errors() if not math.isnan(e.error)]
            found.layers = {"shift": layers.layers.shift, "errors": errors}
        return found
