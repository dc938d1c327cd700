"""Runs the tutorials and keeps their outputs: `python docs/run_tutorials.py [NAME ...]`, all of them without a name.

Each notebook runs in an empty working folder, with the tinv of this checkout, on one thread. It is written in normal
form, without what differs from run to run.
"""

import os
import re
import sys
import tempfile
import time
from collections.abc import Sequence
from copy import deepcopy
from pathlib import Path
from typing import cast

import nbformat
from nbclient import NotebookClient
from nbformat import NotebookNode

FOLDER = Path(__file__).parent / "tutorials"
ROOT = Path(__file__).parents[1]
VARYING = re.compile(r"\x1b\[[0-9;?]*[a-zA-Z]|  \((\d+[hms])+, [^()]*left\)")
"""Colors of a terminal, and how long the trials of a sweep took."""
KEPT = ("alt",)
"""Metadata of a cell that is kept: what its picture shows, in words."""


def names() -> list[str]:
    """Returns the names of all tutorials."""
    return sorted(path.stem for path in FOLDER.glob("*.ipynb"))


def read(name: str) -> NotebookNode:
    """Returns a tutorial as it is in this folder."""
    return cast(NotebookNode, nbformat.read(FOLDER / f"{name}.ipynb", as_version=4))  # type: ignore[no-untyped-call]


def run(notebook: NotebookNode, folder: Path) -> NotebookNode:
    """Returns a notebook with the outputs of a new run.

    Args:
        notebook: To run, from its first cell to its last; it is left as it is.
        folder: Working folder, empty.

    Raises:
        CellExecutionError: For a cell that fails.
    """
    resources = {"metadata": {"path": str(folder)}}
    client = NotebookClient(deepcopy(notebook), timeout=600, coalesce_streams=True, resources=resources)
    return normal_form(client.execute(env=_environment(folder)))


def normal_form(notebook: NotebookNode) -> NotebookNode:
    """Returns a notebook without what differs from run to run: times, versions, colors of a terminal, ends of lines."""
    notebook = deepcopy(notebook)
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    notebook.nbformat, notebook.nbformat_minor = 4, 5
    for number, cell in enumerate(notebook.cells):
        cell.id = f"cell-{number}"
        cell.metadata = {key: cell.metadata[key] for key in KEPT if key in cell.metadata}
        for output in cell.get("outputs", []):
            if "metadata" in output:
                output.metadata = {}
            if "text" in output:
                lines = VARYING.sub("", output.text).strip("\n").split("\n")
                output.text = "".join(f"{line.rstrip()}\n" for line in lines)
    return notebook


def _environment(folder: Path) -> dict[str, str]:
    """Returns the environment of the kernel and of the commands that it runs."""
    found = {key: value for key, value in os.environ.items() if key != "MPLBACKEND"}
    own = {"OMP_NUM_THREADS": "1", "WANDB_MODE": "offline", "IPYTHONDIR": str(folder / ".ipython")}
    # tqdm warns that the kernel lacks widgets, which no cell needs
    own["PYTHONWARNINGS"] = "ignore:IProgress not found"
    paths = {"PATH": str(Path(sys.executable).parent), "PYTHONPATH": str(ROOT)}
    for key, first in paths.items():
        own[key] = os.pathsep.join(part for part in (first, os.environ.get(key)) if part)
    return {**found, **own}


def main(wanted: Sequence[str]) -> None:
    """Runs tutorials and writes them with their outputs."""
    for name in wanted or names():
        start = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            done = run(read(name), Path(folder))
        nbformat.write(done, FOLDER / f"{name}.ipynb")  # type: ignore[no-untyped-call]
        print(f"{name}: {time.monotonic() - start:.0f} s")


if __name__ == "__main__":
    main(sys.argv[1:])
