"""Where plain networks come from: `tinv/models/backbones/`, timm and torchvision."""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any, Literal, cast, get_type_hints

from torch import nn

from tinv.errors import TinvError, unknown
from tinv.models.features import classifier_name
from tinv.models.hubs import hub_network, is_hub_name
from tinv.models.published import published_config
from tinv.models.weights import build_with_weights
from tinv.policies.conversion import ConversionPolicy
from tinv.utils.arguments import misfit
from tinv.utils.download import hub_or_its_cache

Source = Literal["tinv", "timm", "torchvision"]


def own_backbones() -> list[str]:
    """Returns the names of the networks of source `tinv`."""
    return sorted(path.stem for path in (Path(__file__).parent / "backbones").glob("*.py") if path.stem != "__init__")


@contextmanager
def _options_checked(name: str, args: dict[str, Any]) -> Iterator[None]:
    """Says in one line that the source's own builder could not take the options given."""
    try:
        yield
    except (TypeError, ValueError) as error:
        if not args:
            raise
        reason = str(error).partition("\n")[0]
        raise TinvError(f"{name} cannot be built with backbone_args {args} ({reason})") from error


def own_network(name: str, common: dict[str, Any], policy: ConversionPolicy, args: dict[str, Any]) -> nn.Module:
    """Builds a plain network of ours; one that takes `policy` is given it.

    Args:
        name: Name of the network, and of its file in `tinv/models/backbones/`.
        common: Arguments that every network may take: num_classes, in_channels and pretrained.
        policy: Policy that the network will be put under.
        args: Options of the network itself.

    Raises:
        TinvError: If there is none of that name, or it does not take the options.
    """
    if name not in own_backbones():
        raise unknown("backbone of source tinv", name, own_backbones())
    builder = getattr(importlib.import_module(f"tinv.models.backbones.{name}"), name)
    options = get_type_hints(builder)
    if common["pretrained"] and "pretrained" not in options:
        raise TinvError(
            f"there are no pretrained weights of {name} to fetch; set pretrained: false, name a file of them with "
            "weights, or use source timm"
        )
    given = {**common, "policy": policy}
    own = sorted(set(options) - {*given, "return"})
    for key, value in args.items():
        if key not in own:
            raise unknown(f"key backbone_args.{key} of {name}:", key, own)
        if (reason := misfit(f"backbone_args.{key}", value, options[key])) is not None:
            raise TinvError(reason)
    taken = {key: value for key, value in given.items() if key in options}
    with _options_checked(name, args):
        return build_with_weights(name, common["pretrained"], lambda: builder(**taken, **args))


def timm_network(name: str, num_classes: int, in_channels: int, pretrained: bool, args: dict[str, Any]) -> nn.Module:
    """Builds a network of timm, its `hf-hub:` and `local-dir:` names too; see `tinv.create_backbone` for the arguments.

    Raises:
        TinvError: If there is none of that name, it cannot take the options, or its weights cannot be had.
    """
    import timm

    if is_hub_name(name):
        return hub_network(name, num_classes, in_channels, pretrained, args)
    if not timm.is_model(name):
        raise unknown("backbone of source timm", name, timm.list_models())
    own: dict[str, Any] = {"pretrained": pretrained, "num_classes": num_classes, "in_chans": in_channels}

    def build() -> nn.Module:
        with hub_or_its_cache() if pretrained else nullcontext():
            return timm.create_model(name, **own, **args)

    with _options_checked(f"timm's {name}", args):
        return build_with_weights(f"timm's {name}", pretrained, build)


def torchvision_network(
    name: str, num_classes: int, in_channels: int, pretrained: bool | str, args: dict[str, Any]
) -> nn.Module:
    """Builds a network of torchvision; see `tinv.create_backbone` for the arguments.

    Args:
        name: Name of the network.
        num_classes: Output classes.
        in_channels: Channels of the image.
        pretrained: Whether the default weights are loaded, or the name of others, such as `IMAGENET1K_V1`.
        args: Options of the network itself.

    Raises:
        TinvError: If there is none of that name, it cannot take the options, or its weights cannot be had.
    """
    from torchvision import models

    if name not in models.list_models():
        raise unknown("backbone of source torchvision", name, models.list_models())
    if in_channels != 3:
        raise TinvError(f"torchvision's {name} takes 3 channels, the images have {in_channels}; use source timm")

    which = pretrained if isinstance(pretrained, str) else "DEFAULT"

    def build() -> nn.Module:
        if not pretrained:
            # a detection network would fetch weights of its backbone
            own = inspect.signature(models.get_model_builder(name)).parameters
            plain = {"weights_backbone": None} if "weights_backbone" in own else {}
            return cast(nn.Module, models.get_model(name, num_classes=num_classes, **plain, **args))
        # its builder unpickles whatever lies in torch.hub's folder: read once before as plain tensors, or not at all
        weights = models.get_model_weights(name)[which]
        weights.get_state_dict(progress=True, check_hash=True, weights_only=True)
        return cast(nn.Module, models.get_model(name, weights=weights, **args))

    with _options_checked(f"torchvision's {name}", args):
        network = build_with_weights(f"torchvision's {name}", bool(pretrained), build)
    if pretrained:
        _replace_head(network, num_classes)
    if isinstance(pretrained, str) and (config := published_config(name, pretrained)):
        network.pretrained_cfg = config  # type: ignore[assignment]  # where timm's networks have it
    return network


def _replace_head(network: nn.Module, num_classes: int) -> None:
    """Puts a fresh last layer on a pretrained network whose classes are not the ones asked for."""
    path = classifier_name(network)
    head = network.get_submodule(path)
    parent = network.get_submodule(path.rpartition(".")[0])
    assert isinstance(head, nn.Linear | nn.Conv2d)
    if len(head.weight) == num_classes:
        return
    fresh: nn.Module
    if isinstance(head, nn.Linear):
        fresh = nn.Linear(head.in_features, num_classes, bias=head.bias is not None)
    else:
        fresh = nn.Conv2d(head.in_channels, num_classes, head.kernel_size, bias=head.bias is not None)  # type: ignore[arg-type]
    setattr(parent, path.rpartition(".")[2], fresh)
