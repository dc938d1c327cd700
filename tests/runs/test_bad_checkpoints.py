"""Damaged and foreign checkpoints, weights and run folders: one line that names the file; nothing else is touched."""

import json
import pickle
import random
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from boundary import Input, judge, numbers, seeded
from tiny_run import TINY

from tinv.cli import main
from tinv.runs.callbacks.training import SeedEachEpoch

PRETRAINED = ["--model.init_args.pretrained=true"]
QUICK = [*TINY, "--data.init_args.num_train=8", "--data.init_args.num_val=8", "--data.init_args.num_test=8"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory) -> Path:
    """A run that is finished, with its best checkpoint."""
    folder = tmp_path_factory.mktemp("finished") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder.parent)
        assert main(["fit", *QUICK, "--run_dir=run"]) == 0
    return folder


@pytest.fixture(scope="module")
def stopped(tmp_path_factory) -> Path:
    """A run that Ctrl-C has stopped in its second epoch."""

    def stop(self, trainer, *_):
        if trainer.current_epoch == 1:
            raise KeyboardInterrupt

    folder = tmp_path_factory.mktemp("stopped") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder.parent)
        patch.setattr(SeedEachEpoch, "on_train_epoch_start", stop)
        assert main(["fit", *QUICK, "--run_dir=run"]) == 130
    return folder


class Evil:
    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (Path("was_run"),)


def of_bytes(path: Path, random: random.Random) -> str:
    """Damages the file as a disk or a download does."""
    content, at = path.read_bytes(), random.randrange(200)
    kinds: dict[str, bytes] = {
        "empty": b"",
        "cut": content[: random.randrange(1, len(content) - 1)],
        "zeros": bytes(len(content)),
        "noise": random.randbytes(1000),
        "first bytes": bytes(at + 4) + content[at + 4 :],
        "text": b"not a checkpoint\n",
        "JSON": b'{"state_dict": {}}',
        "HTML": b"<!doctype html><html>404</html>",
        "safetensors": b"\x08\x00\x00\x00\x00\x00\x00\x00{}      ",
    }
    kind = random.choice(sorted(kinds))
    path.write_bytes(kinds[kind])
    return kind


def of_kind(path: Path, random: random.Random) -> str:
    """Puts another thing in the place of the file."""
    kind = random.choice(["folder", "pipe", "loop of links", "link to nothing", "zip", "TorchScript", "pickle", "code"])
    path.unlink()
    match kind:
        case "folder":
            path.mkdir()
        case "pipe":
            import os

            os.mkfifo(path)
        case "loop of links" | "link to nothing":
            path.symlink_to(path if kind == "loop of links" else "nothing")
        case "zip":
            with zipfile.ZipFile(path, "w") as archive:
                archive.writestr("a.txt", "a")
        case "TorchScript":
            torch.jit.save(torch.jit.script(torch.nn.Linear(2, 2)), str(path))
        case "pickle":
            path.write_bytes(pickle.dumps({"state_dict": {}}))
        case "code":
            torch.save({"state_dict": {"a": Evil()}}, path)
    return kind


def of_content(path: Path, random: random.Random) -> str:
    """Saves another object than a checkpoint, or one without weights."""
    values: dict[str, Any] = {
        "tensor": torch.zeros(3),
        "list": [1, 2],
        "None": None,
        "empty": {},
        "no state_dict": {"epoch": 1},
        "state_dict of None": {"state_dict": None},
        "state_dict of a list": {"state_dict": [1]},
        "empty state_dict": {"state_dict": {}},
        "number": 3,
    }
    kind = random.choice(sorted(values))
    torch.save(values[kind], path)
    return kind


def of_weights(path: Path, random: random.Random) -> str:
    """Changes one of the weights, or its name."""
    checkpoint = torch.load(path, weights_only=True)
    weights = checkpoint["state_dict"]
    key = random.choice(sorted(key for key, value in weights.items() if value.is_floating_point() and value.dim()))
    value = weights[key]
    kinds: dict[str, Any] = {
        "missing": None,
        "renamed": value,
        "another shape": value.flatten()[:-1],
        "another rank": value[None],
        "NaN": torch.full_like(value, float("nan")),
        "infinite": torch.full_like(value, float("inf")),
        "text": "abc",
        "number": 3,
        "list": value.tolist(),
        "sparse": value.to_sparse(),
        "meta": value.to("meta"),
    }
    kind = random.choice(sorted(kinds))
    del weights[key]
    if kind != "missing":
        weights[f"{key}_" if kind == "renamed" else key] = kinds[kind]
    torch.save(checkpoint, path)
    return f"{key}: {kind}"


