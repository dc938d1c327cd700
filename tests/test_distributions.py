"""The wheel and the source distribution hold what belongs in them, and lower bounds of dependencies can be pinned."""

import importlib.util
import re
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
FOLDERS = (".ci", ".github", "benchmarks", "configs", "docs", "scripts", "sweeps", "tests", "tinv")
FILES = (
    *(
        ".dockerignore",
        ".pre-commit-config.yaml",
        "CHANGELOG.md",
        "CITATION.cff",
        "CODE_OF_CONDUCT.md",
        "CONTRIBUTING.md",
    ),
    *("Dockerfile", "LICENSE", "README.md", "SECURITY.md", "constraints.txt", "mkdocs.yml", "pyproject.toml"),
)


@pytest.fixture(scope="module")
def built(tmp_path_factory) -> dict[str, Path]:
    pytest.importorskip("hatchling", reason="the extra `dev` has hatchling")
    folder = tmp_path_factory.mktemp("dist")
    command = [sys.executable, "-m", "hatchling", "build", "-d", folder]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    return {path.suffix: path for path in folder.iterdir()}


def test_the_wheel_holds_types_configurations_and_no_tests(built):
    with zipfile.ZipFile(built[".whl"]) as archive:
        names = set(archive.namelist())
    assert {"tinv/py.typed", "tinv/files/configs/red_green.yaml", "tinv/report/html/page.html"} <= names
    assert {"tinv/evaluation/html/measure.html", "tinv/utils/html/style.css", "tinv/utils/html/sort.js"} <= names
    assert "tinv/evaluation/protocols/zhang2019.yaml" in names
    assert {name.partition("/")[0] for name in names} == {"tinv", f"tinv-{PROJECT['version']}.dist-info"}


def test_the_source_distribution_holds_all_that_tests_read(built):
    with tarfile.open(built[".gz"]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    paths = [*FILES, *(path for name in FOLDERS for path in (ROOT / name).rglob("*") if path.is_file())]
    wanted = {(ROOT / path).relative_to(ROOT).as_posix() for path in paths if "__pycache__" not in str(path)}
    assert len(wanted) > 300
    assert wanted <= names


def lowest_versions():
    spec = importlib.util.spec_from_file_location("lowest_versions", ROOT / "scripts" / "lowest_versions.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module.lowest_versions


def test_lower_bounds_are_pinned_as_they_are_written():
    found = lowest_versions()(["a>=1.2", "b[x,y]>=3.4.5,!=3.5", "c<9,>=2", "d", 'e>=1; python_version > "3"', "f<3"])
    assert found == {"a": "1.2", "b": "3.4.5", "c": "2", "e": "1"}
    with pytest.raises(ValueError, match=r"a has two lower bounds: 1 and 2"):
        lowest_versions()(["a>=1", "a>=2"])


def test_every_dependency_of_the_package_has_a_lower_bound():
    command = [sys.executable, ROOT / "scripts" / "lowest_versions.py"]
    printed = subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()
    names = {re.match(r"[\w.-]+", requirement)[0] for requirement in PROJECT["dependencies"]}
    assert names <= {line.partition("==")[0] for line in printed}
