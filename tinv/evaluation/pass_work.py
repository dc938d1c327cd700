"""How much work the parts of a measurement are, for one bar with the time that is left of all of them."""

from __future__ import annotations

from collections.abc import Sequence

from tinv.evaluation.context_attribution import ContextAttribution
from tinv.evaluation.gallery import GALLERY_IMAGES, gallery_views
from tinv.metrics import InvarianceMetric
from tinv.utils.progress import PartsProgress

CHANGED_EARLY = 0.5
"""About which part of the views of a gallery is looked at, since images that have changed are left out."""
CONVERTED_VIEWS = 6
"""Passes of each network of an attribution by conversion, about as dear as those of the network itself."""


class PassWork:
    """What a measurement costs, in passes of one image through the network.

    Args:
        metrics: Metrics that see every image, or the first of them.
        conversions: Networks of an attribution by conversion.
        images: Images in all; None if that is not known.
        offset_range: Largest offset of a view in pixels.
        gallery: Whether a gallery looks for changes.
        context: Attribution by real context; None without.

    Attributes:
        bar: The bar.
    """

    def __init__(
        self,
        metrics: Sequence[InvarianceMetric],
        conversions: int,
        images: int | None,
        offset_range: int,
        gallery: bool,
        context: ContextAttribution | None,
    ) -> None:
        self.metrics, self.conversions, self.images = metrics, conversions, images
        costs: dict[str, float | None] = {"measuring": None if images is None else self._looking(images)}
        if gallery:
            some = GALLERY_IMAGES if images is None else min(images, GALLERY_IMAGES)
            costs["gallery"] = CHANGED_EARLY * some * gallery_views(offset_range)
        if context is not None:
            costs["attribution"] = len(context.photographs.files) * context.views
        self.bar = PartsProgress(costs)

    def _looking(self, images: int) -> float:
        """Returns what it costs to show so many images to all metrics."""
        by_metric = (metric.views * min(images, metric.max_images or images) for metric in self.metrics)
        return float(images * (1 + CONVERTED_VIEWS * self.conversions) + sum(by_metric))

    def looked(self, seen: int, more: int = 0) -> None:
        """Says that all metrics have seen so many images, and that the next ones were asked for `more` answers."""
        if self.images is None or not self.images:
            self.bar.at("measuring", 0)
            return
        whole = self._looking(self.images)
        self.bar.at("measuring", min(self._looking(seen) + more, whole) / whole)
