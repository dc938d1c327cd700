"""What a network knows of an image just before it decides: the input of its last layer."""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn

from tinv.errors import TinvError


def classifier_name(network: nn.Module) -> str:
    """Returns the path of the layer that makes the logits: the last linear layer, else the last convolution.

    Raises:
        TinvError: If the network holds neither.
    """
    for kind in (nn.Linear, nn.Conv2d):
        found: list[str] = [name for name, module in network.named_modules() if isinstance(module, kind)]
        # what policies have added comes last, and makes no logits
        names = [name for name in found if not is_added(name)]
        if names and names[-1]:
            return names[-1]
    raise TinvError(
        f"the network ({type(network).__name__}) holds no linear layer and no 2-D convolution, whose input "
        "would be its features"
    )


def is_added(name: str) -> bool:
    """Returns whether a module or a tensor of a network, by its path, is one that a policy has added."""
    return "policy_layers" in name.split(".")


def as_logits(output: Any) -> Tensor:
    """Returns what a network gives for a batch, if that is one vector (N, classes) for each image.

    Raises:
        TinvError: If it is anything else, as that of a network for detection or segmentation.
    """
    if isinstance(output, Tensor) and output.dim() == 2:
        return output
    article = "an" if type(output).__name__[0] in "AEIOU" else "a"
    is_map = isinstance(output, Tensor)
    what = f"a tensor of {output.dim()} axes" if is_map else f"{article} {type(output).__name__}"
    raise TinvError(
        f"the network returns {what}, not logits (N, classes) for each image; choose one that classifies images"
    )


def logits_and_features(network: nn.Module, images: Tensor) -> tuple[Tensor, Tensor]:
    """Runs the network once.

    Args:
        network: Maps (N, C, H, W) to (N, classes).
        images: (N, C, H, W).

    Returns:
        The logits (N, classes), and the input of the last layer, flattened to (N, features).
    """
    seen: list[Tensor] = []
    layer = network.get_submodule(classifier_name(network))
    handle = layer.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0]))
    try:
        logits = network(images)
    finally:
        handle.remove()
    return logits, seen[0].flatten(1)
