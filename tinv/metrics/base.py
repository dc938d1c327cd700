"""What every measure of invariance has in common: it runs the network on moved images."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torchmetrics import Metric

from tinv.errors import TinvError
from tinv.metrics.answers import MetricName


class InvarianceMetric(Metric):
    """Base of the metrics that compare a network's answers to an image and to the image moved.

    States are sums over images, so results depend neither on batch size nor on the number of processes.

    Attributes:
        name: under which results are reported, after `test/`, and files written; with `/` and such it is refused.
        max_shift: largest shift in pixels.
        margin: blank pixels a side that images need so that no content is lost.
        room: pixels an axis that images must have beyond what the network sees, for crops of them.
    """

    full_state_update = False
    name = MetricName()
    max_shift: int
    margin: int
    room: int = 0

    def check(self, network: nn.Module, shape: Sequence[int]) -> None:
        """Says before any training whether this can be measured.

        Args:
            network: that will be measured.
            shape: (C, H, W) of the images that it sees, (C, T, H, W) of clips.

        Raises:
            TinvError: if it cannot.
        """
        if len(shape) != 3:
            raise TinvError(f"metric {self.name} is for images; use ClipShiftMap for clips")

    @abstractmethod
    def update(self, network: nn.Module, images: Tensor, logits: Tensor, targets: Tensor, index: Tensor) -> None:
        """Adds a batch.

        Args:
            network: maps (N, C, H, W) to (N, classes).
            images: (N, C, H, W), not moved.
            logits: (N, classes), what the network says of `images`.
            targets: (N,) classes.
            index: (N,) the images' numbers in their set, which decide the random shifts.
        """

    @abstractmethod
    def results(self) -> dict[str, Tensor]:
        """Returns the numbers to report, by name (below `test/`)."""

    def save(self, folder: Path, stem: str) -> list[Path]:
        """Writes what is more than a number (arrays, pictures) to `folder`, names beginning with `stem`."""
        return []

    def compute(self) -> Any:
        """Returns what `results` returns."""
        return self.results()
