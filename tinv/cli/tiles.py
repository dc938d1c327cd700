"""`tinv tiles`: cuts a large image into tiles whose stitched outputs equal the output for the whole image."""

from __future__ import annotations

import json
import warnings
from collections.abc import Sequence

import torch

from tinv.cli.parser import CommandParser, call, recorded
from tinv.errors import TinvError
from tinv.evaluation.networks import NetworkSpec
from tinv.graph.tile_plan import tile_plan
from tinv.graph.tile_proof import proof_plan, prove
from tinv.graph.trunk import trunk_of
from tinv.models import create_backbone
from tinv.policies.conversion import ConversionPolicy

DESCRIPTION = """Plans tiles of an image too large to be run at once, so that their stitched outputs equal the output
for the whole image, and tries the plan."""


def tiles(words: Sequence[str]) -> int:
    """Runs `tinv tiles` and returns the exit code: 1 where stitched tiles differ from the whole."""
    args = make_parser().parse(words)
    spec, policy = call(NetworkSpec, args), call(ConversionPolicy, args)
    image, tile = _size(args["image"]), _size(args["tile"])
    own = _size(args["input_size"] or tile)
    plain = spec.plain(own)
    network = spec.under(policy, plain, own).eval()
    example = torch.zeros(1, spec.in_channels, *own)
    title = f"{spec.backbone} ({spec.source})"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with torch.no_grad():
            made = network(example)
        if isinstance(made, torch.Tensor) and made.dim() == 2:
            network, title = trunk_of(network, example), f"{title}, its trunk before the head"
    plan = tile_plan(network, image, tile, spec.in_channels)
    proof = None
    if args["proof"]:
        small = proof_plan(network, plan, spec.in_channels)
        torch.manual_seed(spec.seed)
        proof = prove(network, small, torch.randn(1, spec.in_channels, *small.image_size))
    if args["json"]:
        policies = {name: args[name] for name in policy.to_dict() if name in args}
        found = {"name": spec.backbone, "source": spec.source, "policies": recorded(policies), **plan.to_dict()}
        print(json.dumps(found | ({} if proof is None else {"proof": proof.to_dict()}), indent=1))
    else:
        print(f"{title}\n{plan}")
        print("\n".join([] if proof is None else proof.lines()))
    return int(proof is not None and not proof.holds)


def make_parser() -> CommandParser:
    """Returns the parser of the words after `tinv tiles`."""
    parser = CommandParser("tiles", DESCRIPTION, positional="backbone")
    parser.option("image", int | tuple[int, ...], "pixels of the image: 2000x3000")
    parser.option("tile", int | tuple[int, ...], "most pixels of a tile: 512, or 512x768")
    parser.add("the network", NetworkSpec)
    parser.add("its policies", create_backbone, {"name", "in_channels", "input_size", "border"})
    size = "pixels that the network is made for; left out, those of a tile"
    parser.option("input_size", int | tuple[int, ...] | None, size, None)
    parser.option("proof", bool, "run the plan on random numbers, whole and in tiles", True)
    parser.option("json", bool, "print everything as JSON", False)
    return parser


def _size(size: int | tuple[int, ...]) -> tuple[int, ...]:
    found = (size, size) if isinstance(size, int) else size
    if len(found) != 2 or min(found) < 1:
        raise TinvError(f"a size is two numbers above 0, height and width, not {'x'.join(map(str, found))}")
    return found
