"""How fast a network's output changes when its images begin to move."""

from __future__ import annotations

import traceback
from typing import get_args

import numpy as np
import torch
from torch import Tensor, nn
from torch.autograd import forward_ad

from tinv.errors import TinvError, unknown
from tinv.metrics.answers import undefined_unless_finite
from tinv.metrics.base import InvarianceMetric, first_of
from tinv.metrics.views import RESAMPLES, bootstrap_means
from tinv.translation import Generator, velocity
from tinv.utils.arguments import PositiveInt, Seed

FIELDS = ("softmax", "logits")


class LieDerivative(InvarianceMetric):
    """Squared rate at which the output changes when its image begins to move (Gruver et al., ICLR 2023).

    The derivative is that of the network itself, by forward-mode differentiation; no shift has a size. Images move in x
    and in y, wrapped around, as trigonometric polynomials; both directions are averaged. A few images have most of the
    sum where an answer is about to change: the median is that of a common image, and a mean of few images says little.

    Numbers have bootstrap intervals over images (`_low`, `_high`).

    Reported:
        - `NAME` (per square pixel, 0 or more): mean over images, of the class probabilities.
        - `NAME_median` (per square pixel, 0 or more): median over images, of the class probabilities.
        - `NAME_logits` (per square pixel, 0 or more): mean over images, of the logits.
        - `NAME_logits_median` (per square pixel, 0 or more): median over images, of the logits.

    Formula:
        `|d/dt f(T_t x)|^2` at t = 0 for each image x, summed over the outputs f and averaged over moves T_t by t pixels
        to the right and down.

    Source:
        Gruver, Finzi, Goldblum & Wilson, ICLR 2023. Their public code takes half of the image's width as
        unit, one-sided differences of bilinear samples, and the mean over classes of the probabilities' absolute rates.

    Args:
        generator: What a beginning move is: `fourier`, its exact derivative; `central`, half the difference of the
            images moved by one pixel to either side; `forward`, the difference to the image moved by one pixel.
        max_images: Number of images that are used, the first of the set; None for all.
        seed: Seed of the bootstrap.
        name: Name under which the results are reported.
    """

    unit = "per square pixel"
    higher_is_better = False

    def __init__(
        self,
        generator: Generator = "fourier",
        max_images: PositiveInt | None = None,
        seed: Seed = 0,
        name: str = "lie",
    ) -> None:
        super().__init__()
        if generator not in get_args(Generator):
            raise unknown("generator", generator, get_args(Generator))
        self.generator, self.max_images, self.seed, self.name = generator, max_images, seed, name
        self.fields = FIELDS
        self.add_rows("index", "rows")

    @property
    def views(self) -> int:
        """About how many passes the derivatives by two directions cost."""
        return 8

    def update(self, network: nn.Module, images: Tensor, logits: Tensor, targets: Tensor, index: Tensor) -> None:
        """Adds a batch, see InvarianceMetric.update.

        Raises:
            TinvError: If the network holds an operation that torch cannot differentiate in forward mode.
        """
        images, index = first_of(self.max_images, index, images, index)
        rates = torch.zeros(len(FIELDS), len(images), dtype=torch.float64, device=images.device)
        if len(images):
            for axis in (3, 2):
                outputs, change = output_velocity(network, images, velocity(images, axis, self.generator))
                outputs, change = outputs.double(), change.double()
                likely = outputs.softmax(dim=1)
                of_softmax = likely * (change - (likely * change).sum(dim=1, keepdim=True))
                both = torch.stack([rate.square().sum(dim=1) for rate in (of_softmax, change)])
                rates += undefined_unless_finite(both, outputs, change) / 2
        self.append(index=index, rows=rates.T)

    def per_image(self) -> np.ndarray:
        """Returns the rates of softmax and logits of each image (images, 2), in order of the sample indices."""
        return self.ordered("rows")

    def compute(self) -> dict[str, Tensor]:
        """Returns means and medians with their intervals; nothing before any image was seen."""
        rows = self.per_image()
        if not len(rows):
            return {}
        means, medians = bootstrap_means(rows, self.seed), bootstrap_medians(rows, self.seed)
        found = {}
        for number, ending in enumerate(("", "_logits")):
            column = rows[:, number]
            for key, value, draws in (("", column.mean(), means), ("_median", np.median(column), medians)):
                low, high = np.percentile(draws[:, number], [2.5, 97.5])
                for end, worth in (("", value), ("_low", low), ("_high", high)):
                    found[f"{self.name}{ending}{key}{end}"] = torch.tensor(float(worth), dtype=torch.float64)
        return found


def output_velocity(network: nn.Module, images: Tensor, tangents: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the output of a network, and the rate at which it changes when the images change at a given rate.

    Args:
        network: Maps (N, C, H, W) to (N, F).
        images: (N, C, H, W).
        tangents: (N, C, H, W), the rate of change of the images.

    Returns:
        The output (N, F) and its rate of change (N, F).

    Raises:
        TinvError: If the network holds an operation that torch cannot differentiate in forward mode.
    """
    # Lightning tests in inference mode, in which torch keeps no tangents
    with torch.inference_mode(False), torch.no_grad(), forward_ad.dual_level():
        try:
            moving = forward_ad.make_dual(images.clone(), tangents.clone())  # type: ignore[no-untyped-call]
            answer = network(moving)
        except (NotImplementedError, RuntimeError) as error:
            # torch says by either class what it lacks; whatever else the network raises is its own
            reason = str(error).partition("\n")[0]
            if "forward" not in reason.lower():
                raise
            where = _layer_of(error, network)
            raise TinvError(f"LieDerivative needs derivatives in forward mode, which {where}lacks: {reason}") from error
        outputs, change = forward_ad.unpack_dual(answer)  # type: ignore[no-untyped-call]
        return outputs, torch.zeros_like(outputs) if change is None else change


def _layer_of(error: BaseException, network: nn.Module) -> str:
    """Returns the innermost layer of the network in which an error was raised, for a message."""
    names = {id(module): name for name, module in network.named_modules()} if isinstance(network, nn.Module) else {}
    frames = [frame.f_locals.get("self") for frame, _ in traceback.walk_tb(error.__traceback__)]
    found = [names[id(owner)] for owner in frames if id(owner) in names]
    return f"layer {found[-1]} " if found and found[-1] else "the network "


def bootstrap_medians(rows: np.ndarray, seed: int) -> np.ndarray:
    """Returns the fields' medians over rows (N, fields) drawn with replacement, 1,000 times: (1000, fields)."""
    draw = np.random.default_rng(seed)
    return np.stack([np.median(rows[draw.integers(len(rows), size=len(rows))], axis=0) for _ in range(RESAMPLES)])
