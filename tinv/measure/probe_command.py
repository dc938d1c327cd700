"""`tinv probe`: how far from the border a frozen network knows where it looks, under each padding policy."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinv.errors import TinvError
from tinv.files import write_atomically
from tinv.measure.networks import (
    add_network_options,
    add_normalisation_options,
    add_running_options,
    autocast,
    device_of,
    normalisation,
    plain_network,
    prepare,
    with_policies,
)
from tinv.policies.arguments import add_policy_options
from tinv.policies.cards import PADDINGS
from tinv.progress import progress
from tinv.runs.folder import versions

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from tinv.measure.location_probe import Readout


def probe(words: Sequence[str]) -> int:
    """Runs `tinv probe` and returns the exit code."""
    args = _parser().parse_args(words)
    if args.side < 8:
        raise TinvError(f"--side must be 8 pixels or more, not {args.side}")
    if args.max_images < 4:
        raise TinvError(f"--max-images must be at least 4, not {args.max_images}")
    if min(args.distances) < 0:
        raise TinvError(f"--distances must be 0 pixels or more, not {min(args.distances)}")
    from tinv.data.image_files import find_images, spread
    from tinv.measure.images import Photographs, Room

    files = spread(find_images(args.images), args.max_images)
    room = Room((args.side, args.side), 0, "circular", *normalisation(args))
    prepare(args, "location.json")
    photographs = Photographs(files, room, args.batch_size, args.workers, args.on_error)
    found = _probe(args, photographs)
    count = len(files) - len(photographs.skipped)
    report = {
        "command": "probe",
        "options": {
            key: str(value) if isinstance(value, Path) else value
            for key, value in vars(args).items()
            if key != "not_converted"
        },
        "images": count,
        "skipped": sorted(photographs.skipped),
        "partial": args.not_converted,
        "location": {padding: [vars(readout) for readout in readouts] for padding, readouts in found.items()},
        "versions": versions(),
    }
    _print(found, args, count)  # before anything is written: a full disk must not cost what was found
    try:
        temporary = args.out / ".location.tmp.png"
        _draw(found, args).savefig(temporary, dpi=130)
        os.replace(temporary, args.out / "location.png")
        write_atomically(args.out / "location.json", json.dumps(report, indent=2) + "\n")
    except OSError as error:
        raise TinvError(f"cannot write to {args.out} ({error.strerror}); choose another --out") from error
    print(f"results: {args.out / 'location.json'}")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "tinv probe",
        description="Reads from a frozen network whether a photograph lies near the top left corner of a black image "
        "or near the bottom right one, at growing distances from the border: 50%% is chance.",
    )
    network = add_network_options(parser)
    network.add_argument("--backbone", metavar="NAME", required=True, help="tinv list backbones --source SOURCE")
    network.add_argument("--padding", nargs="+", choices=PADDINGS, metavar="POLICY",
                         default=["keep", "same_circular", "full_zero"],
                         help="policies to compare; default: keep same_circular full_zero")  # fmt: skip
    add_policy_options(network, "padding", "pool")
    network.add_argument("--pool", choices=("keep", "valid", "same", "full"),
                         help="padding of pools; left out: full under full_* policies, else keep")  # fmt: skip
    images = parser.add_argument_group("the images")
    images.add_argument("--images", type=Path, required=True, metavar="DIR", help="class folders, or a flat folder")
    images.add_argument("--max-images", type=int, default=200, metavar="N", help="half to learn from, half to score")
    images.add_argument("--side", type=int, default=64, help="of a photograph in pixels; default 64")
    images.add_argument("--distances", type=int, nargs="+", default=[0, 16, 32, 64, 128], metavar="PIXELS",
                        help="from the border; default: 0 16 32 64 128")  # fmt: skip
    add_normalisation_options(images)
    images.add_argument("--on-error", choices=("raise", "skip"), default="raise", help="what a damaged file does")
    add_running_options(parser, batch_size=16, written="location.json and location.png")
    return parser


def _probe(args: argparse.Namespace, photographs: Any) -> dict[str, list[Readout]]:
    import torch

    from tinv.measure.location_probe import APART, LocationProbe

    device = device_of(args.device)
    size = (args.side + APART + 2 * max(args.distances),) * 2
    plain = plain_network(args, size)
    images = torch.cat([part for part, _, _ in photographs.batches(device)])
    found: dict[str, list[Readout]] = {}
    args.not_converted = {}
    with autocast(args.precision, device):
        for padding in args.padding:
            pool = args.pool or ("full" if padding.startswith("full") else "keep")
            network = with_policies(plain, args, size, padding, pool).to(device)
            partial = [note.layer for note in getattr(getattr(network, "conversion", None), "partial", [])]
            if partial:
                args.not_converted[padding] = partial
            reader = LocationProbe(network.to(memory_format=torch.channels_last), images, args.seed, args.batch_size)
            distances = sorted(set(args.distances))
            found[padding] = [
                reader.read(distance) for distance in progress(distances, f"probing {padding}", len(distances))
            ]
    return found


def _name(padding: str, args: argparse.Namespace) -> str:
    return f"{padding} (partial)" if padding in args.not_converted else padding


def _draw(found: dict[str, list[Readout]], args: argparse.Namespace) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    places = range(len(next(iter(found.values()))))
    for number, (padding, readouts) in enumerate(found.items()):
        values = [readout.accuracy for readout in readouts]
        axes.plot(places, values, "o-", color=f"C{number}", label=_name(padding, args), markersize=4)
        axes.fill_between(places, [r.low for r in readouts], [r.high for r in readouts], color=f"C{number}", alpha=0.15)
    axes.axhline(50, color="grey", linewidth=0.8, linestyle="--")
    axes.set_xticks(places, [str(readout.distance) for readout in next(iter(found.values()))])
    axes.set(xlabel="distance from the border (pixels)", ylabel="place read rightly (%)", ylim=(40, 102))
    axes.set_title(f"{args.backbone} ({args.source}): where a photograph lies")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return figure


def _print(found: dict[str, list[Readout]], args: argparse.Namespace, count: int) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(
        title=f"{args.backbone} ({args.source}): place read rightly (%), {count} photographs, 50 is chance",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    table.add_column("distance (pixels)")
    for readout in next(iter(found.values())):
        table.add_column(str(readout.distance), justify="right")
    for padding, readouts in found.items():
        table.add_row(_name(padding, args), *(f"{readout.accuracy:.1f}" for readout in readouts))
    Console().print(table)
