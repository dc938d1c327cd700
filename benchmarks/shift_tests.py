"""ShiftConsistency and DiagonalAccuracy on a ResNet-18 against the plain loops of the paper's description.

The peer runs one batch for each set of offsets, in float32 and contiguous memory; tinv runs as its commands do, with
offsets for each image, channels last, freed memory kept, and bfloat16 where the processor has matrix units for it
(AMX; without them bfloat16 is slower than float32). Each runs in a process of its own.
Claims, for processors with AMX: at least 2 and 2.5 times as many views/s. Without it float32 convolutions themselves
are the limit: 92 views/s on two cores if all of them were as fast as the fastest, against 71 to 77 of tinv and 37 to 44
of the loop, which makes 1.6 to 1.9.
Run: python benchmarks/shift_tests.py
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial

import torch
import torchvision
from timing import in_turn, verdict

from tinv.metrics import DiagonalAccuracy, ShiftConsistency
from tinv.utils.memory import keep_freed_memory

IMAGES, SIZE, REACH, STEP, TURNS, ROUNDS = 64, 224, 64, 16, 2, 2
VIEWS = {"consistency": 2, "diagonal": REACH // STEP + 1}
AMX = bool(torch.cpu.get_capabilities().get("amx_tile"))


def of_tinv(what: str, network: torch.nn.Module, images: torch.Tensor) -> Callable[[], None]:
    """Returns what updates one of tinv's metrics."""
    keep_freed_memory()
    network, last = network.to(memory_format=torch.channels_last), images.contiguous(memory_format=torch.channels_last)
    index, logits = torch.arange(IMAGES), torch.zeros(IMAGES, 1000)

    def update() -> None:
        kinds = {"consistency": ShiftConsistency(REACH, passes=1), "diagonal": DiagonalAccuracy(REACH, step=STEP)}
        with torch.autocast("cpu", torch.bfloat16, enabled=AMX):
            kinds[what].update(network, last, logits, index, index)

    return update


def of_loop(what: str, network: torch.nn.Module, images: torch.Tensor) -> Callable[[], None]:
    """Returns what runs the same number of views, all images moved alike."""

    def run() -> None:
        random = torch.randint(0, REACH, (2, 2)).tolist()
        places = random if what == "consistency" else [(place, place) for place in range(0, REACH + 1, STEP)]
        for x, y in places:
            said = network(images[:, :, y : y + SIZE, x : x + SIZE])
            said.argmax(1), said.softmax(1)

    return run


@torch.inference_mode()
def peer(who: str, what: str) -> float:
    """Returns the seconds of one turn: the shortest after the first."""
    torch.manual_seed(0)
    network, images = torchvision.models.resnet18().eval(), torch.randn(IMAGES, 3, SIZE + REACH, SIZE + REACH)
    run = (of_tinv if who == "tinv" else of_loop)(what, network, images)
    seconds = []
    for _ in range(TURNS + 1):
        started = time.perf_counter()
        run()
        seconds.append(time.perf_counter() - started)
    return min(seconds[1:])


def in_process(who: str, what: str) -> float:
    """Returns what `peer` returns, from a process of its own."""
    return float(
        subprocess.run([sys.executable, __file__, who, what], capture_output=True, text=True, check=True).stdout
    )


def main() -> int:
    runs = {(who, what): partial(in_process, who, what) for what in VIEWS for who in ("tinv", "loop")}
    seconds = in_turn({" ".join(key): run for key, run in runs.items()}, ROUNDS)
    print({name: f"{IMAGES * VIEWS[name.split()[1]] / value:,.0f} views/s" for name, value in seconds.items()})
    print(f"this processor has {'' if AMX else 'no '}matrix units (AMX)")
    held = [
        verdict(f"views/s of {name} over the loop's", seconds[f"loop {name}"] / seconds[f"tinv {name}"], least, True)
        for name, least in (("consistency", 2), ("diagonal", 2.5))
    ]
    return 0 if all(held) else 1


if __name__ == "__main__":
    if len(sys.argv) > 1:
        print(peer(*sys.argv[1:]))
    else:
        sys.exit(main())
