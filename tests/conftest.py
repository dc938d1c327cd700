"""What every test starts from: an empty folder, one thread, no network, nothing left of an earlier test."""

import os
from pathlib import Path

import matplotlib
import pytest
import torch


@pytest.fixture(autouse=True)
def clean_surroundings(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    matplotlib.use("Agg")
    torch.set_num_threads(1)
    torch.manual_seed(0)
    # the process runs hundreds of commands: it would grow to the size of the largest, beside several others
    monkeypatch.setattr("tinv.utils.memory.keep_freed_memory", lambda: None)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    for variable in ("TINV_DATA", "TINV_RUN_DIR", "PL_GLOBAL_SEED"):
        # set first, so that what a test's code sets is taken away at its end
        monkeypatch.setenv(variable, "")
        del os.environ[variable]


@pytest.fixture
def images() -> torch.Tensor:
    """Ten random images (10, 3, 16, 16)."""
    return torch.randn(10, 3, 16, 16, generator=torch.Generator().manual_seed(1))
