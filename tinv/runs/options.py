"""Finds a mistyped option or configuration key at once, before torch is imported (which takes seconds).

Option names are read from the source of the classes they belong to, so there is no list to keep up to date. What
cannot be known this way (classes outside tinv and Lightning, values) is left to the full parser.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Sequence
from functools import cache
from importlib.machinery import PathFinder
from pathlib import Path
from typing import Any, Literal

from tinv import yaml_files
from tinv.errors import TinvError, nearest, unknown
from tinv.nested import flatten, lay_over
from tinv.policies.cards import PADDINGS, SUBSAMPLINGS

PACKAGE = Path(__file__).resolve().parent.parent

TOP_LEVEL = {
    "config": "configuration file; give it again to lay another over it",
    "experiment": "name of the experiment, and of the folder of its runs",
    "published": "entry of the published numbers to set beside the results",
    "seed_everything": "seed of weights, order and training shifts",
    "runs": "folder of all runs",
    "run_dir": "folder of this run",
    "ckpt_path": "checkpoint: a file, or `last` to resume a stopped run",
    "wandb": "send the run to Weights & Biases: auto (only under its agents), off, online, offline",
    "untrained": "validate, test or predict with random weights",
    "debug": "show tracebacks",
    "trainer": "options of lightning.Trainer",
    "checkpoint": "which checkpoint is the best",
    "model": "the task: a LightningModule",
    "data": "the data: a LightningDataModule",
}
CHECKPOINT = {"monitor", "mode"}
FLAGS = {"untrained", "debug"}


def check(args: Sequence[str]) -> None:
    """Raises TinvError for an option, configuration file or key that no run has, naming the nearest ones."""
    merged: dict[str, Any] = {}
    options: dict[str, str | None] = {}
    for name, value, _ in option_pairs(list(args)):
        if name != "config":
            options[name.removesuffix("+")] = value
            continue
        if not value:
            raise TinvError("--config needs the name of a file")
        path = find_config(value)
        content = read_yaml(path)
        # a file's keys belong to the classes named so far: a later file may name others
        merged = lay_over(merged, content)
        for key, inner in flatten(content):
            _check_key(f"{path}: ", key, inner, dict(flatten(merged)))
    settings = {**dict(flatten(merged)), **options}
    for key, value in options.items():
        _check_key("", key, value, settings)


def find_config(path: str) -> Path:
    """Returns the file a --config option means: as given, else `configs/...` of the installed tinv.

    Raises:
        TinvError: if it is in neither place.
    """
    given = Path(path)
    if given.is_file():
        return given
    if (found := find_shipped(given, "configs")) is not None:
        return found
    shipped = [f"configs/{p.relative_to(shipped_folder('configs'))}" for p in config_files()]
    raise TinvError(f"no configuration file {path}{nearest(path, shipped)}")


def shipped_folder(kind: Literal["configs", "sweeps"]) -> Path:
    """Returns the folder of the files of a kind that ship with tinv: in a checkout, or in the installed package."""
    checkout = PACKAGE.parent / kind
    return checkout if checkout.is_dir() else PACKAGE / "files" / kind


def find_shipped(path: Path, kind: Literal["configs", "sweeps"]) -> Path | None:
    """Returns the file `configs/...` or `sweeps/...` that ships with tinv, None if there is none."""
    if path.parts[:1] != (kind,):
        return None
    found = shipped_folder(kind).joinpath(*path.parts[1:])
    return found if found.is_file() else None


def config_files() -> list[Path]:
    """Returns the configurations that ship with tinv, overlays last."""
    return [*sorted(shipped_folder("configs").glob("*.yaml")), *sorted(shipped_folder("configs").glob("*/*.yaml"))]


def sweep_files() -> list[Path]:
    """Returns the sweeps that ship with tinv."""
    return sorted(shipped_folder("sweeps").glob("*.yaml"))


def read_yaml(path: Path) -> dict[str, Any]:
    """Reads a YAML mapping, or raises TinvError with the line and column of what is wrong."""
    return yaml_files.read_mapping(path)


def option_pairs(args: list[str]) -> Iterator[tuple[str, str | None, int]]:
    """Yields (name without dashes, value, position of the option) for every option of a command line.

    Raises:
        TinvError: for a word that is no option.
    """
    position = 0
    while position < len(args):
        word, start = args[position], position
        position += 1
        if word == "-c":
            word = "--config"
        if not word.startswith("--"):
            if word == "-h":
                continue
            raise TinvError(f"{word!r} is not an option; options look like --key=value")
        name, equals, value = word[2:].partition("=")
        if equals:
            yield name, value, start
        elif name in FLAGS or name == "help" or position == len(args) or args[position].startswith("--"):
            yield name, None, start
        else:
            yield name, args[position], start
            position += 1


def _check_key(where: str, key: str, value: Any, settings: dict[str, Any]) -> None:
    """Raises TinvError if a dotted key is unknown, given all settings that say which classes are meant."""
    head, *rest = key.split(".")
    word = "key" if where else "option"

    def check_name(name: str, prefix: str, known: set[str] | None) -> None:
        if known is not None and name not in known:
            dashes = "" if where else "--"
            options = [f"{dashes}{prefix}{choice}" for choice in sorted(known)]
            raise TinvError(f"{where}unknown {word} {dashes}{key}{_hint(f'{dashes}{prefix}{name}', options)}")

    check_name(head, "", {*TOP_LEVEL, "help", "print_config", "print_shtab"})
    if head == "trainer" and rest:
        check_name(rest[0], "trainer.", _lightning_trainer_options())
    elif head == "checkpoint" and rest:
        check_name(rest[0], "checkpoint.", CHECKPOINT)
    elif head in ("model", "data") and rest and rest[0] not in ("class_path", "dict_kwargs", "help"):
        path = rest[1:] if rest[0] == "init_args" else rest
        if not path:
            return
        prefix = f"{head}.init_args." if rest[0] == "init_args" else f"{head}."
        named = settings.get(head) or settings.get(f"{head}.class_path")
        check_name(path[0], prefix, _tinv_class_options(named))
        backbone = settings.get("model.init_args.backbone")
        own = settings.get("model.init_args.source", "tinv") == "tinv"
        if path[0] == "backbone_args" and len(path) > 1 and backbone and own:
            known = _function_options(PACKAGE / "models" / f"{backbone}.py", backbone)
            check_name(path[1], f"{prefix}backbone_args.", known)
        choices = {"padding": PADDINGS, "subsampling": SUBSAMPLINGS}.get(path[0])
        if (
            choices
            and isinstance(value, str)
            and len(path) == 1
            and not set("$.{") & set(value)
            and value not in choices
        ):
            error = unknown(path[0], value, choices)
            raise TinvError(f"{where}{'' if where else '--'}{key}: {error}")


def _hint(name: str, options: list[str]) -> str:
    if not options:
        return "; there is nothing to choose here"
    return nearest(name, options) or f"; choose from {', '.join(options)}"


@cache
def _lightning_trainer_options() -> set[str] | None:
    # found without importing lightning, which imports torch
    spec = PathFinder.find_spec("lightning")
    if spec is None or not spec.submodule_search_locations:
        return None
    path = Path(next(iter(spec.submodule_search_locations))) / "pytorch" / "trainer" / "trainer.py"
    return _class_options("Trainer", {**_classes_in(path)}) if path.is_file() else None


def _tinv_class_options(class_path: str | None) -> set[str] | None:
    """Returns the names of a class's arguments; None if the class is not tinv's or not found."""
    if not isinstance(class_path, str):
        return None
    package, _, name = class_path.rpartition(".")
    folders = [PACKAGE / "data", PACKAGE / "tasks"]
    if package and not package.startswith("tinv"):
        return None
    classes = {
        name: node
        for folder in folders
        for path in sorted(folder.glob("*.py"))
        for name, node in _classes_in(path).items()
    }
    return _class_options(name, classes)


@cache
def _parse(path: Path) -> ast.Module:
    return ast.parse(path.read_text())


def _classes_in(path: Path) -> dict[str, ast.ClassDef]:
    return {node.name: node for node in _parse(path).body if isinstance(node, ast.ClassDef)}


def _class_options(name: str, classes: dict[str, ast.ClassDef]) -> set[str] | None:
    """Returns the arguments of a class, with those its **kwargs hand on to its base classes."""
    node = classes.get(name)
    if node is None:
        return None
    bases = [base.id for base in node.bases if isinstance(base, ast.Name) and base.id in classes]
    for item in node.body:
        if isinstance(item, ast.FunctionDef) and item.name == "__init__":
            names = _argument_names(item.args) - {"self"}
            if item.args.kwarg:
                for base in bases:
                    names |= _class_options(base, classes) or set()
            return names
    for base in bases:
        if (found := _class_options(base, classes)) is not None:
            return found
    return None


def _function_options(path: Path, name: str) -> set[str] | None:
    if not path.is_file():
        return None
    common = {"num_classes", "in_channels", "input_size", "padding", "subsampling", "pool", "stem", "pretrained"}
    for node in _parse(path).body:
        if isinstance(node, ast.FunctionDef) and node.name == name:
            return _argument_names(node.args) - common
    return None


def _argument_names(arguments: ast.arguments) -> set[str]:
    return {argument.arg for argument in [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]}


def first_docstring_line(path: Path, name: str) -> str:
    """Returns the first line of the docstring of a class or function, without importing its module."""
    for node in _parse(path).body:
        if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name == name:
            return (ast.get_docstring(node) or "").partition("\n")[0]
    return ""


def data_sets() -> dict[str, str]:
    """Returns the data modules of tinv and the first line of what they say of themselves."""
    classes = {
        name: node for path in sorted((PACKAGE / "data").glob("*.py")) for name, node in _classes_in(path).items()
    }

    def is_data_module(node: ast.ClassDef) -> bool:
        bases = [base.id for base in node.bases if isinstance(base, ast.Name)]
        return "LightningDataModule" in bases or any(is_data_module(classes[b]) for b in bases if b in classes)

    def is_abstract(node: ast.ClassDef) -> bool:
        marks = [mark for item in node.body if isinstance(item, ast.FunctionDef) for mark in item.decorator_list]
        return any(isinstance(mark, ast.Name) and mark.id == "abstractmethod" for mark in marks)

    return {
        name: (ast.get_docstring(node) or "").partition("\n")[0]
        for name, node in classes.items()
        if is_data_module(node) and not is_abstract(node)
    }


def own_backbones() -> dict[str, str]:
    """Returns the networks of source tinv and the first line of what they say of themselves."""
    found = {}
    for path in sorted((PACKAGE / "models").glob("*.py")):
        line = first_docstring_line(path, path.stem)
        if line:
            found[path.stem] = line
    return found
