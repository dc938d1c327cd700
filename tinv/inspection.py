"""`tinv inspect`: where each activation sits over the image, what it costs, which shifts leave the output unchanged."""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tinv import yaml_files
from tinv.errors import TinvError
from tinv.policies.arguments import add_policy_options, policies_of

if TYPE_CHECKING:
    from tinv.graph.summary import Summary


def inspect(words: Sequence[str]) -> int:
    """Prints the anatomy of one network."""
    args = _parser().parse_args(words)
    import torch

    from tinv.graph.analysis import analyse
    from tinv.graph.summary import summary
    from tinv.models import backbone_options, create_backbone

    size = _input_size(args)
    example = torch.zeros(1, args.in_channels, *size)
    common = backbone_options(
        dict(_key_value(pair) for pair in args.backbone_args),
        source=args.source,
        num_classes=args.num_classes,
        in_channels=args.in_channels,
        input_size=size,
        pretrained=args.pretrained,
    )
    policies = policies_of(args)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        network = create_backbone(args.name, **common, **policies)
        plain = create_backbone(args.name, **common)
    found = replace(summary(network, example, f"{args.name} ({args.source})"), before=analyse(plain, example).cost)
    if args.json:
        data = {"name": args.name, "source": args.source, "policies": policies, **found.to_dict(args.all)}
        print(json.dumps(data, indent=1))
        return 0
    said = [str(warning.message) for warning in caught if "changed nothing" in str(warning.message)]
    _print(found if found.conversion is not None else replace(found, before=None), args.all, said)
    return 0


def _print(found: Summary, every_layer: bool, said: list[str]) -> None:
    from rich.console import Console

    from tinv.graph.summary import EXPLANATION

    console = Console(highlight=False)
    console.print(found.table(every_layer))
    console.print(f"[dim]{EXPLANATION}[/]\n")
    for line in found.lines()[: -1 - len(found.verdict.lines())]:
        console.print(line, markup=False)
    for text in said:
        console.print(f"[yellow]warning:[/] {text}")
    for line in found.lines()[-1 - len(found.verdict.lines()) :]:
        console.print(line, markup=False)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "tinv inspect",
        description="Prints where each activation of a network sits over the image, what it costs, and which shifts "
        "leave the output exactly unchanged.",
    )
    parser.add_argument("name", help="of the network: tinv list backbones --source SOURCE")
    parser.add_argument("--source", choices=["timm", "torchvision", "tinv"], default="timm", help="default: timm")
    add_policy_options(parser)
    parser.add_argument(
        "--input-size", default=None, metavar="HxW", help="pixels: 224, 224x320, or 16x112x112 for clips"
    )
    parser.add_argument("--in-channels", type=int, default=3)
    parser.add_argument("--num-classes", type=int, default=1000)
    parser.add_argument(
        "--pretrained", action="store_true", help="load published weights, whose biases the verdict reads"
    )
    parser.add_argument(
        "--backbone-args", nargs="*", default=[], metavar="KEY=VALUE", help="options of the network itself"
    )
    parser.add_argument("--all", action="store_true", help="a line for every layer, not only where geometry changes")
    parser.add_argument("--json", action="store_true", help="print everything as JSON")
    return parser


def _input_size(args: argparse.Namespace) -> tuple[int, ...]:
    clip = args.source == "torchvision" and args.name in ("r3d_18", "mc3_18", "r2plus1d_18")
    if args.input_size is None:
        return (16, 112, 112) if clip else (224, 224) if args.source != "tinv" else (32, 32)
    try:
        sizes = tuple(int(part) for part in args.input_size.replace(",", "x").split("x"))
    except ValueError:
        sizes = ()
    if not sizes or min(sizes) < 1:
        raise TinvError(f"--input-size {args.input_size!r}: write pixels as 224, 224x320 or 16x112x112")
    return sizes * 2 if len(sizes) == 1 else sizes


def _key_value(pair: str) -> tuple[str, Any]:
    key, equals, value = pair.partition("=")
    if not equals:
        raise TinvError(f"--backbone-args {pair!r}: write KEY=VALUE")
    return key, yaml_files.parse(value)
