"""Weights that torchvision publishes, by their names: `IMAGENET1K_V1`, `IMAGENET1K_V2`, ..."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from tinv.errors import TinvError


def weights_name(source: str, backbone: str, weights: str | Path | None) -> str | None:
    """Returns the name of published weights, if that is what `weights` is: torchvision's, and no file is called so.

    Args:
        source: Source of the network.
        backbone: Name of the network.
        weights: Name of weights, or a file.

    Returns:
        The name; None for a file, which may be absent, and for networks of other sources.

    Raises:
        TinvError: For a name that the network has no weights of, with those that it has.

    Examples:
        >>> weights_name("torchvision", "resnet50", "IMAGENET1K_V2")
        'IMAGENET1K_V2'
        >>> weights_name("torchvision", "resnet50", "resnet50.pth") is None
        True
    """
    # names of files have a suffix or a folder; an existing file is meant whatever it is called
    found = re.fullmatch(r"(?:\w+_Weights\.)?(\w+)", str(weights)) if weights is not None else None
    if source != "torchvision" or found is None or Path(str(weights)).exists():
        return None
    names = _names(backbone)
    if names is None:  # no such network, which is said where it is built
        return None
    if found[1] not in names:
        there = ", ".join(names) or "none"
        raise TinvError(
            f"weights: torchvision's {backbone} has no weights {weights}, and no file is called so; it has {there}"
        )
    return found[1]


def published_config(backbone: str, name: str) -> dict[str, Any]:
    """Returns how images were laid out for weights of torchvision, under the keys of timm's `pretrained_cfg`.

    Args:
        backbone: Name of the network.
        name: Name of its weights.

    Returns:
        `mean` and `std` of the channels and `input_size` (C, H, W) in pixels; empty where the weights say none of it,
        as those for detection.
    """
    from torchvision import models

    transforms = models.get_model_weights(backbone)[name].transforms()
    size, mean, std = (getattr(transforms, key, None) for key in ("crop_size", "mean", "std"))
    if not size or not mean or not std or len(mean) != 3:
        return {}
    height, width = (size[0], size[-1])
    return {"mean": tuple(mean), "std": tuple(std), "input_size": (3, height, width)}


def published_size(source: str, backbone: str, weights: str | Path | None) -> tuple[int, int] | None:
    """Returns (H, W) in pixels of the images that named weights were evaluated on; None if that is not known.

    Raises:
        TinvError: For a name that the network has no weights of.
    """
    name = weights_name(source, backbone, weights)
    size = published_config(backbone, name).get("input_size") if name else None
    return None if size is None else (size[1], size[2])


def _names(backbone: str) -> list[str] | None:
    from torchvision import models

    if backbone not in models.list_models():
        return None
    try:
        return list(models.get_model_weights(backbone).__members__)
    except ValueError:  # a network without any
        return []
