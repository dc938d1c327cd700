"""Stands in for `tinv fit`: takes its options, writes what a run writes, in a fraction of a second.

`data.init_args.seed` says what happens: 0 all is well, 1 fails, 2 is stopped half-way at the first attempt, 3 dies,
4 has no test/acc.
"""

import json
import os
import signal
import sys
import time
from pathlib import Path

options = dict(word.removeprefix("--").split("=", 1) for word in sys.argv[1:] if word.startswith("--") and "=" in word)
folder = Path(options["run_dir"])
checkpoints = folder / "checkpoints"
with (folder / "attempts.txt").open("a") as file:
    file.write(f"{options.get('ckpt_path', 'begin')} {os.environ['OMP_NUM_THREADS']}\n")
if (folder / "results.json").exists():
    (folder / "TWICE").touch()
seconds = 0 if "ckpt_path" in options else float(os.environ.get("STUB_SECONDS", "0.05"))
time.sleep(seconds)
checkpoints.mkdir(exist_ok=True)
(checkpoints / "last.ckpt").touch()
fate = int(options.get("data.init_args.seed", 0))
if fate == 1:
    print("tinv: error: the loss is nan at step 7", file=sys.stderr)
    print("goodbye", file=sys.stderr)
    sys.exit(2)
if fate == 2 and "ckpt_path" not in options:
    os.kill(os.getpid(), signal.SIGTERM)
if fate == 3:
    os.kill(os.getpid(), signal.SIGKILL)
time.sleep(seconds)
results = {
    "status": "finished",
    "command": "fit",
    "experiment": "red_green",
    "seed": int(options["seed_everything"]),
    "config": {"model": {"init_args": {"padding": options.get("model.init_args.padding")}}},
    "metrics": {"test/acc": float(options["seed_everything"]), "lr": float(options.get("lr", 0))},
    "duration_s": 0.1,
}
if fate == 4:
    del results["metrics"]["test/acc"]
(folder / ".tmp").write_text(json.dumps(results))
(folder / ".tmp").replace(folder / "results.json")
