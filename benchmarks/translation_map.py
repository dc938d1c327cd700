"""TranslationSensitivityMap over a 17 x 17 window against one translation and one forward a shift and batch.

Claim: at least 1.0 times as fast. Run: python benchmarks/translation_map.py
"""

from __future__ import annotations

import sys

import torch
from timing import in_turn, verdict
from torch.nn import functional as F

from tinv.metrics import TranslationSensitivityMap
from tinv.models import create_backbone

IMAGES, BATCH, REACH = 64, 64, 8


@torch.inference_mode()
def main() -> int:
    torch.manual_seed(0)
    network = create_backbone("pooling_cnn", num_classes=10, input_size=(50, 50)).eval()
    network = network.to(memory_format=torch.channels_last)
    images = F.pad(torch.randn(IMAGES, 3, 32, 32), (9, 9, 9, 9)).contiguous(memory_format=torch.channels_last)
    targets = torch.randint(0, 10, (IMAGES,))
    batches = torch.arange(IMAGES).split(BATCH)
    found = {}

    def ours() -> None:
        metric = TranslationSensitivityMap(REACH)
        for part in batches:
            metric.update(network, images[part], network(images[part]), targets[part], part)
        found["tinv"] = metric.maps()["mcs"]

    def theirs() -> None:
        cosine = torch.zeros(17, 17, dtype=torch.double)
        for part in batches:
            x, before = images[part], network(images[part])
            for row, dy in enumerate(range(-REACH, REACH + 1)):
                for column, dx in enumerate(range(-REACH, REACH + 1)):
                    moved = F.pad(x, (max(dx, 0), max(-dx, 0), max(dy, 0), max(-dy, 0)))
                    moved = moved[..., max(-dy, 0) : max(-dy, 0) + 50, max(-dx, 0) : max(-dx, 0) + 50]
                    after = network(moved)
                    (after.argmax(1) == targets[part]).sum(), (after.argmax(1) == before.argmax(1)).sum()
                    cosine[row, column] += F.cosine_similarity(after.double(), before.double()).sum()
        found["loop"] = cosine / IMAGES

    seconds = in_turn({"tinv": ours, "loop": theirs}, rounds=9)
    torch.testing.assert_close(found["tinv"], found["loop"], rtol=0, atol=1e-5)
    print({name: f"{IMAGES * 289 / value:,.0f} images/s" for name, value in seconds.items()})
    return 0 if verdict("images/s over the plain loop's", seconds["loop"] / seconds["tinv"], 1.0, True) else 1


if __name__ == "__main__":
    sys.exit(main())
