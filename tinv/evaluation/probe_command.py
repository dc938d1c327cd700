"""`tinv probe`: how far from the border a frozen network knows where it looks, under each padding policy."""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tinv.errors import TinvError
from tinv.evaluation.networks import (
    add_network_options,
    add_normalisation_options,
    add_running_options,
    normalisation,
    plain_network,
    prepare,
    with_policies,
)
from tinv.files import write_atomically
from tinv.policies.arguments import add_policy_options
from tinv.policies.cards import PADDINGS
from tinv.runs.folder import versions

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from tinv.evaluation.location_probe import LocationReport


def probe(words: Sequence[str]) -> int:
    """Runs `tinv probe` and returns the exit code."""
    args = _parser().parse_args(words)
    found = _probe(args)
    reports = list(found.values())
    report = {
        "command": "probe",
        "options": {key: str(value) if isinstance(value, Path) else value for key, value in vars(args).items()},
        "images": reports[0].images,
        "skipped": list(reports[0].skipped),
        "partial": {padding: list(one.partial) for padding, one in found.items() if one.partial},
        "location": {padding: [vars(readout) for readout in one.readouts] for padding, one in found.items()},
        "versions": versions(),
    }
    _print(found, args)  # before anything is written: a full disk must not cost what was found
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
    images.add_argument(
        "--input-size", "--side", type=int, default=64, help="side of a photograph in pixels; default 64"
    )
    images.add_argument("--distances", type=int, nargs="+", default=[0, 16, 32, 64, 128], metavar="PIXELS",
                        help="from the border; default: 0 16 32 64 128")  # fmt: skip
    add_normalisation_options(images)
    images.add_argument("--on-error", choices=("raise", "skip"), default="raise", help="what a damaged file does")
    add_running_options(parser, batch_size=16, written="location.json and location.png")
    return parser


def _probe(args: argparse.Namespace) -> dict[str, LocationReport]:
    from tinv.data.image_files import find_images, spread
    from tinv.evaluation.images import Photographs, Room
    from tinv.evaluation.location_probe import APART, check_probe, probe_location

    check_probe(args.input_size, args.max_images, args.distances)
    files = spread(find_images(args.images), args.max_images)
    room = Room((args.input_size, args.input_size), 0, "circular", *normalisation(args))
    prepare(args, "location.json")
    photographs = Photographs(files, room, args.batch_size, args.workers, args.on_error)
    size = (args.input_size + APART + 2 * max(args.distances),) * 2
    plain = plain_network(args, size)
    found: dict[str, LocationReport] = {}
    for padding in args.padding:
        pool = args.pool or ("full" if padding.startswith("full") else "keep")
        found[padding] = probe_location(
            with_policies(plain, args, size, padding, pool),
            photographs,
            distances=args.distances,
            input_size=args.input_size,
            max_images=args.max_images,
            batch_size=args.batch_size,
            seed=args.seed,
            device=args.device,
            precision=args.precision,
            name=padding,
        )
    return found


def _name(padding: str, found: dict[str, LocationReport]) -> str:
    return f"{padding} (partial)" if found[padding].partial else padding


def _draw(found: dict[str, LocationReport], args: argparse.Namespace) -> Figure:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    distances = [readout.distance for readout in next(iter(found.values())).readouts]
    places = range(len(distances))
    for number, (padding, report) in enumerate(found.items()):
        readouts = report.readouts
        values = [readout.accuracy for readout in readouts]
        axes.plot(places, values, "o-", color=f"C{number}", label=_name(padding, found), markersize=4)
        axes.fill_between(places, [r.low for r in readouts], [r.high for r in readouts], color=f"C{number}", alpha=0.15)
    axes.axhline(50, color="grey", linewidth=0.8, linestyle="--")
    axes.set_xticks(places, [str(distance) for distance in distances])
    axes.set(xlabel="distance from the border (pixels)", ylabel="place read rightly (%)", ylim=(40, 102))
    axes.set_title(f"{args.backbone} ({args.source}): where a photograph lies")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return figure


def _print(found: dict[str, LocationReport], args: argparse.Namespace) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    first = next(iter(found.values()))
    table = Table(
        title=f"{args.backbone} ({args.source}): place read rightly (%), {first.images} photographs, 50 is chance",
        title_justify="left",
        box=box.SIMPLE_HEAD,
        pad_edge=False,
    )
    table.add_column("distance (pixels)")
    for readout in first.readouts:
        table.add_column(str(readout.distance), justify="right")
    for padding, report in found.items():
        table.add_row(_name(padding, found), *(f"{readout.accuracy:.1f}" for readout in report.readouts))
    Console().print(table)
