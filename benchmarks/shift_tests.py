"""ShiftConsistency and DiagonalAccuracy on a ResNet-18 against the plain loops of the paper's description.

The peer runs one batch for each set of offsets, in float32 and contiguous memory; tinv runs as the shipped
configuration does, bfloat16 where autocast allows it and channels last, with offsets for each image.
Claims: at least 2 and 2.5 times as many images/s. Run: python benchmarks/shift_tests.py
"""

from __future__ import annotations

import sys

import torch
import torchvision
from timing import in_turn, verdict

from tinv.metrics import DiagonalAccuracy, ShiftConsistency

IMAGES, SIZE, REACH, STEP, ROUNDS = 64, 224, 64, 16, 5


@torch.inference_mode()
def main() -> int:
    torch.manual_seed(0)
    contiguous = torchvision.models.resnet18().eval()
    network = torchvision.models.resnet18().eval().to(memory_format=torch.channels_last)
    network.load_state_dict(contiguous.state_dict())
    images = torch.randn(IMAGES, 3, SIZE + REACH, SIZE + REACH)
    last = images.contiguous(memory_format=torch.channels_last)
    targets, index = torch.randint(0, 1000, (IMAGES,)), torch.arange(IMAGES)
    logits = torch.zeros(IMAGES, 1000)
    found: dict[str, float] = {}

    def tinv_consistency() -> None:
        metric = ShiftConsistency(REACH, passes=1)
        with torch.autocast("cpu", torch.bfloat16):
            metric.update(network, last, logits, targets, index)
        found["consistency"] = float(metric.compute()["consistency"])

    def loop_consistency() -> None:
        answers = []
        for _ in range(2):
            x, y = torch.randint(0, REACH, (2,)).tolist()
            answers.append(contiguous(images[:, :, y : y + SIZE, x : x + SIZE]).argmax(1))
        found["loop's consistency"] = 100 * float((answers[0] == answers[1]).double().mean())

    def tinv_diagonal() -> None:
        metric = DiagonalAccuracy(REACH, step=STEP)
        with torch.autocast("cpu", torch.bfloat16):
            metric.update(network, last, logits, targets, index)
        found["probability"] = float(metric.compute()["diagonal_acc_probability"])

    def loop_diagonal() -> None:
        right, probability = 0.0, 0.0
        for place in range(0, REACH + 1, STEP):
            said = contiguous(images[:, :, place : place + SIZE, place : place + SIZE])
            right += float((said.argmax(1) == targets).sum())
            probability += float(said.softmax(1).gather(1, targets[:, None]).mean())
        found["loop's probability"] = 100 * probability / (REACH // STEP + 1)

    runs = {"tinv consistency": tinv_consistency, "loop consistency": loop_consistency}
    runs |= {"tinv diagonal": tinv_diagonal, "loop diagonal": loop_diagonal}
    seconds = in_turn(runs, ROUNDS)
    views = {"consistency": 2, "diagonal": REACH // STEP + 1}
    print({name: f"{IMAGES * views[name.split()[1]] / value:,.0f} views/s" for name, value in seconds.items()})
    print({name: f"{value:.4f}" for name, value in found.items()})
    held = [
        verdict(f"views/s of {name} over the loop's", seconds[f"loop {name}"] / seconds[f"tinv {name}"], least, True)
        for name, least in (("consistency", 2), ("diagonal", 2.5))
    ]
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
