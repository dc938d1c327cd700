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
from tinv.evaluation.class_names import class_names
from tinv.evaluation.context_attribution import ContextAttribution
from tinv.evaluation.gallery import GALLERY_IMAGES, Flip, flips, smallest_changes
from tinv.evaluation.image_sources import ImageSource
from tinv.evaluation.images import Photographs
from tinv.evaluation.invariance_report import InvarianceReport
from tinv.evaluation.pass_work import PassWork
from tinv.evaluation.running import Precision, autocast
from tinv.metrics import InvarianceMetric, LayerEquivariance, LayerLieDerivative, LieDerivative, ShiftConsistency
from tinv.metrics.answers import undefined_message
from tinv.metrics.shared_views import SharedViews
from tinv.metrics.views import UNLABELLED, center_view, trim
from tinv.models.features import as_logits
from tinv.select import Selection

ATTRIBUTION_IMAGES = 32
"""Exact networks cost many times the plain one: they see the first images only."""
ATTRIBUTION_PASSES = 2


@dataclass
class MeasuringPass:
    """One pass over the images, in which every metric sees every batch.

    Attributes:
        network: What is measured.
        plain: The network without policies, for the attribution.
        photographs: The images.
        num_classes: Numbers that the network returns for each image.
        seed: Seed of shifts and intervals.
        device: Where networks run.
        precision: In which precision.
        alone: A network that is measured beside it, on the same views; None for none.
    """

    network: nn.Module
    plain: nn.Module
    photographs: ImageSource
    num_classes: int
    seed: int
    device: torch.device
    precision: Precision
    alone: nn.Module | None = None

    def __post_init__(self) -> None:
        self.shift, self.mode = self.photographs.layout.offset_range, self.photographs.layout.mode
        title, folders = self.photographs.title, self.photographs.folders
        self.classes = self.photographs.class_map(self.num_classes)
        self.undefined = ""
        self.met: dict[int, int] = {}
        if folders and self.classes is None:
            counted = "1 class folder" if len(folders) == 1 else f"{len(folders)} class folders"
            message = f"{title} has {counted}, the network {self.num_classes} classes"
            warnings.warn(f"{message}: measured without labels", TinvWarning, stacklevel=6)

    def run(
        self,
        metrics: dict[str, InvarianceMetric],
        wanted: Collection[str],
        partial: bool,
        most: int,
        of_alone: dict[str, InvarianceMetric] | None = None,
    ) -> InvarianceReport:
        """Measures everything; see `tinv.measure`, `most` is its attribution_images, `of_alone` metrics of `alone`."""
        for net in (self.network, self.plain, *([] if self.alone is None else [self.alone])):
            net.eval().to(self.device).to(memory_format=torch.channels_last)
        metrics = {name: metric.to(self.device) for name, metric in metrics.items()}
        self.of_alone = {} if self.alone is None or of_alone is None else of_alone
        for metric in self.of_alone.values():
            metric.to(self.device)
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
        first: list[tuple[Tensor, Tensor, Tensor]] | None = [] if "gallery" in wanted else None
        every = [*metrics.values(), *self.of_alone.values()]
        work = PassWork(every, len(parts), self.photographs.number_of_images, self.shift, first is not None, context)
        with work.bar:
            seen = self.look(metrics, parts, first, min(most, ATTRIBUTION_IMAGES), work)
            if not seen:
                raise TinvError(f"no image of {self.photographs.title} could be read")
            found = self.report(metrics, seen)
            if first is not None:
                found.gallery = self.gallery(work, *(torch.cat(part) for part in zip(*first, strict=True)))
            if context is not None:
                found.attribution = self.attribute(context, work)
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
        if not isinstance(self.photographs, Photographs):
            return None, f"of {self.photographs.title} there is no larger scene"
        some = replace(self.photographs, files=subsample_evenly(self.photographs.files, most), kept=None)
        try:
            return ContextAttribution(self.plain, some, self.seed, self.device), ""
        except TinvError as error:
            return None, str(error)

    def attribute(self, context: ContextAttribution, work: PassWork) -> dict[str, Any]:
        """Shows images with more of the picture around them to both networks of an attribution."""
        seen, images_in_all = 0, len(context.photographs.files)
        context.progress = lambda views: work.bar.at("attribution", (seen + views) / images_in_all)
        with torch.no_grad(), autocast(self.precision, self.device):
            for images, targets, index in context.photographs.batches(self.device):
                context.update(images, self.labels(targets), index)
                seen += len(images)
        return context.to_dict()

    def look(
        self,
        metrics: dict[str, InvarianceMetric],
        parts: list[Variant],
        first: list[tuple[Tensor, Tensor, Tensor]] | None,
        most: int,
        work: PassWork,
    ) -> int:
        """Shows every image to every metric; returns how many there were.

        The images that a gallery looks at, with their classes and numbers, are put into `first`; the networks of an
        attribution by conversion see the first `most` images.
        """
        seen, photographs, before = 0, self.photographs, 0

        def looked() -> None:
            work.looked(seen, sum(network.asked for network in both) - before)

        shared = SharedViews(self.network, looked)
        shared_alone = None if self.alone is None else SharedViews(self.alone, looked)
        both = [network for network in (shared, shared_alone) if network is not None]
        with torch.no_grad(), autocast(self.precision, self.device):
            for images, targets, index in photographs.batches(self.device):
                targets = self.labels(targets)
                self.met |= dict(zip(index.tolist(), targets.tolist(), strict=True))
                before = sum(network.asked for network in both)
                logits = self.show(shared, metrics, images, targets, index)
                if shared_alone is not None:
                    self.show(shared_alone, self.of_alone, images, targets, index)
                some = slice(0, max(0, most - seen))
                for part in parts:
                    if part.network is not None and len(images[some]):
                        part.consistency.update(part.network, images[some], logits[some], targets[some], index[some])
                        part.count(part.network(center_view(images[some], self.shift, self.mode)), targets[some])
                if first is not None and seen < GALLERY_IMAGES:
                    some = slice(0, GALLERY_IMAGES - seen)
                    first.append((images[some], targets[some], index[some]))
                seen += len(images)
                work.looked(seen)
        return seen

    def show(
        self,
        shared: SharedViews,
        metrics: dict[str, InvarianceMetric],
        images: Tensor,
        targets: Tensor,
        index: Tensor,
    ) -> Tensor:
        """Shows a batch to the metrics of one network; returns its output (N, F) for the images as they are."""
        shared.forget()
        middle = center_view(images, self.shift, self.mode)
        logits = as_logits(shared(middle))
        self.note_undefined(logits, index)
        for metric in metrics.values():
            unmoved = isinstance(metric, LieDerivative | LayerLieDerivative)
            given = middle if unmoved else trim(images, self.shift - metric.crop_margin, self.mode)
            # those that look into the network see it itself
            looks_inside = isinstance(metric, LayerEquivariance | LieDerivative | LayerLieDerivative)
            metric.update(shared.network if looks_inside else shared, given, logits, targets, index)
        return logits

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
            warnings.warn(message, TinvWarning, stacklevel=8)

    def gallery(self, work: PassWork, images: Tensor, targets: Tensor, index: Tensor) -> list[Flip]:
        """Returns those of some images (N, C, h, w) whose answer changes under the smallest moves."""
        with autocast(self.precision, self.device):
            changes = smallest_changes(
                SharedViews(self.network),
                images,
                self.shift,
                self.mode,
                progress=lambda share: work.bar.at("gallery", share),
            )
        names = class_names(self.num_classes, self.photographs.folders)
        labels = [names[number] if number >= 0 else None for number in targets.tolist()]
        files = [self.photographs.short_name(number) for number in index.tolist()]
        return flips(changes, images, self.shift, self.mode, names, files, labels, self.photographs.pixels)

    def names_and_labels(self) -> tuple[list[str | None], list[str | None]]:
        """Returns what every image is called and the name of its class; None for damaged images and unknown classes."""
        names = class_names(self.num_classes, self.photographs.folders)
        numbers = range(max(self.met) + 1)
        labels = [names[target] if (target := self.met.get(n, UNLABELLED)) >= 0 else None for n in numbers]
        return [self.photographs.short_name(number) if number in self.met else None for number in numbers], labels

    def report(self, metrics: dict[str, InvarianceMetric], seen: int) -> InvarianceReport:
        results, beside = (
            {key: float(value) for metric in some.values() for key, value in metric.compute().items()}
            for some in (metrics, self.of_alone)
        )
        inner = self.network.network if isinstance(self.network, Selection) else self.network
        conversion = getattr(inner, "conversion", None)
        if (message := undefined_message(results)) is not None:
            warnings.warn(message, TinvWarning, stacklevel=6)
        files, labels = self.names_and_labels()
        found = InvarianceReport(
            images=seen,
            labelled=any(target >= 0 for target in self.met.values()),
            # agreement among right answers is not defined where none is right; JSON knows no NaN
            metrics={key: value for key, value in results.items() if not math.isnan(value)},
            without={key: value for key, value in beside.items() if not math.isnan(value)},
            skipped=sorted(self.photographs.skipped),
            partial=[vars(note) for note in getattr(conversion, "partial", [])],
            shifts=f"{self.mode}, views up to {self.shift} pixels apart",
            measured=metrics,
            files=files,
            labels=labels,
        )
        for name in ("ring", "comb"):
            if name in metrics:
                curves = metrics[name].arrays()
                setattr(found, name, {key: values.tolist() for key, values in curves.items()})
        layers = metrics.get("layers")
        if isinstance(layers, LayerEquivariance) and layers.layers is not None:
            errors = [vars(e) for e in layers.errors() if not math.isnan(e.error)]
            found.layers = {"shift": layers.layers.shift, "errors": errors}
        return found
