"""Accuracy, agreement and similarity for every shift of a window."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tinv.errors import TinvError, unknown
from tinv.metrics.base import InvarianceMetric
from tinv.policies.padding import pad
from tinv.translation import Canvas

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class TranslationMap(InvarianceMetric):
    """For every (dx, dy) of a window: accuracy, consistency with the unmoved image, and mean cosine similarity.

    Args:
        max_shift: the window reaches from -max_shift to max_shift pixels in x and in y.
        step: pixels between the shifts that are tried; must divide max_shift, so that the centre is among them.
        canvas: `zero` (the image needs a blank margin of max_shift pixels, or content is lost), `circular`, or `crop`:
            windows of images that are larger than what the network sees by max_shift pixels a side.
        max_images: uses only the first so many images of the set; None for all. A 17 x 17 window costs 289 passes.
        images_per_pass: larger batches are cut to this many images, shifts of smaller ones are run together. None is
            64 on a CPU, where more no longer fit its cache, and 1024 elsewhere.
        name: under which the results are reported.

    Results:
        maps of shape (S, S) with S = 2 * max_shift / step + 1, row = dy, column = dx, from the most negative shift:
        `acc` and `consistency` in percent, `mcs` in -1..1. Reported are their means over the window, and `acc_min`,
        the accuracy at the worst shift.
    """

    def __init__(
        self,
        max_shift: int = 8,
        step: int = 1,
        canvas: Canvas | Literal["crop"] = "zero",
        max_images: int | None = None,
        images_per_pass: int | None = None,
        name: str = "map",
    ) -> None:
        super().__init__()
        if max_shift < 0 or step < 1 or max_shift % step:
            raise TinvError(f"step={step} pixels must be 1 or more and divide max_shift={max_shift}")
        if canvas not in (*get_args(Canvas), "crop"):
            raise unknown("canvas", canvas, (*get_args(Canvas), "crop"))
        self.max_shift, self.step, self.name = max_shift, step, name
        self.canvas, self.margin = canvas, max_shift if canvas == "zero" else 0
        self.room = 2 * max_shift if canvas == "crop" else 0
        self.max_images, self.images_per_pass = max_images, images_per_pass
        self.shifts = list(range(-max_shift, max_shift + 1, step))
        side = len(self.shifts)
        for state in ("correct", "agree"):
            self.add_state(state, torch.zeros(side, side, dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("cosine", torch.zeros(side, side, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")
        self.correct: Tensor
        self.agree: Tensor
        self.cosine: Tensor
        self.count: Tensor

    def update(self, network: nn.Module, images: Tensor, logits: Tensor, targets: Tensor, index: Tensor) -> None:
        """Adds a batch, see InvarianceMetric.update."""
        if self.max_images is not None:
            kept = index < self.max_images
            images, logits, targets = images[kept], logits[kept], targets[kept]
        per_pass = self.images_per_pass or (64 if images.device.type == "cpu" else 1024)
        if not len(images):
            return
        batches = (torch.split(each, per_pass) for each in (images, logits, targets))
        for some, before, classes in zip(*batches, strict=True):
            self._add(network, some, before, classes, together=max(1, per_pass // len(some)))
        self.count += len(images)

    def _add(self, network: nn.Module, images: Tensor, logits: Tensor, targets: Tensor, together: int) -> None:
        """Runs one pass for every `together` shifts of the window."""
        count = len(images)
        choice = logits.argmax(dim=1)
        reach = self.max_shift
        # padded once; every shift is then a window of it, cut without arithmetic
        padded = images if self.canvas == "crop" else pad(images, [(reach, reach)] * 2, self.canvas)
        height, width = (size - 2 * reach for size in padded.shape[2:])
        places = [(row, column) for row in range(len(self.shifts)) for column in range(len(self.shifts))]
        for start in range(0, len(places), together):
            part = places[start : start + together]
            windows = []
            for row, column in part:
                top, left = reach - self.shifts[row], reach - self.shifts[column]
                windows.append(padded[:, :, top : top + height, left : left + width])
            moved = network(torch.cat(windows) if len(windows) > 1 else windows[0])
            moved = moved.view(len(part), count, -1)
            rows, columns = (torch.tensor(axis, device=images.device) for axis in zip(*part, strict=True))
            answers = moved.argmax(dim=2)
            self.correct[rows, columns] += (answers == targets).sum(dim=1)
            self.agree[rows, columns] += (answers == choice).sum(dim=1)
            cosine = F.cosine_similarity(moved.double(), logits.double().unsqueeze(0), dim=2)
            self.cosine[rows, columns] += cosine.sum(dim=1)

    def maps(self) -> dict[str, Tensor]:
        """Returns `acc`, `consistency` and `mcs`, each (S, S), row = dy, column = dx."""
        return {
            "acc": 100 * self.correct.double() / self.count,
            "consistency": 100 * self.agree.double() / self.count,
            "mcs": self.cosine / self.count,
        }

    def results(self) -> dict[str, Tensor]:
        """Returns the mean of each map over the window, and the accuracy at the worst shift."""
        maps = self.maps()
        means = {f"{self.name}/{key}": values.mean() for key, values in maps.items()}
        return {**means, f"{self.name}/acc_min": maps["acc"].min()}

    def save(self, folder: Path, stem: str) -> list[Path]:
        """Writes `STEM.npz` (the maps, and `shifts` in pixels) and `STEM.png` (heat maps) to `folder`."""
        maps = {key: values.cpu().numpy() for key, values in self.maps().items()}
        arrays, picture = folder / f"{stem}.npz", folder / f"{stem}.png"
        temporary = folder / f".{stem}.tmp.npz"
        arrays_by_name: Any = {**maps, "shifts": np.array(self.shifts), "count": np.array(int(self.count))}
        np.savez(temporary, **arrays_by_name)
        os.replace(temporary, arrays)
        temporary = folder / f".{stem}.tmp.png"
        draw_maps(maps, self.shifts, int(self.count)).savefig(temporary, dpi=120)
        os.replace(temporary, picture)
        return [arrays, picture]


def draw_maps(maps: dict[str, np.ndarray], shifts: list[int], count: int) -> Figure:
    """Draws the maps of a TranslationMap side by side, one colour scale each."""
    from matplotlib.figure import Figure

    titles = {"acc": "accuracy (%)", "consistency": "same answer as unmoved (%)", "mcs": "mean cosine similarity"}
    figure = Figure(figsize=(4.4 * len(maps), 4), layout="constrained")
    edge = (shifts[1] - shifts[0]) / 2 if len(shifts) > 1 else 0.5
    low, high = shifts[0] - edge, shifts[-1] + edge
    for axes, (key, values) in zip(figure.subplots(1, len(maps)), maps.items(), strict=True):
        # rows are dy, down is positive: the map lies as the images do
        image = axes.imshow(values, extent=(low, high, high, low), cmap="viridis")
        axes.set(title=titles[key], xlabel="dx (pixels)", ylabel="dy (pixels)")
        figure.colorbar(image, ax=axes, shrink=0.85)
    figure.suptitle(f"{count} images moved by (dx, dy)")
    return figure
