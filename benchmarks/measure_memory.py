"""Peak memory of `tinv measure` on 10,000 images against that on 1,000.

Claim: at most 200 MB more. Run: python benchmarks/measure_memory.py DIR   (a folder of photographs, used repeatedly)
"""

from __future__ import annotations

import itertools
import os
import resource
import subprocess
import sys
import tempfile
from pathlib import Path

from timing import verdict

from tinv.data.formats.images import find_images


def peak_of_children() -> float:
    """Returns the largest resident memory in MB that any finished child process had."""
    return resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024


def main() -> int:
    files = find_images(Path(sys.argv[1]))
    found = {}
    with tempfile.TemporaryDirectory() as place:
        # the smaller run first: what is read is the largest of all so far
        for count in (1_000, 10_000):
            folder = Path(place) / str(count)
            folder.mkdir()
            for number, image in zip(range(count), itertools.cycle(range(len(files))), strict=False):
                source = files.path(image).resolve()
                os.symlink(source, folder / f"{number:05d}{source.suffix}")
            words = ["measure", "--backbone", "resnet18", "--images", str(folder), "--out", str(folder / "out")]
            words += ["--size", "64", "--max-shift", "8", "--passes", "1", "--workers", "1", "--precision", "bf16"]
            words += ["--metrics", "consistency", "map", "layers"]
            subprocess.run([sys.executable, "-m", "tinv", *words], check=True, stdout=subprocess.DEVNULL)
            found[count] = peak_of_children()
            print(f"{count:,} images: {found[count]:,.0f} MB")
    return 0 if verdict("MB more for ten times the images", found[10_000] - found[1_000], 200, False) else 1


if __name__ == "__main__":
    sys.exit(main())
