"""Bad sweep files, options and ledgers: one line that names the key or the file; finished trials are untouched."""

import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import yaml
from boundary import Input, judge, numbers, seeded
from stub_sweep import sweep, write_sweep

SOUND: dict[str, Any] = {
    "name": "tiny",
    "method": "grid",
    "command": ["tinv", "fit", "--config", "configs/red_green.yaml", "${args}"],
    "parameters": {
        "model.init_args.padding": {"values": ["valid", "same_zero"]},
        "model.init_args.optimizer.init_args.lr": {"value": 0.001},
        "seed_everything": {"min": 0, "max": 1},
    },
}
ODD: list[Any] = [None, True, -1, 0, 1.5, float("nan"), float("inf"), 10**30]
ODD += ["", "abc", "ünïcödé", "a" * 9000, [], [1], {}, {"a": 1}]
CONTINUOUS = {"distribution": "log_uniform_values", "min": 1e-4, "max": 1e-1}


def changed(random: random.Random) -> tuple[dict[str, Any], str]:
    """Returns a sweep file with one thing in it changed, and what."""
    file = json.loads(json.dumps(SOUND))
    value = random.choice(ODD)
    where = random.choice(["top", "parameter", "values", "range", "random", "bayes", "exclude", "another key"])
    match where:
        case "top":
            file[random.choice([*SOUND, "run_cap", "metric", "early_terminate", "exclude"])] = value
        case "parameter":
            file["parameters"][random.choice(list(SOUND["parameters"]))] = value
        case "values":
            file["parameters"]["seed_everything"] = {"values": [0, value]}
        case "range":
            file["parameters"]["seed_everything"][random.choice(["min", "max", "q", "values", "distribution"])] = value
        case "random":
            file |= {"method": "random", "run_cap": 3}
            key = "model.init_args.optimizer.init_args.lr"
            file["parameters"][key] = {**CONTINUOUS, random.choice(["min", "max"]): value}
        case "bayes":
            file |= {"method": "bayes", "run_cap": 3, "metric": {"name": "test/acc", "goal": "maximize"}}
            file["metric"][random.choice(["name", "goal", "target"])] = value
        case "exclude":
            file["exclude"] = [{"when": {"seed_everything": value}, "because": random.choice(["too large", value])}]
        case "another key":
            key = random.choice(["seed", "model.init_args.paddin", "run_dir", "trainer", "", "a b"])
            file["parameters"][key] = {"value": value}
    return file, f"{where} {str(value)[:40]!r}"


@numbers(14, 330)
def test_a_bad_sweep_file_is_one_line(number, capfd):
    file, what = changed(seeded("sweep", number))
    Path("own.yaml").write_text(yaml.safe_dump(file, allow_unicode=True))
    # a value may be a legal one of its key
    judge(Input(["sweep", "own.yaml", "--dry-run"], ("own.yaml",), "either", what), capfd)
    assert not Path("runs").exists()


OPTIONS = {
    "--jobs": ["0", "-1", "abc", "1.5", "", "99999999999999999999"],
    "--count": ["0", "-1", "abc", "3"],
    "--only": ["padding", "padding=", "=valid", "padding=abc", "no.such=1", "seed_everything=7"],
    "--launcher": ["abc", ""],
    "--out": ["own.yaml", "own.yaml/x", "", "/dev/null", "/proc/x"],
    "--slurm-partition": ["gpu"],
    "--nonsense": ["1"],
    "--": ["--trainer.max_epoch=3", "x", "--trainer.max_epochs=abc"],
}


@numbers(6, 60)
def test_a_bad_option_is_one_line(number, capfd):
    random = seeded("sweep options", number)
    name = random.choice(sorted(OPTIONS))
    value = random.choice(OPTIONS[name])
    Path("own.yaml").write_text(yaml.safe_dump(SOUND))
    words = ["sweep", "own.yaml", *(["--dry-run"] if name != "--out" else []), name, value]
    names = (name, name.lstrip("-"), value, "own.yaml", "max_epoch")
    judge(Input(words, names, "refused", f"{name} {value!r}"), capfd)


def damaged(content: str, random: random.Random) -> tuple[bytes, str]:
    """Returns a ledger that is cut, replaced, or has one value changed, and what was done."""
    ledger = json.loads(content)
    cell = random.choice(sorted(ledger["cells"]))
    key = random.choice(sorted(ledger["cells"][cell]))
    value = random.choice([*ODD[:-1], "finished", "pending", "running"])
    changed = json.loads(content)
    changed["cells"][cell][key] = value
    without = json.loads(content)
    del without["cells"][cell]
    kinds: dict[str, bytes] = {
        "empty": b"",
        "cut": content[: random.randrange(1, len(content))].encode(),
        "noise": random.randbytes(200),
        "latin-1": content.replace("padding", "caf\xe9").encode("latin-1"),
        "list": b"[]",
        "no cells": b"{}",
        "deep": b"[" * 100_000,
        f"{key}={value!r}": json.dumps(changed).encode(),
        "no such cell": json.dumps(without).encode(),
        "zeros": bytes(len(content)),
    }
    kind = random.choice(sorted(kinds))
    return kinds[kind], kind


@numbers(5, 130)
def test_a_damaged_ledger_costs_no_finished_trial(number, capfd):
    random = seeded("ledger", number)
    write_sweep("seed_everything: {min: 0, max: 2}\nmodel.init_args.padding: {value: valid}")
    assert sweep("sweep.yaml", "--out", "out", "--jobs", "3") == 0
    finished = sorted(Path("out/cells").glob("*/results.json"))
    before = [(path.read_bytes(), path.stat().st_mtime_ns) for path in finished]
    content, what = damaged(Path("out/ledger.json").read_text(), random)
    Path("out/ledger.json").write_bytes(content)
    run: Callable[[list[str]], int] = lambda words: sweep(*words)  # noqa: E731
    # a damaged ledger is set aside and made anew from the results; one of another sweep is refused
    judge(Input(["sweep.yaml", "--out", "out"], ("ledger.json", "out"), "either", what), capfd, run)
    assert [(path.read_bytes(), path.stat().st_mtime_ns) for path in finished] == before
    assert not list(Path("out").glob("cells/*/TWICE"))
