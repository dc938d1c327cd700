"""One factory for the papers' own networks and for every network of timm and torchvision, under a policy."""

from __future__ import annotations

import fnmatch
import inspect
from dataclasses import replace
from pathlib import Path
from typing import Any, cast, get_args

import torch
from torch import Tensor, nn

from tinv.errors import TinvError, unknown
from tinv.graph.converted import geometry_of
from tinv.models.border import widen_border
from tinv.models.published import weights_name
from tinv.models.sources import Source, own_backbones, own_network, timm_network, torchvision_network
from tinv.models.trunk_and_head import TrunkAndHead
from tinv.models.weights import load_file
from tinv.policies.activation import ActivationPolicy
from tinv.policies.cards import Activation, Padding, Subsampling, Tokens
from tinv.policies.conversion import Axes, BlurPadding, ConversionPolicy, PoolPolicy, Stem
from tinv.policies.padding import PaddingPolicy, padding_policy
from tinv.policies.subsampling import SubsamplingPolicy
from tinv.policies.tokens import TokenPolicy
from tinv.surgery.convert import convert_if_needed


def list_backbones(source: Source = "tinv", pattern: str = "*") -> list[str]:
    """Returns the names of the networks of a source.

    Args:
        source: `tinv`, `timm` or `torchvision`.
        pattern: Pattern of names, such as `resnet*`.

    Raises:
        TinvError: For an unknown source.
    """
    if source == "tinv":
        names = own_backbones()
    elif source == "timm":
        import timm

        names = timm.list_models()
    elif source == "torchvision":
        from torchvision import models

        names = models.list_models()
    else:
        raise unknown("source", source, get_args(Source))
    return sorted(fnmatch.filter(names, pattern))


def create_backbone(
    name: str,
    source: Source = "tinv",
    *,
    num_classes: int,
    in_channels: int = 3,
    input_size: tuple[int, ...] = (32, 32),
    padding: Padding | PaddingPolicy = "keep",
    subsampling: Subsampling | SubsamplingPolicy = "keep",
    pool: PoolPolicy = "keep",
    stem: Stem = "keep",
    axes: Axes = "space",
    blur_padding: BlurPadding = "as_padding",
    activation: Activation | ActivationPolicy = "keep",
    partial: bool = False,
    tokens: Tokens | TokenPolicy = "keep",
    pretrained: bool = False,
    weights: str | Path | None = None,
    border: int = 0,
    **backbone_args: Any,
) -> nn.Module:
    """Builds a plain network and puts it under padding, subsampling, activation and token policies, by `tinv.convert`.

    Args:
        name: Name of the network in its source; of timm also `hf-hub:OWNER/NAME` or `local-dir:FOLDER`.
        source: `tinv` (the papers' own small networks), `timm` or `torchvision`.
        num_classes: Output classes.
        in_channels: Channels of the image.
        input_size: (H, W) of the image in pixels, (T, H, W) of a clip; a network too large for it is refused here.
        padding: Policy of every convolution with a kernel larger than one pixel, by name or as an object.
        subsampling: Policy of every layer with a stride larger than one pixel, by name or as an object.
        pool: Padding of the pools, see `tinv.convert`.
        stem: Whether the stride of the first convolution is kept.
        axes: What the policies treat in clips.
        blur_padding: What the border of blurs holds.
        activation: Policy of every activation of a map with positions, by name or as an object.
        partial: Whether layers that cannot take the policies are left, see `tinv.convert`.
        tokens: Where the patches and windows of a vision transformer begin, by name or as an object.
        pretrained: Loads the source's default weights (downloads them once).
        weights: A file that the pretrained weights are taken from, instead of the source's; its last layer is left out
            if it is for other classes. Of torchvision also the name of published weights, such as `IMAGENET1K_V1`.
        border: Zeros around the image in pixels a side, see `tinv.models.border.widen_border`.
        **backbone_args: The network's own options, such as `kernel_size`.

    Returns:
        A module that maps (N, in_channels, H, W) to (N, num_classes).

    Raises:
        TinvError: For an unknown name, option or policy, a kernel larger than the map it runs on, and a policy that
            the network cannot take.
    """
    policy = ConversionPolicy(padding, subsampling, pool, stem, axes, blur_padding, activation, partial, tokens)
    if source not in get_args(Source):
        raise unknown("source", source, get_args(Source))
    if weights is not None and not pretrained:
        raise TinvError(f"weights={weights} is where pretrained weights are taken from; set pretrained: true with it")
    named = weights_name(source, name, weights)
    pretrained = pretrained and weights is None
    if border < 0:
        raise TinvError(f"border must be 0 pixels or more, not {border}")
    common = {"num_classes": num_classes, "in_channels": in_channels, "pretrained": pretrained}
    if source == "tinv":
        network = own_network(name, common, policy, backbone_args)
        title = name
    else:
        if source == "timm":
            network = timm_network(name, num_classes, in_channels, pretrained, backbone_args)
        else:
            network = torchvision_network(name, num_classes, in_channels, named or pretrained, backbone_args)
        title = f"{source}'s {name}"
    network = under_policies(network, title, in_channels, tuple(input_size), policy)
    if weights is not None and named is None:
        load_file(network, Path(weights), any_head=True)
    widen_border(network, border)
    return network


