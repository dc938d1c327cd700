"""The README's code does what it says, and its commands name what exists."""

import re
from pathlib import Path

import pytest

from tinv.config.files import shipped_files, shipped_folder

README = (Path(__file__).parent.parent / "README.md").read_text()


def test_the_python_example_shows_exact_invariance(capsys):
    convert, code = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    exec(compile(convert, "README.md", "exec"), {})
    assert "convolutions padded" in capsys.readouterr().out
    variables: dict = {}
    exec(code, variables)
    assert float(variables["similarity"].compute()["mcs"]) == pytest.approx(1, abs=1e-6)
    assert "mcs" in capsys.readouterr().out


def test_every_configuration_named_exists_and_every_experiment_is_named():
    named = set(re.findall(r"configs/[\w/]+\.yaml", README))
    there = {f"configs/{path.relative_to(shipped_folder('configs'))}" for path in shipped_files("configs")}
    assert named <= there
    assert {path for path in there if "overlays" not in path} <= named


def test_every_sweep_named_exists():
    named = set(re.findall(r"sweeps/\w+\.yaml", README))
    assert named
    assert named <= {f"sweeps/{path.name}" for path in shipped_files("sweeps")}


def test_pictures_are_there():
    for picture in re.findall(r"!\[.*?\]\((.*?)\)", README):
        assert (Path(__file__).parent.parent / picture).is_file()
