"""Every failure of a command is one line, with the exit code that says what kind it is and the traceback in a file."""

import errno
import os
import re
import subprocess
import sys
import warnings
from pathlib import Path

import pytest
from tiny_run import TINY

from tinv.cli import main
from tinv.config.files import PACKAGE
from tinv.errors import TinvError
from tinv.runs.configuration import errors_with_keys


@pytest.fixture
def fail(monkeypatch):
    """Makes `tinv list` raise an error."""

    def prepare(error: BaseException) -> None:
        def raise_it(words):
            # as if code of tinv raised it
            exec(compile("raise error", str(PACKAGE / "cli" / "list.py"), "exec"), {"error": error})

        monkeypatch.setattr("tinv.cli.list.list_choices", raise_it)

    return prepare


@pytest.mark.parametrize(
    ("error", "code", "message"),
    [
        (TinvError("the file x is wrong; get it again"), 2, "tinv: error: the file x is wrong; get it again"),
        (KeyError("no such thing"), 70, r"internal error \(KeyError: 'no such thing'\); please report it with "),
        (MemoryError(), 2, r"not enough memory \(MemoryError: \); the traceback is in "),
        (RuntimeError("[enforce fail] can't allocate memory: you tried to allocate 9 bytes\nmore"), 2, "9 bytes"),
        (OSError(errno.ENOSPC, "No space left on device", "x"), 1, r"cannot write to x \(No space left on device\)"),
        (KeyboardInterrupt(), 130, "tinv: stopped"),
        (TinvError("long " * 100), 2, r"long \.\.\.|\.\.\.$"),
    ],
)
def test_it_is_one_line_with_a_code(error, code, message, fail, capsys):
    fail(error)
    assert main(["list"]) == code
    said = capsys.readouterr().err
    assert re.search(message, said.strip())
    assert said.count("\n") == 1
    assert len(said) <= 315
    if found := re.search(r"(?:with|is in) (/\S+\.log)", said):
        assert "Traceback" in Path(found[1]).read_text()
        Path(found[1]).unlink()


def test_the_largest_number_asked_for_is_named(monkeypatch, capsys):
    def exhausted(*_):
        raise MemoryError("no more")

    monkeypatch.setattr("tinv.cli.run.TinvCLI", exhausted)
    assert main(["fit", *TINY, "--data.init_args.canvas_size=100000"]) == 2
    assert "data.init_args.canvas_size=100000 is the largest number asked for" in capsys.readouterr().err
    assert main(["fit", *TINY, "--model.init_args.input_shape=[100000,3,32]"]) == 2
    assert "model.init_args.input_shape=100000 is the largest number asked for" in capsys.readouterr().err


def test_memory_that_runs_out_inside_of_lightning_is_no_fault_of_the_trainer():
    code = compile('def run(): raise RuntimeError("can\'t allocate memory")', "/lightning/loops.py", "exec")
    exec(code, names := {})
    with pytest.raises(RuntimeError, match="allocate"), errors_with_keys({}):
        names["run"]()


def test_a_failure_after_training_has_begun_is_told_apart_and_logged(monkeypatch, capsys):
    def fails(self, *_):
        raise ZeroDivisionError("as if a metric were wrong")

    with monkeypatch.context() as patch:
        patch.setattr("tinv.tasks.classification.Classification.on_test_start", fails)
        assert main(["fit", *TINY, "--run_dir=run"]) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    # the function above is code of the user's own
    assert said.startswith(f"tinv: error: {__file__}, line ")
    assert said.endswith("ZeroDivisionError: as if a metric were wrong; the traceback is in run/error.log")
    assert "as if a metric were wrong" in Path("run/error.log").read_text()
    assert not Path("run/results.json").exists()
    options = ["--model.init_args.optimizer.init_args.lr=1.0e+30", "--run_dir=diverged", "--trainer.callbacks=null"]
    assert main(["fit", *TINY, *options]) == 1
    assert "Traceback" in Path("diverged/error.log").read_text()


def test_a_warning_of_a_library_is_one_line_once_and_none_before_an_error(monkeypatch, capsys):
    def warn_twice(words):
        for _ in range(2):
            warnings.warn("first line\n  second line " + "x " * 300, RuntimeWarning, stacklevel=1)
        if words:
            raise KeyError("no such thing")
        return 0

    monkeypatch.setattr("tinv.cli.list.list_choices", warn_twice)
    assert main(["list"]) == 0
    said = capsys.readouterr().err
    assert said.startswith("warning: first line second line x x")
    assert said.endswith("... (RuntimeWarning)\n")
    assert said.count("\n") == 1
    assert len(said) < 300
    assert main(["list", "data"]) == 2
    said = capsys.readouterr().err
    assert said.startswith("tinv: error: ")
    assert said.count("\n") == 1
    [log] = re.findall(r"the traceback is in (\S+)", said)
    assert "warning: first line second line" in Path(log).read_text()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (
            ["fit", *TINY, "--model.init_args.optimizer.class_path=torch.nn.Linear"],
            "optimizer.class_path=torch.nn.Linear",
        ),
        (
            ["fit", *TINY, "--model.init_args.optimizer.init_args.lr=-1"],
            "error: model.init_args.optimizer: torch.optim.",
        ),
        (["inspect", "resnet10t", "--num-classes=10000000000"], "num-classes=10000000000 is the largest number"),
        (["inspect", "ssdlite320_mobilenet_v3_large", "--source=torchvision"], "tinv: error: "),
    ],
)
def test_what_a_class_or_a_network_raises_is_one_line_that_names_it(words, message, capsys):
    assert main(words) == 2
    said = capsys.readouterr().err
    assert message in said
    assert said.count("\n") == 1


def test_the_log_is_written_whatever_the_locale():
    """An error over a file's name may hold any character, in a locale whose encoding is ASCII too."""
    code = "from pathlib import Path; from tinv.cli import failure\n"
    code += "try: raise ValueError('\\u20ac \\udcff')\nexcept ValueError: failure._write_log(Path())"
    ascii_only = {"PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "LC_ALL": "C"}
    subprocess.run([sys.executable, "-c", code], env={**os.environ, **ascii_only}, check=True)
    assert "ValueError: \u20ac \\udcff" in Path("error.log").read_text(encoding="utf-8")
