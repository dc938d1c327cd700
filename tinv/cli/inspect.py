"""`tinv inspect`: where each activation sits over the image, what it costs, which shifts leave the output unchanged."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Sequence
from dataclasses import replace

import torch

from tinv.cli.parser import CommandParser, call, recorded
from tinv.errors import TinvWarning
from tinv.evaluation.networks import NetworkSpec
from tinv.graph.analysis import analyze
from tinv.graph.summary import summary
from tinv.graph.uneven import uneven_padding
from tinv.graph.verification import verify
from tinv.models import create_backbone
from tinv.policies.conversion import ConversionPolicy

DESCRIPTION = """Prints where each activation of a network sits over the image, what it costs, and which shifts leave
the output exactly unchanged."""


def inspect(words: Sequence[str]) -> int:
    """Runs `tinv inspect` and returns the exit code."""
    args = make_parser().parse(words)
    spec, policy = call(NetworkSpec, args), call(ConversionPolicy, args)
    size = _input_size(args["input_size"], spec)
    example = torch.zeros(1, spec.in_channels, *size)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        plain = spec.plain(size)
        network = spec.under(policy, plain, size)
    found = summary(network, example, f"{spec.backbone} ({spec.source})")
    found = replace(found, before=analyze(plain, example).cost, uneven=uneven_padding(network, example))
    verification = verify(network, example) if args["verify"] else None
    code = int(verification is not None and not verification.holds)
    notes = [
        str(w.message) for w in caught if issubclass(w.category, TinvWarning) or "changed nothing" in str(w.message)
    ]
    if args["json"]:
        for note in notes:
            print(f"note: {note}", file=sys.stderr)
        policies = {name: args[name] for name in policy.to_dict() if name in args}
        data = {"name": spec.backbone, "source": spec.source, "policies": recorded(policies)}
        tried = {} if verification is None else {"verification": verification.to_dict()}
        print(json.dumps(data | found.to_dict(args["all"]) | tried, indent=1))
        return code
    found.print(args["all"], notes)
    if verification is not None:
        print()
        verification.print()
    return code


def make_parser() -> CommandParser:
    """Returns the parser of the words after `tinv inspect`."""
    parser = CommandParser("inspect", DESCRIPTION, positional="backbone")
    parser.add("the network", NetworkSpec)
    parser.add("its policies", create_backbone, {"name", "in_channels", "input_size", "border"})
    size = "pixels that the network sees: 224, 224x320, or 16x112x112 for clips; left out, as is usual for it"
    parser.option("input_size", int | tuple[int, ...] | None, size, None)
    parser.option("all", bool, "a line for every layer, not only where geometry changes", False)
    tries = "try every claim numerically in float64, at three sizes; the exit code is 1 where one does not hold"
    parser.option("verify", bool, tries, False)
    parser.option("json", bool, "print everything as JSON", False)
    return parser


def _input_size(size: int | tuple[int, ...] | None, spec: NetworkSpec) -> tuple[int, ...]:
    if size is None:
        is_clip_network = spec.source == "torchvision" and spec.backbone in ("r3d_18", "mc3_18", "r2plus1d_18")
        return (16, 112, 112) if is_clip_network else (224, 224) if spec.source != "tinv" else (32, 32)
    return (size, size) if isinstance(size, int) else size
