"""ShiftConsistency of a ResNet-18 on a CPU, with memory that was freed kept for the next layer and without.

Each in a process of its own, float32, channels last. Claim: at least 1.1 times as many views/s.
Run: python benchmarks/freed_memory.py
"""

from __future__ import annotations

import subprocess
import sys
from functools import partial

from timing import in_turn, verdict

VIEWS = """
import sys, time, torch, torchvision
from tinv.utils.memory import keep_freed_memory
from tinv.metrics import ShiftConsistency
if sys.argv[1] == "keep":
    keep_freed_memory()
torch.manual_seed(0)
network = torchvision.models.resnet18().eval().to(memory_format=torch.channels_last)
images, index = torch.randn(64, 3, 288, 288).contiguous(memory_format=torch.channels_last), torch.arange(64)
seconds = []
with torch.inference_mode():
    for turn in range(3):
        started = time.perf_counter()
        ShiftConsistency(64, passes=1).update(network, images, torch.zeros(64, 1000), index, index)
        seconds.append(time.perf_counter() - started)
print(min(seconds[1:]))
"""


def seconds(what: str) -> float:
    """Returns the seconds of two views of 64 images: the shortest after the first."""
    done = subprocess.run([sys.executable, "-c", VIEWS, what], capture_output=True, text=True, check=True)
    return float(done.stdout)


def main() -> int:
    found = in_turn({what: partial(seconds, what) for what in ("keep", "return")}, rounds=3)
    print({name: f"{128 / value:.0f} views/s" for name, value in found.items()})
    ratio = found["return"] / found["keep"]
    return 0 if verdict("views/s over those with memory returned", ratio, 1.1, True) else 1


if __name__ == "__main__":
    sys.exit(main())
