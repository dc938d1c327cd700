"""How often a video is recognised by all of its clips together."""

from __future__ import annotations

import torch
from torch import Tensor

from tinv.metrics.answers import undefined_unless_finite
from tinv.metrics.base import RowMetric


class VideoAccuracy(RowMetric):
    """Accuracy of videos, whose score is the mean of their clips' probabilities (Hara, Kataoka & Satoh, 2018).

    NaN if logits of any clip are not finite.

    Reported:
        - `acc5` (percent, 0 to 100): clips whose class is among the five most probable ones.
        - `video_acc` (percent, 0 to 100): videos whose class is the most probable one.
        - `video_acc5` (percent, 0 to 100): videos whose class is among the five most probable ones.

    Formula:
        `score of a video = mean over its clips x of softmax f(x)`, for the logits f(x).

    Source:
        Hara, Kataoka & Satoh, CVPR 2018.

    Example:
        >>> accuracy = VideoAccuracy()
        >>> logits = torch.tensor([[3.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
        >>> accuracy.update(logits, torch.tensor([0, 0, 1]), video=torch.tensor([7, 7, 9]))
        >>> accuracy.compute()["video_acc"]
        tensor(100., dtype=torch.float64)
    """

    higher_is_better = True

    def __init__(self) -> None:
        super().__init__()
        self.add_rows("probability", "target", "video")

    def update(self, logits: Tensor, targets: Tensor, video: Tensor) -> None:
        """Adds a batch of clips: logits (N, classes), classes (N,), and the numbers of their videos (N,)."""
        # all of a clip, so that its video is not defined either
        probability = undefined_unless_finite(logits.float().softmax(dim=1).T, logits).T.float()
        self.append(probability=probability, target=targets, video=video)

    def compute(self) -> dict[str, Tensor]:
        """Returns `acc5`, `video_acc` and `video_acc5`."""
        probability, target, video = map(self.gathered, ("probability", "target", "video"))
        _, of, count = torch.unique(video, return_inverse=True, return_counts=True)
        # in the order of the clips' videos, whatever batches and processes they came in
        score = torch.zeros(len(count), probability.shape[1], dtype=torch.float64, device=video.device)
        score.index_add_(0, of, probability.double())
        score /= count[:, None]
        targets = torch.zeros(len(count), dtype=target.dtype, device=video.device)
        targets[of] = target
        return {
            "acc5": _top(probability, target, 5),
            "video_acc": _top(score, targets, 1),
            "video_acc5": _top(score, targets, 5),
        }


def _top(score: Tensor, target: Tensor, among: int) -> Tensor:
    """Returns how often, in percent, the target is among the highest scores."""
    first = score.topk(min(among, score.shape[1]), dim=1).indices
    return 100 * undefined_unless_finite((first == target[:, None]).any(dim=1), score).mean()
