"""`tinv inspect`: where each activation sits over the image, what it costs, which shifts leave the output unchanged."""

from __future__ import annotations

import argparse
import json
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from fractions import Fraction
from typing import TYPE_CHECKING, Any

from tinv import yaml_files
from tinv.errors import TinvError
from tinv.policies.arguments import add_policy_options, policies_of
from tinv.policies.conversion import ConversionPolicy

if TYPE_CHECKING:
    from torch import nn

    from tinv.graph.account import Conversion
    from tinv.graph.analysis import Analysis, Layer


def inspect(words: Sequence[str]) -> int:
    """Prints the anatomy of one network."""
    args = _parser().parse_args(words)
    import torch

    from tinv.graph.analysis import analyse
    from tinv.models import backbone_options, create_backbone
    from tinv.policies.conversion import ConversionPolicy

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
    found, before = analyse(network, example), analyse(plain, example)
    said = [str(warning.message) for warning in caught if "changed nothing" in str(warning.message)]
    if args.json:
        print(json.dumps(_as_data(args, found, before, network), indent=1))
        return 0
    _print(args, found, before, said, ConversionPolicy(**policies), network)
    return 0


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


def _print(
    args: argparse.Namespace,
    found: Analysis,
    before: Analysis,
    said: list[str],
    policy: ConversionPolicy,
    network: nn.Module,
) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    size = "x".join(map(str, found.input_shape[2:]))
    conversion: Conversion | None = getattr(network, "conversion", None)
    partial = conversion.partial if conversion is not None else []
    policies = "unconverted" if policy.keeps_all else ("partial: " if partial else "") + str(policy)
    table = Table(
        title=f"{args.name} ({args.source}), {policies}, on {size} images",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    table.add_column("layer", overflow="fold", ratio=1)
    if args.all:
        table.add_column("kind", overflow="fold")
    for name in ("size", "stride", "offset", "sees", "border", "GFLOPs", "MB"):
        table.add_column(name, justify="right", no_wrap=True)
    for layer in found.layers:
        if args.all or layer.changes_geometry:
            table.add_row(layer.name, *([layer.kind] if args.all else []), *_cells(layer))
    console.print(table)
    console.print(
        "[dim]cell i looks at pixel offset + stride * i and sees that many pixels around it (receptive field); border: "
        "cells that see beyond the image's border; one value for all axes, or time/space[/]"
    )
    flops, memory = found.cost.flops, found.cost.bytes
    times, more = flops / max(before.cost.flops, 1), memory / max(before.cost.bytes, 1)
    against = "" if policy.keeps_all else f", {times:.2f}x and {more:.2f}x the unconverted network"
    console.print(f"\none image costs {flops / 1e9:.2f} GFLOPs and {memory / 1e6:.0f} MB of activations{against}")
    if conversion is not None and not policy.keeps_all:
        console.print("changed: " + (", ".join(f"{n} {what}" for what, n in conversion.counts.items()) or "nothing"))
        for note in conversion.left:
            console.print(f"left: {note.layer}: {note.text}")
        for note in partial:
            console.print(f"[yellow]not converted:[/] {note.layer}: {note.text}")
    for text in said:
        console.print(f"[yellow]warning:[/] {text}")
    console.print(f"exactly {found.verdict.name} (in evaluation, with these weights) to")
    for line in found.verdict.lines():
        console.print(f"  {line}")


def _cells(layer: Layer) -> list[str]:
    cost = [f"{layer.cost.flops / 1e9:.3f}", f"{layer.cost.bytes / 1e6:.1f}"]
    if not layer.places:
        return ["-", "-", "-", "all", "-", *cost]
    border = [f"{100 * n / place.size:.0f}%" for n, place in zip(layer.at_border, layer.places, strict=True)]
    columns = [
        [str(place.size) for place in layer.places],
        [_number(place.stride) for place in layer.places],
        [_number(place.offset) + ("+" if place.choices else "") for place in layer.places],
        [_number(place.receptive_field) for place in layer.places],
        border,
    ]
    return [_together(values) for values in columns] + cost


def _together(values: list[str]) -> str:
    if len(set(values)) == 1:
        return values[0]
    if len(values) == 3 and values[1] == values[2]:
        return f"{values[0]}/{values[1]}"
    return "x".join(values)


def _number(value: Fraction) -> str:
    return f"{float(value):g}"


def _as_data(args: argparse.Namespace, found: Analysis, before: Analysis, network: nn.Module) -> dict[str, Any]:
    def layer(one: Layer) -> dict[str, Any]:
        axes = [
            {
                **{key: float(getattr(place, key)) for key in ("offset", "stride", "low", "high", "receptive_field")},
                "axis": place.axis,
                "size": place.size,
                "cells_at_border": at_border,
            }
            for place, at_border in zip(one.places, one.at_border, strict=True)
        ]
        return {"name": one.name, "kind": one.kind, "shape": one.shape, "axes": axes, **asdict(one.cost)}

    conversion = getattr(network, "conversion", None)
    return {
        "name": args.name,
        "source": args.source,
        "input_shape": found.input_shape,
        "policies": policies_of(args),
        "partial": [asdict(note) for note in getattr(conversion, "partial", [])],
        "cost": asdict(found.cost),
        "cost_unconverted": asdict(before.cost),
        "verdict": {
            kind: [asdict(standing) for standing in getattr(found.verdict, kind)]
            for kind in ("circular", "zero_canvas")
        },
        "changed": [asdict(note) for note in conversion.changed] if conversion else [],
        "left": [asdict(note) for note in conversion.left] if conversion else [],
        "layers": [layer(one) for one in found.layers if args.all or one.changes_geometry],
    }
