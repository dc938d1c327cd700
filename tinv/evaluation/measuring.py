"""One pass over images, in which every measure sees every batch."""

from __future__ import annotations

import math
import warnings
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor, nn

from tinv.data.formats.images import subsample_evenly
from tinv.errors import TinvError, TinvWarning
from tinv.evaluation.attribution import Variant, by_conversion, variants
from tinv.evaluation.context_attribution import ContextAttribution
from tinv.evaluation.images import Photographs, class_numbers
from tinv.evaluation.invariance_report import InvarianceReport
from tinv.evaluation.running import Precision, autocast
from tinv.metrics import InvarianceMetric, LayerEquivariance, ShiftConsistency
from tinv.metrics.answers import undefined_message
from tinv.metrics.views import UNLABELLED, center_view
from tinv.models.features import as_logits
from tinv.utils.progress import progress

ATTRIBUTION_IMAGES = 32
"""Exact networks cost many times the plain one: they see the first images only."""
ATTRIBUTION_PASSES = 2


@dataclass
class MeasuringPass:
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

    def run(
        self, metrics: dict[str, InvarianceMetric], wanted: Collection[str], partial: bool, most: int
    ) -> InvarianceReport:
        """Measures everything; see `tinv.measure`, `most` is its attribution_images."""
        for net in (self.network, self.plain):
            net.eval().to(self.device).to(memory_format=torch.channels_last)
        metrics = {name: metric.to(self.device) for name, metric in metrics.items()}
        example = torch.zeros(1, len(self.photographs.layout.mean), *self.photographs.layout.size)
        parts: list[Variant] = []
        context, refusal = self.context(most) if "attribution" in wanted else (None, "")
        if refusal or "attribution_by_conversion" in wanted:
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
        found = self.report(metrics, seen)
        if context is not None:
            found.attribution = self.attribute(context)
        if parts:
            converted = by_conversion(parts, self.mode)
            if refusal:
                said = f"Attribution by real context cannot be had ({refusal}); this one converts the weights instead."
                explanation = [said, *converted["explanation"]]
                found.attribution = {"method": "conversion", **converted, "explanation": explanation}
            if "attribution_by_conversion" in wanted:
                found.attribution_by_conversion = converted
        return found

    def context(self, most: int) -> tuple[ContextAttribution | None, str]:
        """Returns the attribution by real context, of so many images at most, or why it cannot be had."""
        some = replace(self.photographs, files=subsample_evenly(self.photographs.files, most), kept=None)
        try:
            return ContextAttribution(self.plain, some, self.seed, self.device), ""
        except TinvError as error:
            return None, str(error)

    def attribute(self, context: ContextAttribution) -> dict[str, Any]:
        """Shows images with more of the picture around them to both networks of an attribution."""
        batches = -(-len(context.photographs.files) // context.photographs.batch_size)
        with torch.no_grad(), autocast(self.precision, self.device):
            scenes = context.photographs.batches(self.device)
            for images, targets, index in progress(scenes, "attribution batches", batches):
                context.update(images, self.labels(targets), index)
        return context.to_dict()

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

    def report(self, metrics: dict[str, InvarianceMetric], seen: int) -> InvarianceReport:
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
        layers = metrics.get("layers")
        if isinstance(layers, LayerEquivariance) and layers.layers is not None:
            errors = [vars(e) for e in layers.errors() if not math.isnan(e.error)]
            found.layers = {"shift": layers.layers.shift, "errors": errors}
        return found
