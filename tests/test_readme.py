"""The README is one page, its code prints what it shows, and its two commands are scripts of the repository."""

import os
import re
import subprocess
from pathlib import Path

from tinv.config.files import shipped_files

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()


def test_it_is_one_page():
    assert len(README.splitlines()) <= 120


def test_the_python_example_prints_what_is_shown(capsys):
    code, shown = re.search(r"```python\n(.*?)```\n+```text\n(.*?)```", README, re.DOTALL).groups()
    exec(compile(code, "README.md", "exec"), {})
    assert capsys.readouterr().out == shown


def test_every_sweep_named_exists():
    named = set(re.findall(r"sweeps/\w+\.yaml", README))
    assert named
    assert named <= {f"sweeps/{path.name}" for path in shipped_files("sweeps")}


def test_pictures_are_there():
    pictures = re.findall(r"!\[.*?\]\((.*?)\)", README)
    assert pictures
    assert all((ROOT / picture).is_file() for picture in pictures)


def test_the_two_commands_are_scripts_that_can_be_read():
    named = re.findall(r"^bash (scripts/\w+\.sh)$", README, re.MULTILINE)
    assert named == ["scripts/first_figure.sh", "scripts/test.sh"]
    for script in sorted((ROOT / "scripts").glob("*.sh")):
        subprocess.run(["bash", "-n", str(script)], check=True)


def test_the_first_command_trains_and_says_where_the_figure_is(tmp_path):
    """With a stand-in for the environment: what is installed, trained and drawn is tested elsewhere."""
    (tmp_path / "scripts").mkdir()
    for script in (ROOT / "scripts").glob("*.sh"):
        (tmp_path / "scripts" / script.name).write_text(script.read_text())
    folder = tmp_path / ".venv" / "bin"
    folder.mkdir(parents=True)
    for name in ("python", "pip", "tinv"):
        (folder / name).write_text(f'#!/bin/sh\necho "{name} $*"\n')
        (folder / name).chmod(0o755)
    done = subprocess.run(
        ["bash", "scripts/first_figure.sh"],
        cwd=tmp_path,
        env={**os.environ, "EPOCHS": "3"},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    install, train, report = done.stdout.splitlines()
    assert install == "pip install -q -c constraints.txt -e ."
    assert train.startswith("tinv sweep sweeps/red_green.yaml --out runs/first_figure")
    assert train.endswith("--only seed_everything=0 -- --trainer.max_epochs=3")
    assert report == "tinv report runs/first_figure"
    assert f"{tmp_path}/runs/first_figure/red_green.png" in done.stderr
