"""How well absolute position can be read from what a network makes of an image, at each distance from the border."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn

from tinv.errors import TinvError
from tinv.metrics.views import bootstrap_means
from tinv.models.features import logits_and_features

APART = 64
"""Pixels between the two places, an axis: a multiple of the stride of nearly every network."""


@dataclass(frozen=True)
class Readout:
    """How often the place was read rightly.

    Attributes:
        distance: blank pixels between the photograph and the border of the image, at the nearer corner.
        accuracy: percentage of held-out photographs, in both places; 50 is chance.
        low: 2.5th percentile of that, by bootstrap over photographs.
        high: 97.5th percentile.
    """

    distance: int
    accuracy: float
    low: float
    high: float


class LocationProbe:
    """Reads from a frozen network where a photograph lies: near the top left corner or near the bottom right.

    A generalisation of the four-quadrant test (Kayhan & van Gemert, CVPR 2020, section 3) to any network: every
    photograph is laid on black at both places, `distance` pixels from the border, `APART` pixels from each other. A
    logistic regression on the input of the network's last layer learns the place from half of the photographs; the
    others, which it never saw, are scored. A network that does not know where it looks gives 50%.

    Args:
        network: maps (N, C, H, W) to (N, classes); used in evaluation mode.
        photographs: (N, C, h, w) as the network takes them, black being 0; at least 4.
        seed: of the halves and the bootstrap.
        batch_size: photographs a batch.

    Raises:
        TinvError: for fewer than 4 photographs.
    """

    def __init__(self, network: nn.Module, photographs: Tensor, seed: int = 0, batch_size: int = 16) -> None:
        if len(photographs) < 4:
            raise TinvError(f"a location probe needs at least 4 photographs, not {len(photographs)}")
        self.network, self.photographs, self.seed, self.batch_size = network.eval(), photographs, seed, batch_size

    @torch.no_grad()
    def features(self, distance: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns what the network makes of every photograph at the first and at the second place: (N, F) each."""
        channels, height, width = self.photographs.shape[1:]
        blank = 2 * distance + APART
        found: list[list[Tensor]] = [[], []]
        for part in torch.split(self.photographs, self.batch_size):
            for place, start in enumerate((distance, distance + APART)):
                laid = part.new_zeros(len(part), channels, height + blank, width + blank)
                laid[:, :, start : start + height, start : start + width] = part
                laid = laid.contiguous(memory_format=torch.channels_last)
                found[place].append(logits_and_features(self.network, laid)[1].double().cpu())
        first, second = (torch.cat(parts).numpy() for parts in found)
        return first, second

    def read(self, distance: int) -> Readout:
        """Returns how well the place is read at a distance of so many pixels from the border."""
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression
        from sklearn.preprocessing import StandardScaler

        places = self.features(distance)
        count = len(places[0])
        order = np.random.default_rng(self.seed).permutation(count)
        train, test = order[: count // 2], order[count // 2 :]
        scaler = StandardScaler().fit(np.concatenate([features[train] for features in places]))
        learner = LogisticRegression(max_iter=1000)
        with warnings.catch_warnings():
            # where nothing can be read there is nothing to converge to
            warnings.simplefilter("ignore", ConvergenceWarning)
            known = np.concatenate([scaler.transform(features[train]) for features in places])
            learner.fit(known, np.repeat([0, 1], len(train)))
        right = [learner.predict(scaler.transform(places[place][test])) == place for place in (0, 1)]
        scores = (right[0].astype(float) + right[1]) / 2
        low, high = np.percentile(bootstrap_means(scores[:, None], self.seed), [2.5, 97.5])
        return Readout(distance, 100 * float(scores.mean()), 100 * float(low), 100 * float(high))
