"""A 2,000 x 3,000 mosaic of photographs through the trunk of SqueezeNet 1.1, whole and in tiles.

Claims: stitched tiles equal the whole to 1e-5, tiles that begin one pixel later do not, and tiles take at most half of
the memory of the whole image.

Run: python benchmarks/tiles.py DIR [WEIGHTS]
DIR holds photographs; without WEIGHTS (of torchvision's squeezenet1_1) the network has random ones.
"""

from __future__ import annotations

import multiprocessing
import resource
import sys
import time
from pathlib import Path

import torch
import torchvision
from PIL import Image
from timing import verdict
from torch import Tensor, nn
from torch.nn import functional as F

from tinv import tile_plan, trunk_of
from tinv.graph.tile_proof import unaligned

SIZE, TILE, SIDE = (2000, 3000), 768, 250


def mosaic(folder: Path) -> Tensor:
    """Returns photographs side by side, (1, 3, 2000, 3000), with mean 0 and deviation 1."""
    files = sorted(path for path in folder.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg", ".png"))
    whole = torch.empty(3, *SIZE)
    places = [(y, x) for y in range(0, SIZE[0], SIDE) for x in range(0, SIZE[1], SIDE)]
    for number, (y, x) in enumerate(places):
        with Image.open(files[number % len(files)]) as photograph:
            pixels = photograph.convert("RGB").resize((SIDE, SIDE))
        whole[:, y : y + SIDE, x : x + SIDE] = torchvision.transforms.functional.to_tensor(pixels)
    return ((whole - whole.mean()) / whole.std())[None]


def trunk(weights: str | None) -> nn.Module:
    """Returns SqueezeNet up to its map of class scores."""
    torch.manual_seed(0)
    network = torchvision.models.squeezenet1_1(weights=None)
    if weights is not None:
        network.load_state_dict(torch.load(weights, weights_only=True))
    return trunk_of(network.eval(), torch.zeros(1, 3, 224, 224))


def run(how: str, folder: Path, weights: str | None, queue: multiprocessing.Queue) -> None:
    """Puts the output, the seconds and the memory in MB that one way takes beyond the image and the network."""
    network, image = trunk(weights), mosaic(folder)
    plan = tile_plan(network, SIZE, TILE, 3)
    off = unaligned(plan)
    assert off is not None
    with torch.no_grad():
        network(F.interpolate(image, (64, 64)))  # what torch sets up once
        before, began = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, time.perf_counter()
        made = network(image) if how == "whole" else (plan if how == "tiles" else off).run(network, image)
        seconds = time.perf_counter() - began
    memory = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) / 1024
    queue.put((made.numpy(), seconds, memory, len(plan.tiles)))


def main(folder: str, weights: str | None = None) -> int:
    """Prints the comparison; returns 1 if a claim does not hold."""
    context, found = multiprocessing.get_context("spawn"), {}
    for how in ("whole", "tiles", "tiles one pixel later"):  # a process each: memory is the largest a process had
        queue = context.Queue()
        process = context.Process(target=run, args=(how, Path(folder), weights, queue))
        process.start()
        found[how] = queue.get()
        process.join()
        print(f"{how}: {found[how][1]:.1f} s, {found[how][2]:.0f} MB")
    whole, tiles, later = (torch.from_numpy(found[how][0]) for how in found)
    print(f"{found['tiles'][3]} tiles of at most {TILE} pixels; output {tuple(whole.shape)}")
    errors = [1e6 * float((made - whole).abs().max() / whole.abs().max()) for made in (tiles, later)]
    held = [
        verdict("relative error of stitched tiles, in millionths", errors[0], 10, at_least=False),
        verdict("relative error of tiles one pixel later, in millionths", errors[1], 1000, at_least=True),
        verdict("memory of tiles / memory of the whole", found["tiles"][2] / found["whole"][2], 0.5, at_least=False),
    ]
    return int(not all(held))


if __name__ == "__main__":
    if len(sys.argv) not in (2, 3):
        sys.exit(__doc__)
    sys.exit(main(*sys.argv[1:]))
