"""The pages of the API: one a package, with what it offers to other code, from its docstrings by mkdocstrings."""

from __future__ import annotations

import warnings
from importlib import import_module
from types import FunctionType
from typing import NamedTuple

from generate.text import code, doc, heading, table

PACKAGES = {
    "tinv": "",
    "tinv.nn": "padding.PaddedConv",
    "tinv.select": "",
    "tinv.policies": "",
    "tinv.metrics": "base.ReportedMetric shift_map.ShiftMap patch_matching.false_positive_rate views.shifted_views",
    "tinv.data": "base.InvarianceDataModule in_memory.InMemoryData in_memory.TrainTestData in_memory.ImageSet "
    "in_memory.Splits image_file_data.ImageFileData patch_data.PatchData action_clips.ActionClips from_files.FileData",
    "tinv.tasks": "base.BaseTask",
    "tinv.models": "",
    "tinv.graph": "summary.summary summary.Summary analysis.analyze analysis.Analysis analysis.Layer "
    "exact_invariance.ExactInvariance exact_invariance.InvariantShifts converted.ConvertedNetwork account.Conversion "
    "account.Note geometry.Cost verification.verify verification_result.Verification tile_plan.tile_plan "
    "tile_plan.TilePlan tile_plan.AxisTile tile_proof.prove tile_proof.TileProof trunk.trunk_of",
    "tinv.evaluation": "invariance.measure invariance.InvarianceReport location_probe.probe_location "
    "location_probe.LocationReport networks.NetworkSpec model_files.load_model_file model_files.ModelFile",
    "tinv.translation": "draw_shifts draw_offsets uniform translate crop_each",
    "tinv.testing": "assert_invariant assert_equivariant",
    "tinv.callbacks": "",
    "tinv.utils": "arguments.Checked arguments.checked arguments.misfit",
}
"""Packages, in the order of their pages, and what other code may use of them beyond what they export."""

INTRODUCTION = """# API

What tinv offers to other code. Names of `tinv` itself load when they are first used, so that importing it imports no
torch.

"""


class Entry(NamedTuple):
    """A class or function.

    Attributes:
        name: Name by which its package offers it.
        path: Dotted path of where it is defined.
        is_exported: Whether the package itself has the name.
        first: First paragraph of its docstring.
    """

    name: str
    path: str
    is_exported: bool
    first: str


def entries(package: str) -> list[Entry]:
    """Returns the classes and functions that a package offers, without old names of what has been renamed."""
    found: dict[str, Entry] = {}
    exported = getattr(import_module(package), "__all__", ())
    for name in (*exported, *PACKAGES[package].split()):
        module, _, last = f"{package}.{name}".rpartition(".")
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            value = getattr(import_module(module), last)
        if not isinstance(value, type | FunctionType) or value.__name__ != last:
            continue
        if value.__module__.startswith(package) and not value.__module__.endswith(".deprecated"):
            path = f"{value.__module__}.{last}"
            found.setdefault(path, Entry(last, path, name in exported, doc(value).first))
    return list(found.values())


def pages() -> dict[str, str]:
    """Returns the Markdown of every page, by its path below docs/; what two packages offer is shown once."""
    shown: dict[str, str] = {}
    made = {}
    for package in PACKAGES:
        file = f"{package.removeprefix('tinv.')}.md"
        own = entries(package)
        for entry in own:
            shown.setdefault(entry.path, file)
        rows = ((f"[{code(entry.name)}]({_link(entry, shown, file)})", entry.first) for entry in own)
        first = doc(import_module(package)).first
        parts = [heading(1, package), first, "\n\n", table(("name", "what it is"), rows)]
        parts += [_shown(package, entry) for entry in own if shown[entry.path] == file]
        made[f"api/{file}"] = "".join(parts)
    links = (
        (f"[{code(package)}]({package.removeprefix('tinv.')}.md)", doc(import_module(package)).first)
        for package in PACKAGES
    )
    return {"api/index.md": INTRODUCTION + table(("package", "what it holds"), links), **made}


def _link(entry: Entry, shown: dict[str, str], file: str) -> str:
    home = shown[entry.path]
    return f"{'' if home == file else home}#{entry.path}"


def _shown(package: str, entry: Entry) -> str:
    """Returns the directive of mkdocstrings, under the name that the package offers."""
    title = f"{package}.{entry.name}" if entry.is_exported else entry.path
    return f"::: {entry.path}\n    options:\n      heading: {title}\n      toc_label: {entry.name}\n\n"
