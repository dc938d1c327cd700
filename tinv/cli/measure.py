"""`tinv measure`: all measures of invariance of one network in one pass over a folder of images."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from tinv.cli.parser import CommandParser, call, recorded
from tinv.cli.results import prepare, writing
from tinv.errors import TinvError
from tinv.evaluation.invariance import checked_images
from tinv.evaluation.invariance import measure as measure_network
from tinv.evaluation.networks import NetworkSpec, normalization_of
from tinv.evaluation.protocol import load_protocol
from tinv.evaluation.trained import TrainedNetwork, load_trained
from tinv.models import create_backbone
from tinv.policies.conversion import ConversionPolicy
from tinv.runs.folder import versions

DESCRIPTION = """Measures how invariant a network is to shifts, on a folder of images, and which part breaks it.
Class folders count as labels if they are as many as the network's classes (sorted names = class numbers), or some of
ImageNet's (n01440764 ...) for a network of its 1,000; otherwise, and in a flat folder, only what needs no labels is
measured."""


def measure(words: Sequence[str]) -> int:
    """Runs `tinv measure` and returns the exit code."""
    parser = make_parser()
    args = parser.parse(words)
    trained = _trained(args["run"], parser.given) if args["run"] else None
    if trained is None and not args["backbone"]:
        raise TinvError("--backbone NAME or --run DIR is missing: the network that is measured")
    size = args["input_size"]
    if trained is not None and "input_size" not in parser.given:
        size = trained.size
    elif args["protocol"] and "input_size" not in parser.given:
        size = load_protocol(args["protocol"]).input_size
    size = (size, size) if isinstance(size, int) else size
    call(checked_images, args, size=size)  # before a network is built
    prepare(args["out"], "measure.json")
    prepare(args["out"], "measure.html")  # an earlier page would show other numbers
    spec = trained.spec if trained else call(NetworkSpec, args)
    policy = trained.policy if trained else call(ConversionPolicy, args)
    plain = trained.network if trained else spec.plain(size)
    network = trained.network if trained else spec.under(policy, plain, size)
    _print_notes(network, spec.backbone)
    mean, std = (trained.mean, trained.std) if trained else normalization_of(plain, args["mean"], args["std"])
    own = {"input_size": size, "num_classes": spec.num_classes, "mean": mean, "std": std}
    report = call(measure_network, args, network=network, plain=plain, partial=policy.partial, **own)
    partial = "partial: " if report.partial else ""
    activation = f", {policy.activation}" if policy.activation.treats_activations else ""
    report.print(
        f"{spec.backbone} ({spec.source}), {partial}{policy.padding}, {policy.subsampling}{activation}"
    )  # before anything is written: a full disk must not cost what was measured
    options = args | own | {"backbone": spec.backbone, "source": spec.source} | policy.to_dict()
    with writing(args["out"]):
        report.save(args["out"], command="measure", options=recorded(options), versions=versions())
    print(f"results: {args['out'] / 'measure.json'}")
    print(f"page: {args['out'] / 'measure.html'}")
    return 0


def make_parser() -> CommandParser:
    """Returns the parser of the words after `tinv measure`."""
    parser = CommandParser("measure", DESCRIPTION)
    parser.option("backbone", str | None, "name of the network: tinv list backbones --source SOURCE", None)
    parser.option("run", Path | None, "folder of a run, whose best checkpoint is measured as it was trained", None)
    parser.option("out", Path, "folder for measure.json and figures")
    parser.add("the network", NetworkSpec, {"in_channels"})
    parser.add("its policies", create_backbone, {"name", "in_channels", "input_size", "border"})
    parser.add("what is measured, and how", measure_network, {"network", "plain"})
    parser.old |= {"size": "input_size"}
    return parser


def _trained(run: Path, given: set[str]) -> TrainedNetwork:
    """Returns the network of a run, which other options that describe a network would contradict."""
    known = {*NetworkSpec.__dataclass_fields__, *ConversionPolicy.__dataclass_fields__, "mean", "std"} - {"seed"}
    if twice := sorted(given & known):
        raise TinvError(
            f"--run says which network, weights, policies, mean and std; leave --{twice[0].replace('_', '-')} out"
        )
    return load_trained(run)


def _print_notes(network: object, name: str) -> None:
    conversion = getattr(network, "conversion", None)
    if conversion is not None and not any(conversion.counts.values()):
        print(f"note: {conversion.policy} changes nothing in {name}")
    for note in getattr(conversion, "partial", []):
        print(f"note: partial: {note.layer} was not converted: {note.text}")
