"""A full disk: the last checkpoint stays whole, one line says how to resume, and the run can be resumed."""

import errno
import os
from pathlib import Path

import pytest
from tiny_run import TINY, fit, results

from tinv import files
from tinv.cli import main
from tinv.runs import checkpoints
from tinv.runs.checkpoints import AtomicCheckpoints, read_checkpoint


def full(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_a_checkpoint_is_written_whole_or_not_at_all(monkeypatch):
    path = Path("checkpoints/last.ckpt")
    AtomicCheckpoints().save_checkpoint({"state_dict": {}, "epoch": 1}, path)
    monkeypatch.setattr(files.os, "fsync", full)
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
