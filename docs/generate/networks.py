"""The page of the networks: those of source tinv, and those of other sources that are known to take every policy."""

from __future__ import annotations

import runpy
from importlib import import_module
from pathlib import Path

from generate.arguments import argument_table, of_class
from generate.text import code, doc, heading, table
from tinv.config import catalog

COVERED = Path(__file__).parents[2] / "tests" / "covered_networks.py"

INTRODUCTION = """# Networks

`model.init_args.backbone` names a network and `model.init_args.source` where it comes from: `tinv` (below), `timm` or
`torchvision`. Every network is built as its source has it and converted to its policy afterwards; `tinv list
backbones --source timm --filter 'resnet*'` lists those of another source.

## Source tinv { #tinv }

The options of a network are keys of `model.init_args.backbone_args`, and `--backbone-args KEY=VALUE` of `tinv measure`,
`tinv inspect` and `tinv probe`.

"""

COVERAGE = """## Networks that take every policy { #covered }

The tests convert each of these COUNT networks to `full_zero`, to `same_circular` with `aps`, and to `full_zero` with
`blur3`, train a step and evaluate at two sizes (`tests/surgery/test_coverage.py`); the other networks of both sources
are tried when they are converted, and what cannot take a policy is an error that names the layer.

"""

REFUSAL = """## Networks that are refused { #refused }

The tests hold that converting these networks of timm to `full_zero` is an error that names a layer: their control flow
depends on the data, they resize maps to meet, or they have a fixed number of positions.

"""


def page() -> str:
    """Returns the page."""
    covered = runpy.run_path(str(COVERED))
    sources = {"torchvision": covered["TORCHVISION"].split(), "timm": covered["TIMM"].split()}
    count = sum(map(len, sources.values()))
    rows = ((code(source), ", ".join(map(code, names))) for source, names in sources.items())
    return (
        INTRODUCTION
        + "".join(map(_backbone, catalog.own_backbones()))
        + COVERAGE.replace("COUNT", str(count))
        + table(("source", "networks"), rows)
        + REFUSAL
        + ", ".join(map(code, covered["REFUSED"]))
        + ".\n"
    )


def _backbone(name: str) -> str:
    function = getattr(import_module(f"tinv.models.backbones.{name}"), name)
    own = [option for option in of_class(function) if option.name not in catalog.COMMON]
    return heading(3, code(name), name) + doc(function).text + "\n\n" + argument_table(own)
