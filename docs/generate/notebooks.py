"""The pages of the tutorials: the cells of the notebooks in docs/tutorials, with the outputs that they hold."""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

FOLDER = Path(__file__).parents[1] / "tutorials"


def pages() -> dict[str, str]:
    """Returns the Markdown of each tutorial, by its path below docs/."""
    return {f"tutorials/{path.stem}.md": page(path) for path in sorted(FOLDER.glob("*.ipynb"))}


def images() -> dict[str, bytes]:
    """Returns the pictures of all tutorials, by their paths below docs/."""
    found = {}
    for path in sorted(FOLDER.glob("*.ipynb")):
        for number, cell in enumerate(_cells(path)):
            for picture in (output["data"]["image/png"] for output in _outputs(cell) if _is_picture(output)):
                found[f"tutorials/{_picture(path, number)}"] = base64.b64decode(picture)
    return found


def page(path: Path) -> str:
    """Returns the Markdown of a notebook; the address of the notebook itself stands below its title."""
    title, _, rest = "\n\n".join(_parts(path)).partition("\n")
    return f"{title}\n\n[Download this notebook]({path.name}){{ download }}\n{rest}\n"


def _cells(path: Path) -> list[dict[str, Any]]:
    cells: list[dict[str, Any]] = json.loads(path.read_text())["cells"]
    return cells


def _parts(path: Path) -> Iterator[str]:
    for number, cell in enumerate(_cells(path)):
        yield from _of_cell(cell, _picture(path, number))


def _of_cell(cell: dict[str, Any], picture: str) -> Iterator[str]:
    source = "".join(cell["source"])
    if cell["cell_type"] == "markdown":
        # a page of the site where the notebook itself links to another notebook
        yield re.sub(r"\]\(([\w-]+)\.ipynb\)", r"](\1.md)", source)
        return
    if found := re.match(r"%%writefile (\S+)\n", source):
        yield f"The file `{found[1]}`:"
        yield _fence(source[found.end() :], "yaml" if found[1].endswith(".yaml") else "python")
        return
    command = source.removeprefix("%%bash\n")
    yield _fence(command, "python" if command == source else "bash")
    for output in _outputs(cell):
        yield _shown(output, picture, cell["metadata"].get("alt", ""))


def _outputs(cell: dict[str, Any]) -> list[dict[str, Any]]:
    return [output for output in cell.get("outputs", []) if "text" in output or "data" in output]


def _is_picture(output: dict[str, Any]) -> bool:
    return "image/png" in output.get("data", {})


def _picture(path: Path, number: int) -> str:
    return f"{path.stem}-{number}.png"


def _shown(output: dict[str, Any], picture: str, alt: str) -> str:
    """Returns one output: a picture, a table, or a text."""
    data = output.get("data", {})
    if _is_picture(output):
        return f"![{alt}]({picture})"
    if "<table" in (html := "".join(data.get("text/html", ""))):
        # the style of the site, not that of pandas
        return re.sub(r"<style.*?</style>| (border|class|style)=\"[^\"]*\"", "", html, flags=re.DOTALL).strip()
    text = "".join(output.get("text") or data["text/plain"])
    return _fence(text, "{ .text .output }")


def _fence(text: str, language: str) -> str:
    return f"```{language}\n{text.rstrip()}\n```"
