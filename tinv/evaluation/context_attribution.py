"""Which part of a network breaks its invariance, without touching its weights: real context in place of padding.

Every image gives the same views to two networks: the network as it is, and the same weights without padding on a larger
cut of the picture around each view (`tinv.evaluation.real_context`), whose last map has the same positions. Views are
taken apart by whole total strides, at which no subsampling changes what it samples, and by the same distance plus and
minus a few pixels, at which it does.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Literal, get_args

import numpy as np
import torch
from torch import Tensor, nn

from tinv.errors import TinvError
from tinv.evaluation.attribution import MARKED_FROM
from tinv.evaluation.images import Photographs
from tinv.evaluation.real_context import RealContext, real_context
from tinv.evaluation.scenes import SceneLayout
from tinv.metrics.answers import undefined_unless_finite
from tinv.metrics.shared_views import images_at_once
from tinv.metrics.views import bootstrap_means
from tinv.models.features import as_logits
from tinv.translation import crop_each, uniform

Condition = Literal["as it is", "valid"]
Order = Literal["padding first", "aliasing first"]
Part = Literal["padding", "aliasing", "rest"]

FIELDS = ("on_stride", "off_stride", "accuracy")
"""Of each image and condition, in 0..1: inconsistent pairs on and off the stride, whether the base view is right."""

SHARES: dict[Order, dict[Part, tuple[float, ...]]] = {
    "padding first": {"padding": (0, 1, 0, -1), "aliasing": (0, 0, -1, 1), "rest": (0, 0, 1, 0)},
    "aliasing first": {"padding": (1, 0, -1, 0), "aliasing": (-1, 1, 0, 0), "rest": (0, 0, 1, 0)},
}
"""Weights of the inconsistencies (as it is on, as it is off, valid on, valid off the stride) in each share. The shares
of an order add up to the inconsistency off the stride of the network as it is."""


def few_pixels(stride: int) -> int:
    """Returns by how many pixels at most views off the stride are nearer and further than those on it.

    A quarter of the stride: less than half of it, so that no such view is nearer to another multiple of the stride.

    Args:
        stride: Total stride in pixels.
    """
    return 0 if stride == 1 else max(1, stride // 4)


@dataclass(frozen=True)
class Displacements:
    """Where the views of each image lie: a base view, one moved by whole strides, and two that are not.

    Attributes:
        distance: Pixels from the base view to the one on the stride.
        few: The two off the stride are 1 to so many pixels nearer and further; 0 for a total stride of 1.
        offset_range: Views lie at offsets from 0 to so many pixels, and `reach` more.
        seed: Seed of the draws.
    """

    distance: int
    few: int
    offset_range: int
    seed: int

    @property
    def reach(self) -> int:
        """Pixels by which the furthest view may leave the offsets."""
        return max(0, self.distance + self.few - self.offset_range)

    def offsets(self, index: Tensor) -> Tensor:
        """Draws where the views of some images begin.

        The direction is up, down, left or right; it and all else depends on seed and image number alone.

        Args:
            index: (N,) numbers of the images.

        Returns:
            (views, N, 2) integers (y, x): the base view, that on the stride, and, unless the total stride is 1, one
            further and one nearer than that, by the same number of pixels.
        """
        draws = uniform(index.cpu().numpy(), 4, self.seed)
        direction = np.floor(4 * draws[:, 0]).astype(int)
        axis, sign = direction // 2, 1 - 2 * (direction % 2)
        room = max(0, self.offset_range - self.distance - self.few)
        along = np.floor(draws[:, 1] * (room + 1)).astype(int)
        across = np.floor(draws[:, 2] * (self.offset_range + 1)).astype(int)
        more = 1 + np.floor(draws[:, 3] * self.few).astype(int)
        base = np.where(sign > 0, along, self.offset_range - along)
        moves = [0 * more, self.distance + 0 * more]
        moves += [self.distance + more, self.distance - more] if self.few else []
        at = np.stack([base + sign * move for move in moves])
        other = np.broadcast_to(across, at.shape)
        vertical = (axis == 0)[None]
        found = np.stack([np.where(vertical, at, other), np.where(vertical, other, at)], axis=-1)
        return torch.from_numpy(found).to(index.device)


@dataclass
class ContextAttribution:
    """Attribution of a network's inconsistency to padding, aliasing and the rest, by real context.

    Args:
        network: The network as it is, in evaluation mode on its device.
        photographs: Images to look at, laid out for crops.
        seed: Seed of views and bootstrap.
        device: Device of the network.

    Attributes:
        context: The same weights without padding.
        pairs: Where views lie.
        rows: Numbers of the images seen, (N, 6): `FIELDS` of the network as it is, then of the other one.
        labelled: Whether every image seen has a class.
        progress: Is told how many images of the batch are done, in parts of the work of each.

    Raises:
        TinvError: If the question makes no sense for the mode of the views, the network cannot run without padding, or
            its total stride is larger than the largest offset.
    """

    network: nn.Module
    photographs: Photographs
    seed: int
    device: torch.device
    context: RealContext = field(init=False)
    pairs: Displacements = field(init=False)
    rows: list[Tensor] = field(default_factory=list, init=False)
    labelled: bool = field(default=True, init=False)
    progress: Callable[[float], None] = field(default_factory=lambda: lambda _: None, init=False)
    _at_once: dict[tuple[int, int], int] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        layout = self.photographs.layout
        if layout.mode != "crop":
            raise TinvError(f"it is for views of mode crop, not {layout.mode}")
        self.context = real_context(self.network, torch.zeros(1, len(layout.mean), *layout.size, device=self.device))
        stride = self.context.stride
        if stride > layout.offset_range:
            raise TinvError(f"the total stride, {stride} pixels, is more than offset_range={layout.offset_range}")
        self.context.network.to(self.device).to(memory_format=torch.channels_last)
        self.pairs = Displacements(stride, few_pixels(stride), layout.offset_range, self.seed)
        scene = SceneLayout(layout.size, layout.offset_range, "crop", layout.mean, layout.std, margins=self._margins())
        self.photographs = replace(self.photographs, layout=scene, kept=None)

    @property
    def views(self) -> float:
        """Passes through the network as it is that an image costs, by the pixels of both networks."""
        (height, width), (cut_height, cut_width) = self.photographs.layout.size, self.context.size
        return (4 if self.pairs.few else 2) * (1 + cut_height * cut_width / (height * width))

    def _margins(self) -> Any:
        """Returns the pixels that cuts reach beyond what views are cut of, (before, after) for each axis."""
        layout, cut, reach = self.photographs.layout, self.context, self.pairs.reach
        return tuple(
            (max(0, -cut.start[a]) + reach, max(0, cut.start[a] + cut.size[a] - layout.size[a]) + reach) for a in (0, 1)
        )

    @torch.no_grad()
    def update(self, scenes: Tensor, targets: Tensor, index: Tensor) -> None:
        """Adds a batch.

        Args:
            scenes: (N, C, H, W) images with their margins, as the layout of `photographs` makes them.
            targets: (N,) classes; below 0 where they are not known.
            index: (N,) numbers of the images.
        """
        layout: Any = self.photographs.layout
        first = torch.tensor([before for before, _ in layout.margins], device=scenes.device)
        offsets = self.pairs.offsets(index) + first
        rows = scenes.permute(0, 2, 3, 1).contiguous()
        begin = torch.tensor(self.context.start, device=scenes.device)
        asis = self._numbers(self.network, rows, offsets, layout.size, targets)
        padded = self.context.network is not self.network
        self.progress(len(rows) * (len(offsets) / self.views if padded else 1))
        valid = (
            self._numbers(self.context.network, rows, offsets + begin, self.context.size, targets) if padded else asis
        )
        self.progress(len(rows))
        self.rows.append(torch.cat([asis, valid], dim=1).cpu())
        self.labelled &= bool((targets >= 0).all())

    def _numbers(self, network: nn.Module, rows: Tensor, at: Tensor, size: tuple[int, int], targets: Tensor) -> Tensor:
        """Returns the `FIELDS` of one condition, (N, 3)."""
        answers = [torch.cat(list(self._answers(network, rows, view, size))) for view in at]
        base, *others = (answer.argmax(dim=1) for answer in answers)
        apart = [(base != other).double() for other in others]
        off = (apart[1] + apart[2]) / 2 if len(apart) == 3 else apart[0]
        return undefined_unless_finite(torch.stack([apart[0], off, (base == targets).double()]), *answers).T

    def _answers(self, network: nn.Module, rows: Tensor, at: Tensor, size: tuple[int, int]) -> Iterator[Tensor]:
        """Yields a network's answers to a view of each image, as many at a time as take the memory of one batch."""
        height, width = self.photographs.layout.size
        step = max(1, self.photographs.batch_size * height * width // (size[0] * size[1]))
        if rows.device.type == "cpu" and len(rows):
            if size not in self._at_once:
                one = crop_each(rows[:1], at[:1, 0], at[:1, 1], *size)
                self._at_once[size] = images_at_once(network, one)
            step = min(step, self._at_once[size])
        for begin in range(0, len(rows), step):
            some = slice(begin, begin + step)
            yield as_logits(network(crop_each(rows[some], at[some, 0], at[some, 1], *size))).float()

    def to_dict(self) -> dict[str, Any]:
        """Returns the attribution as JSON can hold it, with 95% bootstrap intervals over images.

        Inconsistencies, accuracies and shares are percent of pairs, of images and points of percent of pairs; the
        `percent` of a share is of all inconsistency. All are drawn with the same images.
        """
        if not self.rows:  # all are damaged, and were to be skipped
            said = "None of the images that it looks at could be read: there is nothing to attribute."
            return {"method": "context", "images": 0, "explanation": [said]}
        rows = torch.cat(self.rows).numpy()
        whole, draws = rows.mean(axis=0), bootstrap_means(rows, self.seed)
        pairs, names = [0, 1, 3, 4], get_args(Condition)
        conditions: dict[str, Any] = {}
        for number, name in enumerate(names):
            conditions[name] = {}
            for place, key in enumerate(FIELDS, start=3 * number):
                known = key != "accuracy" or self.labelled
                numbers = _interval(100 * whole[place], 100 * draws[:, place]) if known else (None,) * 3
                conditions[name] |= dict(zip((key, f"{key}_low", f"{key}_high"), numbers, strict=True))
        shares = {
            order: {part: _share(np.array(weights), whole[pairs], draws[:, pairs]) for part, weights in parts.items()}
            for order, parts in SHARES.items()
        }
        found = {
            "method": "context",
            "stride": self.context.stride,
            "distance": self.pairs.distance,
            "off_by": self.pairs.few,
            "size": list(self.context.size),
            "positions": list(self.context.positions),
            "images": len(rows),
            "conditions": conditions,
            "shares": shares,
        }
        return found | {"explanation": sentences(found)}


def _interval(value: float, draws: np.ndarray) -> tuple[float | None, float | None, float | None]:
    """Returns a number and the ends of its interval; None where it is not defined."""
    defined = draws[np.isfinite(draws)]
    if not math.isfinite(value) or not len(defined):
        return None, None, None
    low, high = np.percentile(defined, [2.5, 97.5])
    return float(value), float(low), float(high)


def _share(weights: np.ndarray, whole: np.ndarray, draws: np.ndarray) -> dict[str, float | None]:
    """Returns a share in points, and in percent of all inconsistency, with intervals."""
    value, several = 100 * whole @ weights, 100 * draws @ weights
    found = dict(zip(("value", "low", "high"), _interval(value, several), strict=True))
    with np.errstate(divide="ignore", invalid="ignore"):
        percents = _interval(value / whole[1], several / draws[:, 1])
    return found | dict(zip(("percent", "percent_low", "percent_high"), percents, strict=True))


def sentences(found: dict[str, Any]) -> list[str]:
    """Returns, in sentences, what an attribution says.

    Args:
        found: What `ContextAttribution.to_dict` returns.
    """
    conditions, distance, few = found["conditions"], found["distance"], found["off_by"]
    asis, valid = conditions["as it is"], conditions["valid"]
    if asis["off_stride"] is None or valid["off_stride"] is None:
        return ["The network's answers are not finite: there is nothing to attribute."]
    pixels = "1 pixel" if distance == 1 else f"{distance} pixels"
    size, positions = ("x".join(map(str, found[key])) for key in ("size", "positions"))
    lines = [
        f"Of 100 pairs of views one total stride ({pixels}) apart, {asis['on_stride']:.1f} get two answers"
        + (f"; of 100 that are 1 to {few} pixels nearer or further, {asis['off_stride']:.1f}" if few > 1 else "")
        + (f"; of 100 that are 1 pixel nearer or further, {asis['off_stride']:.1f}" if few == 1 else "")
        + f"{_accuracy(asis)}.",
        f"With real context in place of padding, on cuts of {size} pixels with the same {positions} positions, "
        f"{valid['on_stride']:.1f}" + (f" and {valid['off_stride']:.1f}" if few else "") + f"{_accuracy(valid)}.",
    ]
    if not few:
        lines.append("The total stride is 1 pixel: every move is a multiple of it, and nothing is due to aliasing.")
    if not any((asis["on_stride"], asis["off_stride"], valid["on_stride"], valid["off_stride"])):
        return [*lines, "No pair of views got two answers: there is nothing to attribute."]
    for order, parts in found["shares"].items():
        lines.append(f"With {order}: " + ", ".join(_part(name, share) for name, share in parts.items()) + ".")
    lines.append("The rest is the content that enters and leaves the view, and the head.")
    if asis["accuracy"] is None:
        lines.append("Without labels accuracy is not known: whether the network relies on its padding cannot be seen.")
    elif abs(asis["accuracy"] - valid["accuracy"]) > MARKED_FROM:
        lines.append(
            f"Accuracy differs by {abs(asis['accuracy'] - valid['accuracy']):.1f} points: the network relies on its "
            "padding, so that to take it away is no neutral change, and its share holds that too."
        )
    return lines


def _accuracy(condition: dict[str, Any]) -> str:
    return "" if condition["accuracy"] is None else f" (accuracy {condition['accuracy']:.1f}%)"


def _part(name: str, share: dict[str, float]) -> str:
    named = "the rest" if name == "rest" else name
    return f"{named} {_points(share['value'])} points ({_points(share['low'])} to {_points(share['high'])})"


def _points(value: float) -> str:
    # a negative number so near to 0 would be printed as -0.0
    return f"{value if abs(value) >= 0.05 else 0:.1f}"
