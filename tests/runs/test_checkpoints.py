"""A full disk: the last checkpoint stays whole, one line says how to resume, and the run can be resumed."""

import errno
import os
from pathlib import Path

import pytest
import torch
from tiny_run import TINY, fit, results

from tinv.cli import main
from tinv.runs import checkpoints
from tinv.runs.callbacks.training import SeedEachEpoch
from tinv.runs.checkpoints import AtomicCheckpoints, read_checkpoint
from tinv.runs.folder import RunFolder
from tinv.utils import io


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_checkpoint_is_written_whole_or_not_at_all(monkeypatch):
    path = Path("checkpoints/last.ckpt")
    AtomicCheckpoints().save_checkpoint({"state_dict": {}, "epoch": 1}, path)
    monkeypatch.setattr(io.os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        AtomicCheckpoints().save_checkpoint({"state_dict": {}, "epoch": 2}, path)
    assert read_checkpoint(path)["epoch"] == 1
    assert [found.name for found in path.parent.iterdir()] == ["last.ckpt"]


def test_a_full_disk_ends_a_run_in_one_line_and_it_can_be_resumed(monkeypatch, capsys):
    whole = fit("--run_dir=runs/red_green/whole")
    write, count = checkpoints.write_bytes_atomically, 0

    def write_some(path: Path, content: bytes) -> None:
        nonlocal count
        count += 1
        # the state before the third epoch does not fit
        if count > 4:
            full()
        write(path, content)

    monkeypatch.setattr(checkpoints, "write_bytes_atomically", write_some)
    capsys.readouterr()
    assert main(["fit", *TINY, "--run_dir=run"]) == 1
    said = capsys.readouterr().err
    assert "Traceback" not in said
    [line] = [line for line in said.splitlines() if "error" in line]
    assert "cannot write to run (No space left on device); run/checkpoints/last.ckpt is whole" in line
    assert line.endswith("resume with --run_dir run --ckpt_path last")
    assert not Path("run/results.json").exists()
    monkeypatch.setattr(checkpoints, "write_bytes_atomically", write)
    assert main(["fit", *TINY, "--run_dir=run", "--ckpt_path=last"]) == 0
    assert results(Path("run"))["metrics"] == results(whole)["metrics"]
    assert Path("run/metrics.csv").read_bytes() == (whole / "metrics.csv").read_bytes()


def test_a_disk_that_is_full_at_once_has_no_checkpoint_to_offer(monkeypatch, capsys):
    monkeypatch.setattr(checkpoints, "write_bytes_atomically", full)
    assert main(["fit", *TINY, "--run_dir=run"]) == 1
    assert "no checkpoint was written yet; free some space and start again" in capsys.readouterr().err


def stopped_run(monkeypatch) -> RunFolder:
    """A run that a signal has stopped in its second epoch."""

    def stop(self, trainer, *_):
        if trainer.current_epoch == 1:
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(SeedEachEpoch, "on_train_epoch_start", stop)
        assert main(["fit", *TINY, "--run_dir=run"]) == 130
    return RunFolder(Path("run"))


DAMAGE = {
    "empty": lambda path: path.write_bytes(b""),
    "cut": lambda path: path.write_bytes(path.read_bytes()[:3000]),
    "text": lambda path: path.write_text("words"),
    "a tensor": lambda path: torch.save(torch.zeros(3), path),
    "no state dict": lambda path: torch.save({"epoch": 1}, path),
    "state dict of None": lambda path: change(path, state_dict=None),
    "no loops": lambda path: change(path, loops=DELETE),
    "loops of None": lambda path: change(path, loops=None),
    "callbacks of a list": lambda path: change(path, callbacks=[]),
    "no optimizer": lambda path: change(path, optimizer_states=[]),
    "epoch of text": lambda path: change(path, loops={"fit_loop": "x"}),
    "weights of None": lambda path: change_weights(path, lambda value: None),
    "weights not finite": lambda path: change_weights(path, lambda value: value * float("nan")),
    "weights of another shape": lambda path: change_weights(path, lambda value: value.flatten()[:1]),
    "sparse weights": lambda path: change_weights(path, lambda value: value.to_sparse()),
    "a folder": lambda path: (path.unlink(), path.mkdir()),
}
OF_TRAINING = ("no loops", "loops of None", "callbacks of a list", "no optimizer", "epoch of text")
DELETE = object()


def change(path: Path, **values: object) -> None:
    checkpoint = torch.load(path, weights_only=True) | values
    torch.save({key: value for key, value in checkpoint.items() if value is not DELETE}, path)


def change_weights(path: Path, by) -> None:
    checkpoint = torch.load(path, weights_only=True)
    change(path, state_dict={key: by(value) for key, value in checkpoint["state_dict"].items()})


def test_a_damaged_checkpoint_is_one_line_for_resuming_and_for_testing(monkeypatch, capsys):
    folder = stopped_run(monkeypatch)
    whole = folder.last.read_bytes()
    for name, damage in DAMAGE.items():
        damage(folder.last)
        for words in (["fit", "--ckpt_path=last"], ["test", f"--ckpt_path={folder.last}"]):
            if words[0] == "test" and name in (
                "no loops",
                "loops of None",
                "callbacks of a list",
                "no optimizer",
                "epoch of text",
            ):
                continue  # a test needs the weights alone
            capsys.readouterr()
            place = ["--run_dir=run"] if words[0] == "fit" else ["--run_dir=tested"]
            assert main([*words, *TINY, *place]) in (1, 2), (name, words)
            said = [line for line in capsys.readouterr().err.splitlines() if "tinv: error" in line]
            assert len(said) == 1, (name, words)
            assert "last.ckpt" in said[0], (name, said)
        if folder.last.is_dir():
            folder.last.rmdir()
        folder.last.write_bytes(whole)
    assert main(["fit", *TINY, "--run_dir=run", "--ckpt_path=last"]) == 0
