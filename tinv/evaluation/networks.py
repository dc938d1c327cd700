"""Which network is looked at, with which weights and how it runs: the options that `measure` and `probe` share."""

from __future__ import annotations

import argparse
import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tinv.errors import TinvError
from tinv.policies.arguments import policies_of

if TYPE_CHECKING:
    from torch import nn


def add_network_options(parser: argparse.ArgumentParser) -> Any:
    """Adds the options that say which network and weights; returns their group."""
    network = parser.add_argument_group("the network")
    network.add_argument("--source", choices=("timm", "torchvision", "tinv"), default="timm", help="default: timm")
    network.add_argument("--num-classes", type=int, default=1000, help="default: 1000")
    network.add_argument("--pretrained", action="store_true", help="the source's published weights (downloaded once)")
    network.add_argument("--weights", type=Path, metavar="FILE", help="a state dict; without any, weights are random")
    network.add_argument("--seed", type=int, default=0, help="of random weights, shifts and intervals")
    return network


def add_normalisation_options(group: Any) -> None:
    """Adds the options that say how pixels become the network's numbers."""
    group.add_argument("--mean", help="three numbers with commas; the network's own, else ImageNet's, if left out")
    group.add_argument("--std", help="three numbers with commas, above 0; defaults as for --mean")


def add_running_options(parser: argparse.ArgumentParser, batch_size: int, written: str) -> None:
    """Adds the options that say how the network runs and where results go; `written` names them."""
    run = parser.add_argument_group("how it runs")
    run.add_argument("--batch-size", type=int, default=batch_size)
    run.add_argument("--workers", type=int, default=0, help="processes that read images; default 0: this one")
    run.add_argument("--device", default="auto", help="cpu, cuda, cuda:1 ...; a GPU if there is one")
    run.add_argument(
        "--precision",
        choices=("32", "bf16"),
        default="32",
        help="bf16: faster on GPUs and on CPUs with AMX; 32 shows exactness",
    )
    run.add_argument("--out", type=Path, required=True, metavar="DIR", help=f"folder for {written}")


def prepare(args: argparse.Namespace, results: str) -> None:
    """Makes the folder for results and takes earlier ones of that name away, so that none is mistaken for new.

    Raises:
        TinvError: if the folder cannot be written to, or the batch size or the number of workers makes no sense.
    """
    for name, least in (("batch_size", 1), ("workers", 0)):
        if getattr(args, name) < least:
            raise TinvError(f"--{name.replace('_', '-')} must be at least {least}, not {getattr(args, name)}")
    try:
        args.out.mkdir(parents=True, exist_ok=True)
        (args.out / results).unlink(missing_ok=True)
    except OSError as error:
        raise TinvError(f"cannot write to {args.out} ({error.strerror}); choose another --out") from error


def normalisation(args: argparse.Namespace) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Returns mean and standard deviation of the channels: as given, else the network's own, else ImageNet's."""
    from tinv.data.image_files import IMAGENET_MEAN, IMAGENET_STD

    own: dict[str, Any] = {}
    if args.source == "timm":
        import timm

        if timm.is_model(args.backbone) and (card := timm.get_pretrained_cfg(args.backbone)) is not None:
            own = {"mean": card.mean, "std": card.std}
    found = []
    for name, default in (("mean", IMAGENET_MEAN), ("std", IMAGENET_STD)):
        text = getattr(args, name)
        try:
            values = tuple(float(part) for part in text.split(",")) if text else tuple(own.get(name, default))
        except ValueError as error:
            raise TinvError(f"--{name} {text} is not three finite numbers such as 0.485,0.456,0.406") from error
        if len(values) != 3 or not all(map(math.isfinite, values)) or (name == "std" and min(values) <= 0):
            above = " above 0" if name == "std" else ""
            raise TinvError(f"--{name} {text} is not three finite numbers{above} such as 0.485,0.456,0.406")
        found.append(values)
    return found[0], found[1]


def plain_network(args: argparse.Namespace, size: tuple[int, int]) -> nn.Module:
    """Returns the network as its source has it, with the weights asked for."""
    import torch

    from tinv.models import create_backbone
    from tinv.models.weights import load_file

    if args.weights is not None and args.pretrained:
        raise TinvError("--weights and --pretrained both say which weights; give one of them")
    torch.manual_seed(args.seed)
    plain = create_backbone(
        args.backbone, args.source, num_classes=args.num_classes, input_size=size, pretrained=args.pretrained
    )
    if args.weights is not None:
        load_file(plain, args.weights)
    return plain


def with_policies(
    plain: nn.Module, args: argparse.Namespace, size: tuple[int, int], padding: str, pool: str
) -> nn.Module:
    """Returns the network under policies, with the weights of the plain one, which it is itself if all are `keep`."""
    from tinv.models import create_backbone, under_policies
    from tinv.policies.conversion import ConversionPolicy

    options: dict[str, Any] = {**policies_of(args), "padding": padding, "pool": pool}
    policy = ConversionPolicy(**options)
    if policy.keeps_all:
        return plain
    if args.source != "tinv":
        return under_policies(plain, f"{args.source}'s {args.backbone}", 3, size, policy)
    # a network of ours may depend on the policy, and its head on the size of its last map
    network = create_backbone(args.backbone, num_classes=args.num_classes, input_size=size, **options)
    network.load_state_dict(plain.state_dict())
    return network


def networks(args: argparse.Namespace, size: tuple[int, int]) -> tuple[nn.Module, nn.Module]:
    """Returns the network as its source has it, and under the policies asked for, with the same weights."""
    plain = plain_network(args, size)
    network = with_policies(plain, args, size, args.padding, args.pool)
    conversion = getattr(network, "conversion", None)
    if conversion is not None and not any(conversion.counts.values()):
        print(f"note: {conversion.policy} changes nothing in {args.backbone}")
    for note in getattr(conversion, "partial", []):
        print(f"note: partial: {note.layer} was not converted: {note.text}")
    return plain, network