def of_training(path: Path, random: random.Random) -> str:
    """Changes the state of training, which a test does not need."""
    checkpoint = torch.load(path, weights_only=True)
    key = random.choice(["loops", "callbacks", "optimizer_states", "epoch", "global_step", "lr_schedulers"])
    kinds: dict[str, Any] = {"None": None, "text": "x", "list": ["x"], "number": 3.5, "mapping": {"x": 1}, "missing": 0}
    kind = random.choice(sorted(kinds))
    checkpoint[key] = kinds[kind]
    if kind == "missing":
        del checkpoint[key]
    torch.save(checkpoint, path)
    return f"{key}: {kind}"


COMMON: list[Callable[[Path, random.Random], str]] = [of_bytes, of_kind, of_content, of_weights]


@numbers(14, 150)
def test_a_damaged_last_checkpoint_resumes_nothing(number, stopped, capfd):
    random = seeded("last", number)
    shutil.copytree(stopped, "run")
    damage = random.choice([*COMMON, of_training])
    what = damage(Path("run/checkpoints/last.ckpt"), random)
    # a state that Lightning can do without, such as that of callbacks without one, may be anything
    expected = "either" if damage is of_training else "refused"
    kept = (Path("run/metrics.csv"), Path("run/config.yaml"))
    judge(Input(["fit", *QUICK, "--run_dir=run", "--ckpt_path=last"], ("last.ckpt",), expected, what, kept), capfd)
    assert not Path("was_run").exists()


@numbers(12, 120)
def test_a_damaged_checkpoint_is_not_scored(number, finished, capfd):
    random = seeded("best", number)
    shutil.copytree(finished, "run")
    path = Path("run/checkpoints/best.ckpt")
    what = random.choice(COMMON)(path, random)
    command = random.choice(["test", "validate", "predict"])
    kept = (Path("run/results.json"), Path("run/metrics.csv"))
    judge(Input([command, f"--ckpt_path={path}", "--run_dir=scored"], ("best.ckpt",), "refused", what, kept), capfd)
    assert not Path("scored/results.json").exists()
    assert not Path("was_run").exists()


@numbers(8, 100)
def test_damaged_weights_train_nothing(number, finished, capfd):
    random = seeded("weights", number)
    shutil.copy(finished / "checkpoints" / "best.ckpt", "own.pt")
    what = random.choice(COMMON)(Path("own.pt"), random)
    judge(Input(["fit", *QUICK, *PRETRAINED, "--model.init_args.weights=own.pt"], ("own.pt",), "refused", what), capfd)
    assert not list(Path().glob("runs/*/*/results.json"))
    assert not Path("was_run").exists()


@numbers(8, 80)
def test_a_damaged_run_folder_is_named(number, finished, capfd):
    random = seeded("folder", number)
    shutil.copytree(finished, "run")
    path = Path("run/config.yaml")
    kinds: dict[str, Callable[[], Any]] = {
        "bytes": lambda: of_bytes(path, random),
        "kind": lambda: (path.unlink(), path.mkdir()),
        "missing": path.unlink,
        "a list": lambda: path.write_text("- 1\n"),
        "no data": lambda: path.write_text(path.read_text().replace("\ndata:", "\ndata_:")),
        "another class": lambda: path.write_text(path.read_text().replace("tinv.data.RedGreen", "tinv.data.Green")),
        "another value": lambda: path.write_text(path.read_text().replace("num_train: 8", "num_train: eight")),
        "latin-1": lambda: path.write_bytes(path.read_bytes().replace(b"experiment: ", b"experiment: caf\xe9")),
    }
    kind = random.choice(sorted(kinds))
    kinds[kind]()
    kept = (Path("run/results.json"), Path("run/checkpoints/best.ckpt"))
    words = ["test", "--ckpt_path=run/checkpoints/best.ckpt", "--run_dir=scored"]
    judge(Input(words, ("config.yaml", "model"), "refused", kind, kept), capfd)


def test_the_undamaged_files_are_taken(finished, stopped, capfd):
    shutil.copytree(stopped, "run")
    judge(Input(["fit", *QUICK, "--run_dir=run", "--ckpt_path=last"], (), "taken"), capfd)
    assert json.loads(Path("run/results.json").read_text())["status"] == "finished"
    best = str(finished / "checkpoints" / "best.ckpt")
    judge(Input(["test", f"--ckpt_path={best}", "--run_dir=scored"], (), "taken"), capfd)
    judge(Input(["fit", *QUICK, *PRETRAINED, f"--model.init_args.weights={best}", "--run_dir=own"], (), "taken"), capfd)
