"""`tinv measure`: all measures of invariance of one network in one pass over a folder of images."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tinv.cli.parser import CommandParser, call, recorded
from tinv.cli.results import prepare, writing
from tinv.errors import TinvError
from tinv.evaluation.invariance import INPUT_SIZE, checked_images
from tinv.evaluation.invariance import measure as measure_network
from tinv.evaluation.model_files import load_model_file
from tinv.evaluation.networks import NetworkSpec, normalization_of
from tinv.evaluation.protocol import load_protocol
from tinv.evaluation.selected import select_options
from tinv.evaluation.trained import load_trained
from tinv.models import create_backbone
from tinv.models.published import published_size
from tinv.policies.conversion import ConversionPolicy
from tinv.runs.folder import versions

DESCRIPTION = """Measures how invariant a network is to shifts, on a folder of images, and which part breaks it. The
network is one of timm, torchvision or tinv (--backbone), what tinv trained (--run), or a file of another program
(--model). Class folders count as labels if they are as many as the network's classes (sorted names = class numbers), or
some of ImageNet's (n01440764 ...) for a network of its 1,000; otherwise, and in a flat folder, only what needs no
labels is measured."""

BACKBONE_HELP = (
    "name of the network: tinv list backbones --source SOURCE; of timm also hf-hub:OWNER/NAME or local-dir:FOLDER"
)
MODEL_HELP = (
    "file of a network: ONNX (.onnx, needs the extra tinv[onnx]) or torch.export.save (.pt2, needs --trust-model). It "
    "runs on the CPU, in batches of the size that it says; what needs its layers is not measured"
)
TRUST_HELP = (
    "read a .pt2 file of --model, although torch reads it with pickle, which can run code that the file holds: say it "
    "only if you trust where the file is from"
)
SIZE_HELP = (
    f"pixels that the network sees: 224 or 224x320; left out: as --run, --model or named weights say, else {INPUT_SIZE}"
)


@dataclass(frozen=True)
class _Subject:
    """What is measured.

    Attributes:
        name: Name of the network, for the title.
        source: Where it comes from.
        network: The network, under its policy.
        more: Arguments of `tinv.measure` that go with it.
        policy: Its policy.
        options: What else is recorded of it.
    """

    name: str
    source: str
    network: Callable[..., Any]
    more: dict[str, Any]
    policy: ConversionPolicy = field(default_factory=ConversionPolicy)
    options: dict[str, Any] = field(default_factory=dict)


def measure(words: Sequence[str]) -> int:
    """Runs `tinv measure` and returns the exit code."""
    parser = make_parser()
    args = parser.parse(words)
    _check_named_once(args, parser.given)
    size, make = _network(args)
    call(checked_images, args, size=size)  # before a network is built
    select_options(*(args[name] for name in ("select", "select_range", "select_patch", "select_score")))
    prepare(args["out"], "measure.json")
    prepare(args["out"], "measure.html")  # an earlier page would show other numbers
    subject = make(size)
    _print_notes(subject.network, subject.name)
    own = {"input_size": size, **subject.more}
    report = call(measure_network, args, network=subject.network, partial=subject.policy.partial, **own)
    partial = "partial: " if report.partial else ""
    policy = subject.policy
    activation = f", {policy.activation}" if policy.activation.treats_activations else ""
    tokens = f", {policy.tokens}" if policy.tokens.treats_tokens else ""
    under = "" if args["model"] else f", {partial}{policy.padding}, {policy.subsampling}{activation}{tokens}"
    report.print(f"{subject.name} ({subject.source}){under}")  # first: a full disk must not cost what was measured
    options = args | {key: value for key, value in own.items() if key != "plain"} | subject.options | policy.to_dict()
    if report.protocol:  # what was measured, not the defaults of options that it decides
        card = report.protocol
        options |= {"mode": card["mode"], "offset_range": card["offset_range"], "metrics": list(card["metrics"])}
        del options["passes"]
    with writing(args["out"]):
        report.save(args["out"], command="measure", options=recorded(options), versions=versions())
    print(f"results: {args['out'] / 'measure.json'}")
    print(f"page: {args['out'] / 'measure.html'}")
    return 0


def make_parser() -> CommandParser:
    """Returns the parser of the words after `tinv measure`."""
    parser = CommandParser("measure", DESCRIPTION)
    parser.option("backbone", str | None, BACKBONE_HELP, None)
    parser.option("run", Path | None, "folder of a run, whose best checkpoint is measured as it was trained", None)
    parser.option("model", Path | None, MODEL_HELP, None)
    parser.option("trust_model", bool, TRUST_HELP, False)
    parser.option("images", Path, "folder of images, flat or of class folders")
    parser.option("out", Path, "folder for measure.json and figures")
    parser.option("input_size", int | tuple[int, int] | None, SIZE_HELP, None)
    parser.add("the network", NetworkSpec, {"in_channels"})
    parser.add("its policies", create_backbone, {"name", "in_channels", "input_size", "border"})
    parser.add("what is measured, and how", measure_network, {"network", "plain", "transform"})
    parser.old |= {"size": "input_size"}
    return parser


Size = tuple[int, int]


def _network(args: dict[str, Any]) -> tuple[Size, Callable[[Size], _Subject]]:
    """Returns (H, W) that the network sees, and what makes it once the images are known to be there."""
    asked = args["input_size"]
    if asked is None and args["protocol"]:
        asked = load_protocol(args["protocol"]).input_size
    size = (asked, asked) if isinstance(asked, int) else asked
    if args["run"]:
        trained = load_trained(args["run"])
        spec = trained.spec
        more = {"num_classes": spec.num_classes, "mean": trained.mean, "std": trained.std, "plain": trained.network}
        options = {"backbone": spec.backbone, "source": spec.source}
        subject = _Subject(spec.backbone, spec.source, trained.network, more, trained.policy, options)
        return size or trained.size, lambda _: subject
    if args["model"]:
        subject, own = _of_file(args)
        return size or own or (INPUT_SIZE, INPUT_SIZE), _sized(subject)
    published = published_size(args["source"], args["backbone"], args["weights"])
    return size or published or (INPUT_SIZE, INPUT_SIZE), lambda size: _of_source(args, size)


def _of_source(args: dict[str, Any], size: Size) -> _Subject:
    spec, policy = call(NetworkSpec, args), call(ConversionPolicy, args)
    plain = spec.plain(size)
    network = spec.under(policy, plain, size)
    mean, std = normalization_of(plain, args["mean"], args["std"])
    more = {"num_classes": spec.num_classes, "mean": mean, "std": std, "plain": plain}
    return _Subject(spec.backbone, spec.source, network, more, policy)


def _of_file(args: dict[str, Any]) -> tuple[_Subject, Size | None]:
    """Returns the network of a file, and (H, W) of its images if the file says it."""
    file = load_model_file(args["model"], args["trust_model"])
    if args["precision"] != "32" or args["device"] not in ("auto", "cpu"):
        key = "device" if args["precision"] == "32" else "precision"
        raise TinvError(f"--{key} {args[key]}: {file.path} runs on the CPU, in its own precision; leave it out")
    if args["mean"] is None and file.channels == 1:
        raise TinvError(f"{file.path} takes images of 1 channel; give its --mean and --std, one number each")
    if args["mean"] is None or args["std"] is None:
        print(f"note: {file.path} does not say how its images are normalized; --mean and --std do, else ImageNet's")
    mean, std = normalization_of(None, args["mean"], args["std"])
    if len(mean) != file.channels:
        raise TinvError(f"--mean has {len(mean)} numbers, and {file.path} takes images of {file.channels} channels")
    more = {"num_classes": None, "mean": mean, "std": std, "device": "cpu"}
    options = {"model": str(file.path), "backbone": None, "source": None, "num_classes": None}
    return _Subject(file.path.name, file.path.suffix[1:], file, more, options=options), file.input_size


def _sized(subject: _Subject) -> Callable[[Size], _Subject]:
    def made(size: Size) -> _Subject:
        subject.network.check_size(size)  # type: ignore[attr-defined]  # of a ModelFile
        return subject

    return made


def _check_named_once(args: dict[str, Any], given: set[str]) -> None:
    """Refuses no network, two of them, and options that describe one which is there already."""
    named = [name for name in ("backbone", "run", "model") if args[name]]
    if not named:
        raise TinvError("--backbone NAME, --run DIR or --model FILE is missing: the network that is measured")
    if args["trust_model"] and not args["model"]:
        raise TinvError("--trust-model is for the file of --model; leave it out")
    described = {*NetworkSpec.__dataclass_fields__, *ConversionPolicy.__dataclass_fields__} - {"seed"}
    for name, what, known in (
        ("run", "weights, policies, mean and std", {*described, "mean", "std", "model"}),
        ("model", "weights and classes, and takes no policies", described),
    ):
        twice = sorted(given & known)
        if args[name] and twice:
            raise TinvError(f"--{name} says which network, {what}; leave --{twice[0].replace('_', '-')} out")


def _print_notes(network: object, name: str) -> None:
    conversion = getattr(network, "conversion", None)
    if conversion is not None and not any(conversion.counts.values()):
        print(f"note: {conversion.policy} changes nothing in {name}")
    for note in getattr(conversion, "partial", []):
        print(f"note: partial: {note.layer} was not converted: {note.text}")
