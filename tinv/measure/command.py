"""`tinv measure`: all measures of invariance of one network in one pass over a folder of images."""

from __future__ import annotations

import argparse
import json
import math
import sys
from collections.abc import Sequence
from dataclasses import dataclass
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
    networks,
    normalisation,
    prepare,
)
from tinv.policies.arguments import POLICY_OPTIONS, add_policy_options, policies_of
from tinv.progress import progress
from tinv.runs.folder import versions

if TYPE_CHECKING:
    from torch import nn

    from tinv.measure.images import Photographs
    from tinv.metrics import InvarianceMetric

METRICS = ("consistency", "diagonal", "worst_case", "map", "layers", "attribution")
MAP_IMAGES = 128
LAYER_IMAGES = 32
ATTRIBUTION_IMAGES = 32
"""Exact networks cost many times the plain one: they see the first images only."""
ATTRIBUTION_PASSES = 2


def measure(words: Sequence[str]) -> int:
    """Runs `tinv measure` and returns the exit code."""
    args = _parser().parse_args(words)
    if args.max_shift < 4 or args.max_shift % 4:
        raise TinvError(f"--max-shift must be a multiple of 4 pixels, not {args.max_shift}")
    from tinv.data.image_files import find_images
    from tinv.measure.images import Photographs, Room

    trained = _trained(args) if args.run else None
    size = _size(args.size) if trained is None or args.size else trained.size
    if args.motion == "zero" and min(size) <= args.max_shift:
        raise TinvError(f"--max-shift {args.max_shift} leaves no room for the image on a canvas of {args.size} pixels")
    files = find_images(args.images)
    files = _some(files, args.max_images)
    mean, std = normalisation(args) if trained is None else (trained.mean, trained.std)
    photographs = Photographs(
        files, Room(size, args.max_shift, args.motion, mean, std), args.batch_size, args.workers, args.on_error
    )
    prepare(args, "measure.json")
    plain, network = networks(args, size) if trained is None else (trained.network, trained.network)
    _measure(args, plain, network, photographs)
    print(f"results: {args.out / 'measure.json'}")
    return 0


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
    images.add_argument("--size", metavar="HxW", help="pixels that the network sees: 224 (default) or 224x320")
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
        raise TinvError(f"--size {text} is not a size in pixels such as 224 or 224x320")
    return int(parts[0]), int(parts[-1])


def _some(files: Any, count: int | None) -> Any:
    from tinv.data.image_files import spread

    if count is None:
        return files
    if count < 1:
        raise TinvError(f"--max-images must be at least 1, not {count}")
    return spread(files, count)


