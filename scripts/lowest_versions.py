"""Prints a constraints file that pins each dependency of pyproject.toml to its lowest supported version.

    python scripts/lowest_versions.py > lowest.txt
    pip install -c lowest.txt -e '.[dev]'

Dependencies of the package and of all its extras are listed. One without a lower bound (`>=`) is left out, because any
version of it is supported. The script needs nothing but Python itself, so that it runs before anything is installed.
"""

import re
import sys
import tomllib
from collections.abc import Iterable
from itertools import chain
from pathlib import Path

PYPROJECT = Path(__file__).parent.parent / "pyproject.toml"
BOUND = re.compile(r"(?P<name>[\w.-]+)\s*(\[[^]]*\])?[^;]*?>=\s*(?P<version>[\w.]+)")


def lowest_versions(requirements: Iterable[str]) -> dict[str, str]:
    """The lower bound of each requirement, by the name of its package.

    Raises:
        ValueError: if two requirements of one package have different lower bounds.
    """
    lowest: dict[str, str] = {}
    for requirement in requirements:
        found = BOUND.match(requirement)
        if found is None:
            continue
        name, version = found["name"], found["version"]
        if lowest.setdefault(name, version) != version:
            raise ValueError(f"{name} has two lower bounds: {lowest[name]} and {version}")
    return lowest


def main() -> None:
    """Prints one pin per line, sorted by name."""
    project = tomllib.loads(PYPROJECT.read_text())["project"]
    requirements = chain(project["dependencies"], *project["optional-dependencies"].values())
    for name, version in sorted(lowest_versions(requirements).items()):
        sys.stdout.write(f"{name}=={version}\n")


if __name__ == "__main__":
    main()
