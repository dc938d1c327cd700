"""`tinv measure`: all measures of invariance of one network in one pass over a folder of images."""

from __future__ import annotations

import argparse
import contextlib
import sys
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from tinv.errors import TinvError, TinvWarning
from tinv.evaluation.networks import (
    add_network_options,
    add_normalisation_options,
    add_running_options,
    networks,
    normalisation,
    prepare,
)
from tinv.policies.arguments import POLICY_OPTIONS, add_policy_options, policies_of
from tinv.runs.folder import versions

if TYPE_CHECKING:
    from torch import nn

    from tinv.evaluation.invariance import InvarianceReport

METRICS = ("consistency", "diagonal", "worst_case", "map", "layers", "attribution")
"""As `tinv.evaluation.invariance.MEASURES`, here without torch."""


def measure(words: Sequence[str]) -> int:
    """Runs `tinv measure` and returns the exit code."""
    args = _parser().parse_args(words)
    from tinv.evaluation.invariance import checked_images
    from tinv.evaluation.invariance import measure as measured

    trained = _trained(args) if args.run else None
    size = _size(args.input_size) if trained is None or args.input_size else trained.size
    mean, std = normalisation(args) if trained is None else (trained.mean, trained.std)
    # before a network is built
    checked_images(args.images, size, args.metrics, args.motion, args.max_shift, args.max_images)
    prepare(args, "measure.json")
    plain, network = networks(args, size) if trained is None else (trained.network, trained.network)
    with as_notes():
        report = measured(
            network,
            args.images,
            num_classes=args.num_classes,
            input_size=size,
            metrics=args.metrics,
            motion=args.motion,
            max_shift=args.max_shift,
            passes=args.passes,
            max_images=args.max_images,
            mean=mean,
            std=std,
            plain=plain,
            partial=args.partial,
            on_error=args.on_error,
            batch_size=args.batch_size,
            workers=args.workers,
            seed=args.seed,
            device=args.device,
            precision=args.precision,
        )
    _print(args, report)  # before anything is written: a full disk must not cost what was measured
    options = {key: str(value) if isinstance(value, Path) else value for key, value in vars(args).items()}
    try:
        report.save(args.out, command="measure", options=options, versions=versions())
    except OSError as error:
        raise TinvError(f"cannot write to {args.out} ({error.strerror}); choose another --out") from error
    print(f"results: {args.out / 'measure.json'}")
    return 0


@contextlib.contextmanager
def as_notes() -> Iterator[None]:
    """Prints what tinv warns of as notes, a line each."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", TinvWarning)
        yield
    for warning in caught:
        if issubclass(warning.category, TinvWarning):
            print(f"note: {warning.message}", file=sys.stderr)
        else:
            warnings.warn_explicit(warning.message, warning.category, warning.filename, warning.lineno)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "tinv measure",
        description="Measures how invariant a network is to shifts, on a folder of images, and which part breaks it.",
        epilog="Class folders count as labels if they are as many as the network's classes (sorted names = class "
        "numbers), or some of ImageNet's (n01440764 ...) for a network of its 1,000; otherwise, and in a flat folder, "
        "only what needs no labels is measured.",
    )
    network = add_network_options(parser)
    add_policy_options(network)
    which = network.add_mutually_exclusive_group(required=True)
    which.add_argument("--backbone", metavar="NAME", help="tinv list backbones --source SOURCE")
    which.add_argument("--run", type=Path, metavar="DIR", help="the best checkpoint of a run, as it was trained")
    images = parser.add_argument_group("the images")
    images.add_argument("--images", type=Path, required=True, metavar="DIR", help="class folders, or a flat folder")
    images.add_argument("--max-images", type=int, metavar="N", help="spread evenly over the folder; all if left out")
    images.add_argument(
        "--input-size", "--size", metavar="HxW", help="pixels that the network sees: 224 (default) or 224x320"
    )
    add_normalisation_options(images)
    images.add_argument("--on-error", choices=("raise", "skip"), default="raise", help="what a damaged file does")
    what = parser.add_argument_group("what is measured")
    what.add_argument("--metrics", nargs="+", choices=METRICS, default=list(METRICS), metavar="NAME",
                      help=f"some of {', '.join(METRICS)}; all if left out")  # fmt: skip
    what.add_argument(
        "--motion",
        choices=("crop", "zero", "circular"),
        default="crop",
        help="crop: windows of a larger photograph; zero: moved on a blank canvas; circular: wrapped",
    )
    what.add_argument("--max-shift", type=int, default=32, help="pixels, a multiple of 4; default 32")
    what.add_argument("--passes", type=int, default=5, help="pairs of views of each image; default 5")
    add_running_options(parser, batch_size=32, written="measure.json and pictures")
    return parser


@dataclass
class Trained:
    """The network of a run, and what its data looks like."""

    network: nn.Module
    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]


def _trained(args: argparse.Namespace) -> Trained:
    """Returns the network of a run with its best weights; the options that describe one take its values.

    Raises:
        TinvError: if the run has no configuration or no checkpoint, or another option describes a network too.
    """
    from tinv.models import create_backbone
    from tinv.models.weights import load_file
    from tinv.runs.configuration import Configuration
    from tinv.runs.folder import RunFolder
    from tinv.tasks import Classification

    own = policies_of(args)
    chosen = any(own[name] != choices[0] for name, (choices, _) in POLICY_OPTIONS.items())
    if args.weights or args.pretrained or args.partial or chosen:
        raise TinvError("--run says which network, weights and policies; leave the options for them out")
    folder = RunFolder(args.run)
    if not folder.config.is_file() or not folder.best.is_file():
        raise TinvError(f"{args.run} is no run with a best checkpoint (config.yaml, checkpoints/best.ckpt)")
    configuration = Configuration(["--config", str(folder.config), "--run_dir=null"])
    if not isinstance(configuration.model, Classification):
        raise TinvError(
            f"{args.run} trained {type(configuration.model).__name__}, which have no classes to measure; how they take "
            "shifts is in its results.json"
        )
    data, options = configuration.datamodule, dict(configuration.model.backbone_options)
    channels, *size = data.input_shape
    network = create_backbone(num_classes=data.num_classes, in_channels=channels, input_size=tuple(size), **options)
    load_file(network, folder.best)
    args.backbone, args.source, args.num_classes = options["name"], options["source"], data.num_classes
    for name in own:
        setattr(args, name, options[name])
    mean, std = (tuple(value) * (channels if len(value) == 1 else 1) for value in (data.mean, data.std))
    return Trained(network, (size[0], size[1]), mean, std)


def _size(text: str | None) -> tuple[int, int]:
    parts = (text or "224").lower().split("x")
    if not all(part.isdigit() and int(part) > 0 for part in parts) or len(parts) > 2:
        raise TinvError(f"--input-size {text} is not a size in pixels such as 224 or 224x320")
    return int(parts[0]), int(parts[-1])


def _print(args: argparse.Namespace, report: InvarianceReport) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    partial = "partial: " if report.partial else ""
    network = f"{args.backbone} ({args.source}), {partial}{args.padding}, {args.subsampling}"
    title = f"{network}: {report.images} images, {args.motion}, up to {args.max_shift} pixels"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("measure")
    table.add_column("value", justify="right")
    table.add_column("95% interval", justify="right")
    for row in report.rows():
        table.add_row(*row)
    Console().print(table)
    for line in report.attribution.get("explanation", []):
        print(line)
    if report.skipped:
        print(f"{len(report.skipped)} damaged files were skipped; measure.json names them")
