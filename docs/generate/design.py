"""The page of the rooms: a drawing, and what the docstrings of packages and modules say."""

from __future__ import annotations

import ast
from pathlib import Path

from generate.text import code, doc, heading, table

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "tinv"

INTRODUCTION = """# Design

tinv is a stack of rooms, the packages and modules of `tinv/`. A module imports from its own room and from the rooms
below it, never from a room above or beside it. `tests/test_rooms.py` holds the order: it reads every import of every
module.

"""

ROW, WIDTH = 34, 640


def rooms() -> list[tuple[str, ...]]:
    """Returns the floors, the ground floor first, as tests/test_rooms.py declares them."""
    for node in ast.parse((ROOT / "tests" / "test_rooms.py").read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "ROOMS":
            found: list[tuple[str, ...]] = list(ast.literal_eval(node.value))
            return found
    raise LookupError("tests/test_rooms.py declares no ROOMS")


def page() -> str:
    """Returns the page."""
    floors = rooms()
    above = [room for floor in reversed(floors) for room in floor]
    return INTRODUCTION + _drawing(floors) + "".join(map(_room, above))


def _docstring(path: Path) -> str:
    return ast.get_docstring(ast.parse(path.read_text())) or ""


def _files(room: str) -> list[Path]:
    folder = PACKAGE / room
    return sorted(folder.rglob("*.py")) if folder.is_dir() else [PACKAGE / f"{room}.py"]


def _anchor(room: str) -> str:
    return f"room-{room.strip('_')}"


def _drawing(floors: list[tuple[str, ...]]) -> str:
    """Returns the floors as an image, the highest first; colours are those of the page."""
    height = ROW * len(floors)
    parts = [f'<svg viewBox="0 0 {WIDTH} {height}" role="img" aria-label="The rooms of tinv, one above the other">']
    for floor, names in enumerate(reversed(floors)):
        wide = (WIDTH - 60) / len(names)
        for number, name in enumerate(names):
            left, top = 60 + number * wide, floor * ROW
            parts.append(
                f'<a href="#{_anchor(name)}">'
                f'<rect x="{left + 2:g}" y="{top + 2}" width="{wide - 4:g}" height="{ROW - 4}" rx="3"/>'
                f'<text x="{left + wide / 2:g}" y="{top + 22}">{name}</text></a>'
            )
    parts.append(f'<path d="M24 8 V{height - 14} m-6 -10 l6 10 l6 -10"/>')
    parts.append(f'<text transform="translate(12 {height / 2:g}) rotate(-90)">imports from</text></svg>')
    return f'<figure class="rooms">{"".join(parts)}</figure>\n\n'


def _room(room: str) -> str:
    files = _files(room)
    is_package = (PACKAGE / room).is_dir()
    text = _docstring(PACKAGE / room / "__init__.py" if is_package else files[0])
    modules = [path for path in files if path.name != "__init__.py"] if is_package else []
    rows = ((code(path.relative_to(PACKAGE / room)), doc(_docstring(path)).first) for path in modules)
    title = code(f"tinv/{room}" + ("" if is_package else ".py"))
    return heading(2, title, _anchor(room)) + text + "\n\n" + (table(("module", "what it is"), rows) if modules else "")