def _measure(
    args: argparse.Namespace, plain: nn.Module, network: nn.Module, photographs: Photographs
) -> dict[str, Any]:
    import torch

    from tinv.measure.attribution import explanation, is_marked, share, variants
    from tinv.measure.images import class_numbers
    from tinv.metrics import LayerEquivariance, ShiftConsistency
    from tinv.metrics.answers import undefined_message
    from tinv.metrics.views import UNLABELLED, centre_view

    device = device_of(args.device)
    files = photographs.files
    classes = class_numbers(files.classes, args.num_classes)
    if files.classes and classes is None:
        print(f"note: {args.images} has {len(files.classes)} class folders, the network {args.num_classes} classes: "
              "measured without labels")  # fmt: skip
    for net in (network, plain):
        net.eval().to(device).to(memory_format=torch.channels_last)
    metrics = {name: metric.to(device) for name, metric in _metrics(args).items()}
    example = torch.zeros(1, len(photographs.room.mean), *photographs.room.size)
    shift = args.max_shift
    parts = []
    if "attribution" in args.metrics:
        consistency = ShiftConsistency(shift, args.motion, ATTRIBUTION_PASSES, seed=args.seed)
        parts = variants(plain, example.to(device), args.motion, consistency, args.partial)
        for part in parts:
            part.consistency.to(device)
    for metric in metrics.values():
        metric.check(network, example.shape[1:])
    batches = -(-len(files) // args.batch_size)
    seen = 0
    with torch.no_grad(), autocast(args.precision, device):
        for images, targets, index in progress(photographs.batches(device), "measuring batches", batches):
            targets = torch.full_like(targets, UNLABELLED) if classes is None else classes.to(device)[targets]
            logits = network(centre_view(images, shift, args.motion))
            for metric in metrics.values():
                metric.update(network, images, logits, targets, index)
            some = slice(0, max(0, ATTRIBUTION_IMAGES - seen))
            for part in parts:
                if part.network is not None and len(images[some]):
                    part.consistency.update(part.network, images[some], logits[some], targets[some], index[some])
                    part.count(part.network(centre_view(images[some], shift, args.motion)), targets[some])
            seen += len(images)
    if not seen:
        raise TinvError(f"no image of {args.images} could be read")
    results = {key: float(value) for metric in metrics.values() for key, value in metric.results().items()}
    # what is not defined is left out: agreement among right answers where none is right; JSON knows no NaN
    numbers = {key: value for key, value in results.items() if not math.isnan(value)}
    if (message := undefined_message(results)) is not None:
        print(f"note: {message}", file=sys.stderr)
    report: dict[str, Any] = {
        "command": "measure",
        "options": {key: str(v) if isinstance(v, Path) else v for key, v in vars(args).items()},
        "images": seen,
        "skipped": sorted(photographs.skipped),
        "labelled": classes is not None,
        "partial": [vars(note) for note in getattr(getattr(network, "conversion", None), "partial", [])],
        "metrics": numbers,
        "versions": versions(),
    }
    if parts:
        report["attribution"] = {
            "consistency": {part.name: part.percent for part in parts},
            "accuracy": {part.name: part.accuracy for part in parts},
            "share": {part.name: share(part, parts[0]) for part in parts[1:]},
            "accuracy_fell": [part.name for part in parts[1:] if is_marked(part, parts[0])],
            "partial": {part.name: part.partial for part in parts if part.partial},
            "refused": {part.name: part.refusal for part in parts if part.network is None},
            "explanation": explanation(parts, args.motion),
        }
    layers = metrics.get("layers")
    if isinstance(layers, LayerEquivariance) and layers.layers is not None:
        report["layers"] = {
            "shift": layers.layers.shift,
            "errors": [vars(e) for e in layers.errors() if not math.isnan(e.error)],
        }
    _print(report)  # before anything is written: a full disk must not cost what was measured
    _save(args, report, metrics)
    return report


def _metrics(args: argparse.Namespace) -> dict[str, InvarianceMetric]:
    from tinv.metrics import (
        DiagonalAccuracy,
        LayerEquivariance,
        ShiftConsistency,
        TranslationMap,
        UnmovedAccuracy,
        WorstCaseAccuracy,
    )

    shift, motion = args.max_shift, args.motion
    every: dict[str, InvarianceMetric] = {
        "consistency": ShiftConsistency(shift, motion, args.passes, seed=args.seed),
        "diagonal": DiagonalAccuracy(shift, motion, step=shift // 4, seed=args.seed),
        "worst_case": WorstCaseAccuracy(shift, motion, step=shift // 4, seed=args.seed),
        "map": TranslationMap(shift // 2, shift // 4, motion, max_images=MAP_IMAGES),
        "layers": LayerEquivariance(shift, motion, max_images=LAYER_IMAGES, seed=args.seed),
    }
    wanted = {name: metric for name, metric in every.items() if name in args.metrics}
    return {"acc": UnmovedAccuracy(args.seed), **wanted}


def _save(args: argparse.Namespace, report: dict[str, Any], metrics: dict[str, InvarianceMetric]) -> None:
    try:
        write_atomically(args.out / "measure.json", json.dumps(report, indent=2) + "\n")
        for name, metric in metrics.items():
            metric.save(args.out, name)
    except OSError as error:
        raise TinvError(f"cannot write to {args.out} ({error.strerror}); choose another --out") from error


def _print(report: dict[str, Any]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    from tinv.report.intervals import interval, without_ends

    numbers = report["metrics"]
    options = report["options"]
    partial = "partial: " if report["partial"] else ""
    network = f"{options['backbone']} ({options['source']}), {partial}{options['padding']}, {options['subsampling']}"
    title = f"{network}: {report['images']} images, {options['motion']}, up to {options['max_shift']} pixels"
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column("measure")
    table.add_column("value", justify="right")
    table.add_column("95% interval", justify="right")
    for key in without_ends(numbers):
        digits = 3 if key.endswith(("cosine", "mcs", "error_last")) else 1
        ends = " .. ".join(f"{end:.{digits}f}" for end in interval(key, numbers) or ())
        table.add_row(key, f"{numbers[key]:.{digits}f}", ends)
    Console().print(table)
    for line in report.get("attribution", {}).get("explanation", []):
        print(line)
    if report["skipped"]:
        print(f"{len(report['skipped'])} damaged files were skipped; measure.json names them")
