"""Examples in docstrings give what they say."""

import doctest
from importlib import import_module
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "tinv"
WITH_EXAMPLES = [path for path in sorted(PACKAGE.rglob("*.py")) if ">>>" in path.read_text()]


@pytest.mark.parametrize("path", WITH_EXAMPLES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_examples_run(path):
    name = ".".join(["tinv", *path.relative_to(PACKAGE).with_suffix("").parts])
    found = doctest.testmod(import_module(name))
    assert found.attempted
    assert not found.failed


def test_there_are_examples():
    assert len(WITH_EXAMPLES) >= 4
