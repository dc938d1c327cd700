"""Grids of runs: what a sweep costs beside its trials, what a second job gains, and how long tables take.

Claims: expanding 10,000 trials takes under 2 s, a report over 1,000 results under 5 s; a sweep of N trials takes at
most 1.05 times the trials run by hand one after the other; on two cores --jobs 2 is at least 1.6 times as fast as
--jobs 1 with one thread each, on Red-Green.

Run: python benchmarks/sweeps.py [--quick, the first two only]
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from timing import verdict

CELLS = ("valid", "same_zero", "valid", "same_zero")
LENGTH = ["--trainer.max_epochs=10", "--trainer.callbacks=null"]
ONE_THREAD = {**os.environ, "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}


def tinv(*words: str) -> None:
    """Runs one command of tinv."""
    subprocess.run([sys.executable, "-m", "tinv", *words], check=True, capture_output=True, env=ONE_THREAD)


def expanding(folder: Path) -> float:
    """Returns the seconds that `tinv sweep --dry-run` takes for 10,000 trials, Python's start included."""
    sweep = folder / "large.yaml"
    seeds = ", ".join(map(str, range(2500)))
    sweep.write_text(
        'method: grid\ncommand: [tinv, fit, --config, configs/red_green.yaml, "${args}"]\nparameters:\n'
        f"  seed_everything: {{values: [{seeds}]}}\n"
        "  model.init_args.padding: {values: [valid, same_zero, same_circular, full_zero]}\n"
    )
    started = time.perf_counter()
    tinv("sweep", str(sweep), "--dry-run")
    return time.perf_counter() - started


def reporting(folder: Path) -> float:
    """Returns the seconds that `tinv report` takes for 1,000 results with configurations of the usual size."""
    run = folder / "example"
    tinv("fit", "--config", "configs/red_green.yaml", f"--run_dir={run}", "--trainer.max_epochs=1",
         "--data.init_args.num_train=40")  # fmt: skip
    results = json.loads((run / "results.json").read_text())
    for number in range(1000):
        results["config"]["seed_everything"] = results["seed"] = number % 50
        results["config"]["data"]["init_args"]["batch_size"] = number // 50
        place = folder / "results" / str(number)
        place.mkdir(parents=True)
        (place / "results.json").write_text(json.dumps(results))
    started = time.perf_counter()
    tinv("report", str(folder / "results"), "--format", "html")
    return time.perf_counter() - started


def by_hand(folder: Path) -> float:
    """Returns the seconds of all trials, one command after the other."""
    started = time.perf_counter()
    for seed, padding in enumerate(CELLS):
        tinv("fit", "--config", "configs/red_green.yaml", f"--seed_everything={seed}", *LENGTH,
             f"--model.init_args.padding={padding}", f"--run_dir={folder / 'hand' / str(seed)}")  # fmt: skip
    return time.perf_counter() - started


def swept(folder: Path, jobs: int) -> float:
    """Returns the seconds of the same number of trials under `tinv sweep`."""
    sweep = folder / "small.yaml"
    sweep.write_text(
        'method: grid\ncommand: [tinv, fit, --config, configs/red_green.yaml, "${args}"]\nparameters:\n'
        "  seed_everything: {values: [0, 1]}\n  model.init_args.padding: {values: [valid, same_zero]}\n"
    )
    started = time.perf_counter()
    tinv("sweep", str(sweep), "--out", str(folder / f"jobs{jobs}"), "--jobs", str(jobs), "--", *LENGTH)
    return time.perf_counter() - started


def main() -> int:
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        expanding(folder)
        holds = [verdict("seconds to expand 10,000 trials", expanding(folder), 2.0, False)]
        holds.append(verdict("seconds to report 1,000 results as a page", reporting(folder), 5.0, False))
        if "--quick" not in sys.argv:
            hand, one, two = by_hand(folder), swept(folder, 1), swept(folder, 2)
            print(f"{len(CELLS)} trials by hand {hand:.1f} s, --jobs 1 {one:.1f} s, --jobs 2 {two:.1f} s")
            holds.append(verdict("sweep over trials by hand", one / hand, 1.05, False))
            holds.append(verdict("speed of --jobs 2 over --jobs 1", one / two, 1.6, True))
    return 0 if all(holds) else 1


if __name__ == "__main__":
    sys.exit(main())
