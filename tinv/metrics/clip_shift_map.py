"""Accuracy, agreement and similarity of clips for every shift in time and along one axis of space."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tinv.errors import TinvError, unknown
from tinv.metrics.base import InvarianceMetric
from tinv.policies.padding import pad
from tinv.translation import Canvas

TITLES = {"acc": "accuracy (%)", "consistency": "same answer as unmoved (%)", "mcs": "mean cosine similarity"}


class ClipShiftMap(InvarianceMetric):
    """For every (dt, dx) of a window: accuracy, consistency with the unmoved clip, and mean cosine similarity.

    Args:
        max_frames: the window reaches from -max_frames to max_frames in time.
        max_shift: and from -max_shift to max_shift pixels along the width.
        frame_step: frames between the shifts that are tried; must divide max_frames.
        step: pixels between the shifts that are tried; must divide max_shift.
        canvas: `zero` (what leaves the clip is lost) or `circular`, in time and in space.
        max_clips: uses only the first so many clips of the set; None for all.
        name: under which the results are reported.

    Results:
        maps of shape (frames, pixels), row = dt, column = dx, from the most negative shift: `acc` and `consistency` in
        percent, `mcs` in -1..1. Reported are their means over shifts in time alone (`NAME/KEY_time`), in space alone
        (`NAME/KEY_space`) and over the whole window (`NAME/KEY`).
    """

    def __init__(
        self,
        max_frames: int = 4,
        max_shift: int = 8,
        frame_step: int = 1,
        step: int = 2,
        canvas: Canvas = "zero",
        max_clips: int | None = None,
        name: str = "clip_map",
    ) -> None:
        super().__init__()
        for key, most, each in (("max_frames", max_frames, frame_step), ("max_shift", max_shift, step)):
            if most < 0 or each < 1 or most % each:
                raise TinvError(f"{key}={most} must be 0 or more, and a multiple of its step, {each}")
        if canvas not in get_args(Canvas):
            raise unknown("canvas", canvas, get_args(Canvas))
        self.canvas, self.max_clips, self.name = canvas, max_clips, name
        self.max_shift, self.margin = max_shift, 0
        self.frames = list(range(-max_frames, max_frames + 1, frame_step))
        self.pixels = list(range(-max_shift, max_shift + 1, step))
        shape = (len(self.frames), len(self.pixels))
        for state in ("correct", "agree"):
            self.add_state(state, torch.zeros(shape, dtype=torch.long), dist_reduce_fx="sum")
        self.add_state("cosine", torch.zeros(shape, dtype=torch.float64), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros((), dtype=torch.long), dist_reduce_fx="sum")
        self.correct: Tensor
        self.agree: Tensor
        self.cosine: Tensor
        self.count: Tensor

    def check(self, network: nn.Module, shape: Sequence[int]) -> None:
        """Refuses images, and shifts as large as the clips."""
        if len(shape) != 4:
            raise TinvError(f"metric {self.name} is for clips; use TranslationMap for images")
        for key, most, size in (("max_frames", self.frames[-1], shape[1]), ("max_shift", self.max_shift, shape[3])):
            if most >= size:
                raise TinvError(
                    f"metric {self.name}: {key}={most} moves clips of {size} out of sight; use a smaller one"
                )

    def update(self, network: nn.Module, images: Tensor, logits: Tensor, targets: Tensor, index: Tensor) -> None:
        """Adds a batch of clips (N, C, T, H, W), see InvarianceMetric.update."""
        if self.max_clips is not None:
            kept = index < self.max_clips
            images, logits, targets = images[kept], logits[kept], targets[kept]
        if not len(images):
            return
        later, right = self.frames[-1], self.pixels[-1]
        # padded once; every shift is then a window of it
        padded = pad(images, [(later, later), (0, 0), (right, right)], self.canvas)
        length, _, width = images.shape[2:]
        choice = logits.argmax(dim=1)
        for row, dt in enumerate(self.frames):
            for column, dx in enumerate(self.pixels):
                window = padded[:, :, later - dt : later - dt + length, :, right - dx : right - dx + width]
                said = network(window)
                answers = said.argmax(dim=1)
                self.correct[row, column] += (answers == targets).sum()
                self.agree[row, column] += (answers == choice).sum()
                self.cosine[row, column] += F.cosine_similarity(said.double(), logits.double()).sum()
        self.count += len(images)

    def maps(self) -> dict[str, Tensor]:
        """Returns `acc`, `consistency` and `mcs`, each (frames, pixels), row = dt, column = dx."""
        return {
            "acc": 100 * self.correct.double() / self.count,
            "consistency": 100 * self.agree.double() / self.count,
            "mcs": self.cosine / self.count,
        }

    def results(self) -> dict[str, Tensor]:
        """Returns the means over the window, over shifts in time alone and in space alone."""
        still, here = self.frames.index(0), self.pixels.index(0)
        found = {}
        for key, values in self.maps().items():
            found[f"{self.name}/{key}"] = values.mean()
            found[f"{self.name}/{key}_time"] = values[:, here].mean()
            found[f"{self.name}/{key}_space"] = values[still].mean()
        return found

    def save(self, folder: Path, stem: str) -> list[Path]:
        """Writes `STEM.npz` (the maps, with `frames` and `pixels`) and `STEM.png` (heat maps) to `folder`."""
        from matplotlib.figure import Figure

        maps = {key: values.cpu().numpy() for key, values in self.maps().items()}
        arrays, picture = folder / f"{stem}.npz", folder / f"{stem}.png"
        temporary = folder / f".{stem}.tmp.npz"
        np.savez(temporary, frames=np.array(self.frames), pixels=np.array(self.pixels), **maps)  # type: ignore[arg-type]
        os.replace(temporary, arrays)
        figure = Figure(figsize=(4.4 * len(maps), 3.6), layout="constrained")
        edges = [(shifts[1] - shifts[0]) / 2 if len(shifts) > 1 else 0.5 for shifts in (self.pixels, self.frames)]
        extent = (
            self.pixels[0] - edges[0],
            self.pixels[-1] + edges[0],
            self.frames[-1] + edges[1],
            self.frames[0] - edges[1],
        )
        for axes, (key, values) in zip(figure.subplots(1, len(maps)), maps.items(), strict=True):
            image = axes.imshow(values, extent=extent, aspect="auto", cmap="viridis")
            axes.set(title=TITLES[key], xlabel="dx (pixels)", ylabel="dt (frames)")
            figure.colorbar(image, ax=axes, shrink=0.85)
        figure.suptitle(f"{int(self.count)} clips moved by (dt, dx)")
        temporary = folder / f".{stem}.tmp.png"
        figure.savefig(temporary, dpi=120)
        os.replace(temporary, picture)
        return [arrays, picture]
