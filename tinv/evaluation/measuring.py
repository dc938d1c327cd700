"""One pass over images, in which every measure sees every batch."""

from __future__ import annotations

import math
import warnings
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tinv.errors import TinvError, TinvWarning
from tinv.evaluation.attribution import Variant, explanation, is_marked, share, variants
from tinv.evaluation.image_sources import ImageSource
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
    photographs: ImageSource
    num_classes: int
    seed: int
    device: torch.device
    precision: Precision

    def __post_init__(self) -> None:
        self.shift, self.mode = self.photographs.layout.offset_range, self.photographs.layout.mode
        title, folders = self.photographs.title, self.photographs.folders
        self.classes = self.photographs.class_map(self.num_classes)
        self.undefined = ""
        if folders and self.classes is None:
            message = f"{title} has {len(folders)} class folders, the network {self.num_classes} classes"
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
            raise TinvError(f"no image of {self.photographs.title} could be read")
        return self.report(metrics, parts, seen)

    def look(self, metrics: dict[str, InvarianceMetric], parts: list[Variant]) -> int:
        """Shows every image to every metric; returns how many there were."""
        seen, photographs = 0, self.photographs
        batches = photographs.number_of_batches
        with torch.no_grad(), autocast(self.precision, self.device):
            for images, targets, index in progress(photographs.batches(self.device), "measuring batches", batches):
                targets = self.labels(targets)
                logits = as_logits(self.network(center_view(images, self.shift, self.mode)))
                self.note_undefined(logits, index)
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
        if self.classes is None:
            return torch.full_like(targets, UNLABELLED)
        if len(targets) and int(targets.max()) >= len(self.classes):
            raise TinvError(
                f"{self.photographs.title} holds class {int(targets.max())}, and the network's are 0 to "
                f"{len(self.classes) - 1}"
            )
        found = self.classes.to(self.device)[targets.clamp(min=0)]
        return found.where(targets >= 0, UNLABELLED)

    def note_undefined(self, logits: Tensor, index: Tensor) -> None:
        """Warns of the first image whose output (N, F) is not finite, once."""
        wrong = ~logits.isfinite().all(dim=1)
        if not self.undefined and bool(wrong.any()):
            self.undefined = self.photographs.name_of(int(index[wrong][0]))
            message = f"the network's output for {self.undefined} holds numbers that are not finite (NaN or infinite)"
            warnings.warn(message, TinvWarning, stacklevel=7)

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
