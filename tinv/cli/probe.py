"""`tinv probe`: how far from the border a frozen network encodes absolute position, under each padding policy."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tinv.cli.parser import CommandParser, call, recorded
from tinv.cli.results import prepare, writing
from tinv.data.formats.images import find_images, subsample_evenly
from tinv.errors import TinvError, unknown
from tinv.evaluation.images import ImageLayout, Photographs
from tinv.evaluation.location_probe import (
    APART,
    LocationReport,
    check_probe,
    print_locations,
    probe_location,
    save_locations,
)
from tinv.evaluation.networks import NetworkSpec, normalization_of
from tinv.models import create_backbone
from tinv.policies.cards import PADDINGS
from tinv.policies.conversion import ConversionPolicy, PoolPolicy
from tinv.runs.folder import versions

DESCRIPTION = """Learns from the features of a frozen network whether a photograph lies near the top left corner of a
black image or near the bottom right one, at growing distances from the border: 50% is chance."""


def probe(words: Sequence[str]) -> int:
    """Runs `tinv probe` and returns the exit code."""
    args = make_parser().parse(words)
    if not args["padding"]:
        raise TinvError("--padding is empty; name at least one padding policy")
    for name in args["padding"]:
        if name not in PADDINGS and "." not in name:
            raise unknown("padding", name, PADDINGS)
    call(check_probe, args)
    files = subsample_evenly(find_images(Path(args["images"])), args["max_images"])
    prepare(args["out"], "location.json")
    side = args["input_size"]
    size = (side + APART + 2 * max(args["distances"]),) * 2
    spec = call(NetworkSpec, args)
    plain = spec.plain(size)
    layout = ImageLayout((side, side), 0, "circular", *normalization_of(plain, args["mean"], args["std"]))
    photographs = Photographs(files, layout, args["batch_size"], args["workers"], args["on_error"])
    found: dict[str, LocationReport] = {}
    for padding in args["padding"]:
        pool: PoolPolicy = args["pool"] or ("full" if padding.startswith("full") else "keep")
        policy = call(ConversionPolicy, args, padding=padding, pool=pool)
        network = spec.under(policy, plain, size)
        found[padding] = call(probe_location, args, network=network, images=photographs, name=padding)
    title = f"{spec.backbone} ({spec.source})"
    print_locations(found, title)  # before anything is written: a full disk must not cost what was found
    with writing(args["out"]):
        save_locations(found, args["out"], title, command="probe", options=recorded(args), versions=versions())
    print(f"results: {args['out'] / 'location.json'}")
    return 0


def make_parser() -> CommandParser:
    """Returns the parser of the words after `tinv probe`."""
    parser = CommandParser("probe", DESCRIPTION)
    parser.option("out", Path, "folder for location.json and location.png")
    parser.option("padding", list[str], "padding policies to compare", ["keep", "same_circular", "full_zero"])
    parser.option("pool", PoolPolicy | None, "padding of pools; left out: full under full_* policies, else keep", None)
    parser.add("the network", NetworkSpec, {"in_channels"})
    parser.add("its policies", create_backbone, {"name", "in_channels", "input_size", "border"})
    parser.add("what is probed, and how", probe_location, {"network", "name"})
    parser.old |= {"side": "input_size"}
    return parser
