"""Accuracy, agreement and similarity of clips for every shift in time and along one axis of space."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from torch import Tensor, nn

from tinv.deprecation import renamed
from tinv.errors import TinvError
from tinv.metrics.base import first_of
from tinv.metrics.shift_map import ShiftAxis, ShiftMap, window_of
from tinv.translation import TranslateMode
from tinv.utils.arguments import NonNegativeInt, PositiveInt, Seed


class ClipShiftMap(ShiftMap):
    """For every (dt, dx) of a window: accuracy, consistency with the unmoved clip, and mean cosine similarity.

    Maps have the shape (frames, pixels), row = dt, column = dx, see ShiftMap. Without labels (class -1) accuracies
    are left out. Numbers have bootstrap intervals over clips (`_low`, `_high`).

    Reported:
        - `NAME/acc` (percent, 0 to 100): accuracy, mean over the window.
        - `NAME/consistency` (percent, 0 to 100): answers equal to that to the unmoved clip, mean over the window.
        - `NAME/mcs` (cosine, -1 to 1): cosine similarity to the output for the unmoved clip, mean over clips and
          window.
        - `NAME/acc_time` (percent, 0 to 100): NAME/acc over shifts in time alone.
        - `NAME/consistency_time` (percent, 0 to 100): NAME/consistency over shifts in time alone.
        - `NAME/mcs_time` (cosine, -1 to 1): NAME/mcs over shifts in time alone.
        - `NAME/acc_space` (percent, 0 to 100): NAME/acc over shifts in space alone.
        - `NAME/consistency_space` (percent, 0 to 100): NAME/consistency over shifts in space alone.
        - `NAME/mcs_space` (cosine, -1 to 1): NAME/mcs over shifts in space alone.

    Formula:
        `consistency(dt, dx) = 100 / N * sum over clips x of [argmax f(T x) = argmax f(x)]`, for the logits f, N clips
        and T the shift by (dt, dx).

    Source:
        tinv, after the translation-sensitivity maps of Kauderer-Abrams, 2017.

    Args:
        max_frames: Largest shift in frames: the window holds -max_frames to max_frames in time.
        max_shift: Largest shift in pixels: the window holds -max_shift to max_shift along the width.
        frame_step: Frames between the shifts that are tried; must divide max_frames.
        step: Pixels between the shifts that are tried; must divide max_shift.
        mode: `zero` (what leaves the clip is lost) or `circular`, in time and in space.
        max_clips: Number of clips that are used, the first of the set; None for all.
        name: Name under which the results are reported.
        seed: Seed of the bootstrap.
    """

    @renamed(canvas="mode")
    def __init__(
        self,
        max_frames: NonNegativeInt = 4,
        max_shift: NonNegativeInt = 8,
        frame_step: PositiveInt = 1,
        step: PositiveInt = 2,
        mode: TranslateMode = "zero",
        max_clips: PositiveInt | None = None,
        name: str = "clip_map",
        seed: Seed = 0,
    ) -> None:
        frames = window_of(max_frames, frame_step, ("max_frames", "frame_step"))
        rows = ShiftAxis("dt", "frames", frames, key="frames", dim=2)
        columns = ShiftAxis("dx", "pixels", window_of(max_shift, step), key="pixels", dim=4)
        super().__init__(rows, columns, mode, "clips", seed)
        self.max_shift, self.max_clips, self.name = max_shift, max_clips, name

    def check(self, network: nn.Module, shape: Sequence[int]) -> None:
        """Refuses images, and shifts as large as the clips."""
        if len(shape) != 4:
            raise TinvError(f"metric {self.name} is for clips; use TranslationSensitivityMap for images")
        sides = {"max_frames": (self.rows, shape[1]), "max_shift": (self.columns, shape[3])}
        for key, (axis, size) in sides.items():
            if (most := axis.margin) >= size:
                raise TinvError(f"metric {self.name}: {key}={most} moves clips of {size} out of sight; use less")

    def update(self, network: nn.Module, images: Tensor, logits: Tensor, targets: Tensor, index: Tensor) -> None:
        """Adds a batch of clips (N, C, T, H, W), see InvarianceMetric.update."""
        images, logits, targets, index = first_of(self.max_clips, index, images, logits, targets, index)
        self.move(network, images, logits, targets, index)

    def windows(self) -> dict[str, np.ndarray]:
        """Returns the whole map, its shifts in time alone and those in space alone; see ShiftMap.windows."""
        [(_, whole)] = super().windows().items()
        time, space = np.zeros_like(whole), np.zeros_like(whole)
        time[:, self.columns.shifts.index(0)] = True
        space[self.rows.shifts.index(0)] = True
        return {"": whole, "_time": time, "_space": space}
