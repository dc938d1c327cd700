"""One faulty run among sound ones: it is named and left out of what needs it, and the others are reported."""

import json
import os
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

from boundary import Input, judge, numbers, seeded

FORMATS = ("table", "md", "csv", "latex", "html")
ODD: list[Any] = [None, True, -1, 1e308, float("nan"), float("inf"), 10**30, [], {}, [[]]]
ODD += ["", "abc", "[/red]", "$\\frac{", "a\0b", "\ud800"]


def write(name: str, seed: int) -> Path:
    """Writes a sound run; returns its folder."""
    folder = Path("runs") / name
    folder.mkdir(parents=True)
    config = {
        "experiment": "grid",
        "seed_everything": seed,
        "model": {"init_args": {"padding": "valid", "backbone_args": {"channels": [1, 2]}}},
        "data": {"init_args": {"batch_size": 4}},
        "trainer": {"max_epochs": 1},
    }
    results = {
        **{"status": "finished", "command": "fit", "experiment": "grid", "seed": seed, "config": config},
        **{"metrics": {"test/acc": 50.0 + seed, "test/mcs": 0.5}, "units": {"test/acc": "percent"}, "duration_s": 3.0},
    }
    (folder / "results.json").write_text(json.dumps(results))
    (folder / "metrics.csv").write_text("epoch,train/loss,val/acc\n0,0.7,50\n1,0.6,60\n")
    return folder


def paths_of(value: Any, prefix: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Returns the keys of every value in a nested mapping."""
    if not isinstance(value, dict):
        return [prefix]
    return [prefix, *(path for key, inner in value.items() for path in paths_of(inner, (*prefix, key)))]


def change_results(folder: Path, random: random.Random) -> str:
    path = folder / "results.json"
    found = json.loads(path.read_text())
    *parents, last = random.choice(paths_of(found)[1:])
    value, inner = random.choice(ODD), found
    for parent in parents:
        inner = inner[parent]
    if random.random() < 0.2:
        del inner[last]
    else:
        inner[random.choice([last, last, last, "x", "a\0b", ""])] = value
    path.write_text(json.dumps(found))
    return f"{'.'.join([*parents, last])}: {value!r}"


def change_curves(folder: Path, random: random.Random) -> str:
    path = folder / "metrics.csv"
    kinds: dict[str, bytes] = {
        "empty": b"",
        "header alone": b"epoch,train/loss\n",
        "no header": b"0,0.7,50\n",
        "word": b"epoch,train/loss\n0,abc\n",
        "short line": b"epoch,train/loss,val/acc\n0\n",
        "long line": b"epoch,train/loss\n0,1,2,3,4\n",
        "not finite": b"epoch,train/loss\n0,nan\n1,inf\n2,-inf\n",
        "huge": b"epoch,train/loss\n0,1e308\n1,-1e308\n",
        "long field": b"epoch,train/loss\n0," + b"9" * 200_000 + b"\n",
        "NUL": b"epoch,train/loss\n0,\0\n",
        "latin-1": b"epoch,caf\xe9\n0,1\n",
        "noise": random.randbytes(300),
        "quotes": b'epoch,train/loss\n0,"0.7\n',
        "huge epoch": b"epoch,train/loss\n99999999999999999999,1\n",
    }
    kind = random.choice(sorted(kinds))
    path.write_bytes(kinds[kind])
    return f"metrics.csv: {kind}"


def change_file(folder: Path, random: random.Random) -> str:
    path = folder / random.choice(["results.json", "metrics.csv"])
    content = path.read_bytes()
    kinds: dict[str, Callable[[], Any]] = {
        "empty": lambda: path.write_bytes(b""),
        "cut": lambda: path.write_bytes(content[: random.randrange(1, len(content))]),
        "noise": lambda: path.write_bytes(random.randbytes(200)),
        "list": lambda: path.write_bytes(b"[1]"),
        "deep": lambda: path.write_bytes(b"[" * 100_000),
        "folder": lambda: (path.unlink(), path.mkdir()),
        "pipe": lambda: (path.unlink(), os.mkfifo(path)),
        "loop of links": lambda: (path.unlink(), path.symlink_to(path)),
        "zeros": lambda: path.write_bytes(bytes(100)),
        "UTF-16": lambda: path.write_bytes(content.decode().encode("utf-16")),
    }
    kind = random.choice(sorted(kinds))
    kinds[kind]()
    return f"{path.name}: {kind}"


@numbers(16, 300)
def test_a_faulty_run_does_not_keep_the_others_from_being_reported(number, capfd):
    random = seeded("results", number)
    sound = [write("a", 0), write("b", 1)]
    faulty = write("c", 2)
    what = random.choice([change_results, change_results, change_curves, change_file])(faulty, random)
    form = FORMATS[number % len(FORMATS)]
    kept = tuple(folder / "results.json" for folder in sound)
    judge(Input(["report", "runs", "--format", form], ("runs/c",), "taken", f"{form} {what}", kept), capfd)


def test_the_sound_runs_are_in_the_table(capfd):
    write("a", 0), write("b", 1)
    (write("c", 2) / "results.json").write_text("{")
    from tinv.cli import main

    assert main(["report", "runs", "--format", "csv"]) == 0
    out, said = capfd.readouterr()
    assert "50.5" in out
    assert "runs/c/results.json is damaged" in said
