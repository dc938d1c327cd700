"""Accuracy, agreement and similarity for every shift of a window."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tinv.deprecation import renamed
from tinv.errors import TinvError
from tinv.metrics.shift_map import ShiftAxis, ShiftMap
from tinv.nn.padding import pad
from tinv.translation import ShiftMode
from tinv.utils.arguments import NonNegativeInt, PositiveInt


class TranslationSensitivityMap(ShiftMap):
    """For every (dx, dy) of a window: accuracy, consistency with the unmoved image, and mean cosine similarity.

    Maps have the shape (S, S) with S = 2 * max_shift / step + 1, row = dy, column = dx, see ShiftMap. Without labels
    (class -1) NAME/acc and NAME/acc_min are left out.

    Reported:
        - `NAME/acc` (percent, 0 to 100): accuracy, mean over the window.
        - `NAME/acc_min` (percent, 0 to 100): accuracy at the worst shift.
        - `NAME/consistency` (percent, 0 to 100): answers equal to that to the unmoved image, mean over the window.
        - `NAME/mcs` (cosine, -1 to 1): cosine similarity to the output for the unmoved image, mean over images and
          window.

    Formula:
        `consistency(dx, dy) = 100 / N * sum over images x of [argmax f(T x) = argmax f(x)]`, for the logits f, N images
        and T the shift by (dx, dy).

    Source:
        After the translation-sensitivity maps of Kauderer-Abrams, 2017, which show distances of outputs.

    Args:
        max_shift: Largest shift in pixels: the window holds -max_shift to max_shift in x and in y.
        step: Pixels between the shifts that are tried; must divide max_shift, so that shift 0 is among them.
        mode: `zero` (the image needs a blank margin of max_shift pixels, or content is lost), `circular`, or `crop`:
            windows of images that are larger than what the network sees by max_shift pixels a side.
        max_images: Number of images that are used, the first of the set; None for all. A 17 x 17 window costs 289
            passes.
        images_per_pass: Number of images that larger batches are cut to; shifts of smaller ones are run together. None
            is 64 on a CPU, where more no longer fit its cache, and 1024 elsewhere.
        name: Name under which the results are reported.
    """

    @renamed(canvas="mode")
    def __init__(
        self,
        max_shift: NonNegativeInt = 8,
        step: PositiveInt = 1,
        mode: ShiftMode = "zero",
        max_images: PositiveInt | None = None,
        images_per_pass: PositiveInt | None = None,
        name: str = "map",
    ) -> None:
        if max_shift % step:
            raise TinvError(f"max_shift={max_shift} must be a multiple of step={step}")
        shifts = list(range(-max_shift, max_shift + 1, step))
        rows, columns = (ShiftAxis(symbol, "pixels", shifts, key="shifts") for symbol in ("dy", "dx"))
        super().__init__(rows, columns, "images")
        self.max_shift, self.mode, self.name = max_shift, mode, name
        self.canvas_margin = max_shift if mode == "zero" else 0
        self.crop_margin = 2 * max_shift if mode == "crop" else 0
        self.max_images, self.images_per_pass = max_images, images_per_pass

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
        self.finish(targets)

    def _add(self, network: nn.Module, images: Tensor, logits: Tensor, targets: Tensor, together: int) -> None:
        """Runs one pass for every `together` shifts of the window."""
        count, margin = len(images), self.max_shift
        shifts = self.rows.shifts
        # padded once; every shift is then a window of it, cut without arithmetic
        padded = images if self.mode == "crop" else pad(images, [(margin, margin)] * 2, self.mode)
        height, width = (size - 2 * margin for size in padded.shape[2:])
        positions = [(row, column) for row in range(len(shifts)) for column in range(len(shifts))]
        for start in range(0, len(positions), together):
            part = positions[start : start + together]
            windows = []
            for row, column in part:
                top, left = margin - shifts[row], margin - shifts[column]
                windows.append(padded[:, :, top : top + height, left : left + width])
            moved = network(torch.cat(windows) if len(windows) > 1 else windows[0])
            self.add(part, moved.view(len(part), count, -1), logits, targets)

    def compute(self) -> dict[str, Tensor]:
        """Returns the mean of each map over the window, and the accuracy at the worst shift."""
        maps = self.maps()
        means = {f"{self.name}/{key}": values.mean() for key, values in maps.items()}
        return means if "acc" not in maps else {**means, f"{self.name}/acc_min": maps["acc"].min()}
