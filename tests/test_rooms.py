"""Imports run one way: a module imports only from rooms above its own in the list, or from its own."""

import ast
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parent.parent / "tinv"

ROOMS = (
    ("errors", "deprecation"),
    ("utils",),
    ("nn",),
    ("select",),
    ("translation", "testing"),
    ("policies",),
    ("config",),
    ("graph",),
    ("surgery",),
    ("models",),
    ("metrics",),
    ("artifacts",),
    ("data",),
    ("tasks",),
    ("runs",),
    ("evaluation", "sweeps", "callbacks"),
    ("report",),
    ("cli",),
    ("__main__",),
)
FLOOR = {room: floor for floor, rooms in enumerate(ROOMS) for room in rooms}


def imports(path: Path) -> set[str]:
    """The rooms that a module imports from, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
        if isinstance(node, ast.ImportFrom) and node.module:
            names = [f"tinv.{alias.name}" for alias in node.names] if node.module == "tinv" else [node.module]
        found |= {name.split(".")[1] for name in names if name.startswith("tinv.")}
    return found - {"__version__", "TinvError", "LayerError"}


def test_every_module_is_in_a_room():
    names = {path.stem if path.is_file() else path.name for path in PACKAGE.iterdir()} - {"__init__", "__pycache__"}
    assert {name for name in names if (PACKAGE / name).is_dir() or (PACKAGE / f"{name}.py").is_file()} == set(FLOOR)


def test_imports_run_one_way():
    wrong = []
    for path in sorted(PACKAGE.rglob("*.py")):
        inside = path.relative_to(PACKAGE)
        room = inside.parts[0].removesuffix(".py")
        if room == "__init__":
            continue
        for other in imports(path):
            if other not in FLOOR or (FLOOR[other] >= FLOOR[room] and other != room):
                wrong.append(f"{inside} imports {other}")
    assert not wrong


@pytest.mark.parametrize("room", ["nn", "policies", "graph", "surgery", "models"])
def test_imports_inside_a_room_run_one_way(room):
    """Those of type checks and of functions count too."""
    found = {}
    for path in (PACKAGE / room).glob("*.py"):
        froms = [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.ImportFrom)]
        names = [name for node in froms for name in (node.module, *(f"{node.module}.{a.name}" for a in node.names))]
        found[f"tinv.{room}.{path.stem}"] = {n for n in names if n.startswith(f"tinv.{room}.")}
    TopologicalSorter(found).prepare()  # raises CycleError