def backbone_options(backbone_args: dict[str, Any] | None, **options: Any) -> dict[str, Any]:
    """Returns options of `create_backbone` together with those of the network itself.

    Args:
        backbone_args: Options of the network itself.
        **options: Options that have a place of their own.

    Raises:
        TinvError: Naming a key of `backbone_args` that has a place of its own.
    """
    own = set(inspect.signature(create_backbone).parameters) - {"backbone_args"}
    for key in backbone_args or {}:
        if key in own | _SOURCES_NAMES:
            where = _SET_BY.get(key, f"set {key} beside backbone_args")
            raise TinvError(f"backbone_args.{key}: it is not an option of the network itself; {where}")
    return {**options, **(backbone_args or {})}


_SOURCES_NAMES = {"in_chans", "features_only", "pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path"}
"""Arguments of timm's factory that would make another network than the rest of the options describe."""
_SET_BY = {
    "name": "set backbone beside backbone_args",
    "in_channels": "the data says how many channels there are",
    "in_chans": "the data says how many channels there are",
    "input_size": "the data says how large images are",
    "features_only": "tinv needs the network's classes",
    **dict.fromkeys(
        ("pretrained_cfg", "pretrained_cfg_overlay", "checkpoint_path"), "name a file of weights with weights"
    ),
}


def under_policies(
    network: nn.Module, name: str, in_channels: int, size: tuple[int, ...], policy: ConversionPolicy
) -> nn.Module:
    """Returns a network under policies, by `tinv.convert`, or itself if they change nothing.

    The head of a `TrunkAndHead` is made here, when the size of its trunk's last map is known.

    Args:
        network: Maps (N, in_channels, *size).
        name: Name of the network, for messages.
        in_channels: Channels of the image.
        size: (H, W) in pixels, or (T, H, W).
        policy: Policy that the network is put under.

    Raises:
        TinvError: If the network cannot take it, or such images.
    """
    if policy.padding.amount == "keep" and not policy.keeps_all and hasattr(network, "own_padding"):
        policy = replace(policy, padding=padding_policy(cast(str, network.own_padding)))
    example = torch.zeros(2, in_channels, *size)
    try:
        if not isinstance(network, TrunkAndHead):
            return convert_if_needed(network, example, policy)
        trunk = convert_if_needed(getattr(network, network.trunk_name), example, policy)
        setattr(network, network.trunk_name, trunk)
        network.make_head(_last_map(trunk, example[:1]), policy)
        if hasattr(trunk, "conversion"):
            network.conversion = trunk.conversion
        return network
    except TinvError as error:
        raise TinvError(f"{name} on {'x'.join(map(str, size))} images: {error}") from error


def _last_map(trunk: nn.Module, example: Tensor) -> Tensor:
    """Returns what a trunk makes of an image, without values; an error names the layer that cannot run."""
    geometry = geometry_of(trunk, example)
    [maps] = next(node for node in geometry.graph.nodes if node.op == "output").all_input_nodes
    return cast(Tensor, geometry.values[maps])
