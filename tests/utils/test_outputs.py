"""Outputs that are closed, full, or read by nobody: no traceback, and no finished run is lost."""

import subprocess
import sys
from pathlib import Path

import pytest
from tiny_run import TINY

TINV = f"{sys.executable} -m tinv"

needs_full_device = pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")


def shell(command: str) -> tuple[int, str]:
    done = subprocess.run(["sh", "-c", command], capture_output=True, text=True, timeout=120)
    return done.returncode, done.stderr


@needs_full_device
def test_a_full_stdout_is_said_in_one_line():
    code, said = shell(f"{TINV} list >/dev/full")
    assert code == 1
    assert said == "tinv: error: cannot write (No space left on device); free some space\n"


@pytest.mark.parametrize("outputs", [">&-", "2>&-", ">&- 2>&-"])
def test_closed_outputs_change_no_exit_code(outputs):
    assert shell(f"{TINV} list {outputs}")[0] == 0
    assert shell(f"{TINV} nothing {outputs}")[0] == 2


@needs_full_device
def test_a_run_whose_messages_nobody_can_read_finishes():
    words = " ".join([*TINY, "--trainer.max_epochs=1"])
    assert shell(f"{TINV} fit {words} --run_dir=run 2>/dev/full") == (0, "")
    assert Path("run/results.json").is_file()


def test_tables_are_readable_where_the_locale_is_ascii():
    Path("own.py").write_text("print('accuracy 99.8±0.1, ünnamed')")
    ascii_locale = "LC_ALL=C PYTHONCOERCECLOCALE=0 PYTHONUTF8=0"
    printing = f"{sys.executable} -c 'from tinv.utils.outputs import open_outputs; open_outputs(); import own'"
    done = subprocess.run(["sh", "-c", f"{ascii_locale} {printing}"], capture_output=True, text=True, timeout=60)
    assert (done.stdout, done.stderr) == ("accuracy 99.8+-0.1, \\xfcnnamed\n", "")


def test_a_current_folder_that_was_removed_is_said_in_one_line():
    code, said = shell(
        f"mkdir gone && cd gone && rmdir ../gone && {TINV.replace('-m tinv', '-P -m tinv')} list padding"
    )
    assert (code, said) == (2, "tinv: error: the current folder has been removed; change to another\n")


def test_a_backend_for_a_screen_that_is_not_there_stops_no_command():
    assert shell(f"MPLBACKEND=nope {TINV} list padding") == (0, "")
    assert shell(f"MPLBACKEND=nope {TINV} inspect pooling_cnn --source tinv --input-size 16") == (0, "")
