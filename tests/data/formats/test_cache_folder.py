"""Folders made once: whole or not there, and nothing is left for ever of processes that were killed."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tinv.data.formats import cache_folder
from tinv.data.formats.cache_folder import MANIFEST, build_cache_dir, is_built, read_manifest
from tinv.errors import TinvError


def write(folder: Path) -> dict[str, str]:
    assert not (folder / MANIFEST).exists()  # which is written last
    (folder / "content").write_text("whole")
    return {"holds": "content"}


def age(folder: Path) -> None:
    before = time.time() - 2 * cache_folder.PATIENCE_S
    os.utime(folder, (before, before))


HANGING = """
import sys, time
from pathlib import Path
from tinv.data.formats.cache_folder import build_cache_dir

def write(folder):
    (folder / "half").write_text("half")
    print("writing", flush=True)
    time.sleep(100)

build_cache_dir(Path("made/a"), "the cache", write)
"""


def test_what_a_killed_process_has_left_is_removed_by_the_next_and_what_one_still_writes_is_not():
    with subprocess.Popen([sys.executable, "-c", HANGING], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "writing\n"
        [building] = Path("made").iterdir()
        age(building)
        build_cache_dir(Path("made/b"), "the cache", write)
        assert (building / "half").exists()
        process.send_signal(signal.SIGKILL)
    age(building)
    build_cache_dir(Path("made/c"), "the cache", write)
    assert sorted(path.name for path in Path("made").iterdir()) == ["b", "c"]


def test_a_folder_that_is_new_is_left_alone():
    Path("made/.building-x").mkdir(parents=True)
    build_cache_dir(Path("made/a"), "the cache", write)
    assert Path("made/.building-x").exists()
    assert is_built(Path("made/a"))
    assert read_manifest(Path("made/a")) == {"holds": "content"}


def test_an_error_leaves_nothing():
    def fail(folder: Path) -> None:
        (folder / "half").write_text("half")
        raise OSError(28, "No space left on device")

    with pytest.raises(TinvError, match=r"cannot write the cache to made \(No space left on device\)"):
        build_cache_dir(Path("made/a"), "the cache", fail)
    assert list(Path("made").iterdir()) == []
