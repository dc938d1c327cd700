"""Training clips of UCF101 through tinv against decoding whole videos, as torchvision's read_video did.

The peer decodes every frame of a video to colours, takes 16 of them, and crops, resizes and flips those with
torchvision's v2 transforms. Videos of more than 150 frames, one process, one thread. Claims: at least 3 times the
clips/s, at least 10 times from the cache of resized frames; memory flat (within 200 MB) over 1,000 clips, 2 workers.
Run: TINV_DATA=DIR python benchmarks/clip_loading.py
"""

from __future__ import annotations

import re
import sys
import tempfile
import time
from pathlib import Path

import av
import numpy as np
import torch
from timing import in_turn, verdict
from torchvision.transforms import v2

from tinv.data import UCF101
from tinv.data.batching import DistributedBatchSampler
from tinv.data.clip_batches import Clips
from tinv.data.file_batches import FileLoader

LENGTH, SIZE, BATCH, LEAST, CLIPS = 16, 112, 8, 150, 32


def memory(process: int | str) -> float:
    """Returns the resident memory of a process in MB."""
    return float(re.search(r"VmRSS:\s+(\d+)", Path(f"/proc/{process}/status").read_text()).group(1)) / 1024


def main() -> int:
    torch.set_num_threads(1)
    recipe = v2.Compose([v2.RandomCrop(120), v2.Resize(SIZE, antialias=True), v2.RandomHorizontalFlip()])
    random = np.random.default_rng(0)
    with tempfile.TemporaryDirectory() as caches:

        def dataset(**options: int) -> tuple[UCF101, list[int]]:
            data = UCF101(absent="skip", batch_size=BATCH, seed=0, cache_dir=caches, **options)
            data.setup()
            index = data.found["train"][1]
            return data, [video for video in data.found["train"][2] if index.frames[video] > LEAST]

        def loader(data: UCF101, videos: list[int], count: int, workers: int = 0) -> FileLoader:
            several = np.resize(np.array(videos), count)
            data._clips = lambda name: Clips(several, np.full(count, -1))  # type: ignore[method-assign]
            data.loaders.clear()
            data.num_workers = workers
            found: FileLoader = data.loader("train")
            found.batches = DistributedBatchSampler(count, BATCH, lambda: torch.arange(count), even=True)
            return found

        plain, long = dataset()
        cached, _ = dataset(cache_resolution=128)
        files = plain.found["train"][0]
        print(f"{len(long)} videos of more than {LEAST} frames")

        def whole() -> None:
            for video in np.resize(np.array(long), CLIPS):
                with av.open(str(files.path(int(video)))) as container:
                    frames = [f.to_ndarray(format="rgb24") for f in container.decode(container.streams.video[0])]
                begin = int(random.integers(len(frames) - LENGTH))
                recipe(torch.from_numpy(np.stack(frames))[begin : begin + LENGTH].permute(0, 3, 1, 2))

        def ours(data: UCF101) -> None:
            for _ in loader(data, long, CLIPS):
                pass

        peers = {"whole videos": whole, "tinv": lambda: ours(plain), "tinv, cached": lambda: ours(cached)}
        seconds = in_turn(peers, rounds=3)
        print({name: f"{CLIPS / value:.1f} clips/s" for name, value in seconds.items()})
        held = [
            verdict("clips/s over decoding whole videos", seconds["whole videos"] / seconds["tinv"], 3, True),
            verdict("clips/s from the cache", seconds["whole videos"] / seconds["tinv, cached"], 10, True),
        ]
        used = []
        started = time.perf_counter()
        for number, _ in enumerate(loader(plain, long, 1000, workers=2)):
            if number % 25 == 4:
                iterator = plain.loaders["train"].loader._iterator
                used.append(memory("self") + sum(memory(worker.pid) for worker in iterator._workers))
        print(f"memory of 3 processes: {', '.join(f'{value:.0f}' for value in used)} MB, "
              f"{1000 / (time.perf_counter() - started):.1f} clips/s")  # fmt: skip
        held.append(verdict("MB from the first clips to the last", max(used) - used[0], 200, False))
    return 0 if all(held) else 1


if __name__ == "__main__":
    sys.exit(main())
