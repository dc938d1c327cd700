"""Networks of any kind: modules of torch, and other callables, which are called and nothing else."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from tinv.errors import TinvError
from tinv.models.features import as_logits
from tinv.utils.memory import NO_MEMORY

Network = Callable[[Tensor], Any]
"""Maps images (N, C, H, W) to one vector each, (N, F): a module of torch or any other callable."""

N = TypeVar("N", bound=str)


class CallableNetwork(nn.Module):
    """Stands for a callable that is no module: it has no layers, and is neither moved nor set to another mode.

    Args:
        function: Maps images (N, C, H, W) to (N, F).
    """

    def __init__(self, function: Network) -> None:
        super().__init__()
        self.function = function

    def forward(self, images: Tensor) -> Tensor:
        return vectors(self.function(images), len(images)).to(images.device)


def as_module(network: Network) -> nn.Module:
    """Returns a network itself if it is a module, else the module that calls it.

    Raises:
        TinvError: If it cannot be called.
    """
    if isinstance(network, nn.Module):
        return network
    if not callable(network):
        raise TinvError(f"network is {_article(network)}, which cannot be called; give a module or a function")
    return CallableNetwork(network)


def vectors(output: Any, count: int) -> Tensor:
    """Returns what a network gives for a batch, if that is one vector (N, F) for each image.

    Args:
        output: What the network returned.
        count: Images of the batch.

    Raises:
        TinvError: If it is anything else.
    """
    logits = as_logits(output)
    if len(logits) != count:
        raise TinvError(f"the network returns {len(logits)} vectors for a batch of {count} images, not one for each")
    return logits


def refuse_without_layers(names: Collection[N], needing: Collection[N], network: Network) -> None:
    """Refuses measures that look into a network, or change it, where there is no module.

    Args:
        names: Measures that were asked for.
        needing: Measures that need a module.
        network: The network.

    Raises:
        TinvError: Naming the measures.
    """
    found = [name for name in names if name in needing]
    if found and not isinstance(network, nn.Module):
        raise TinvError(
            f"metrics: {', '.join(found)} cannot be measured of {_article(network)}: its layers can neither be seen "
            "nor changed; leave them out, or give an nn.Module"
        )


def outputs_of(network: nn.Module, example: Tensor, device: torch.device) -> int:
    """Returns how many numbers a network gives for each image; it is set to evaluation mode and moved.

    Args:
        network: Maps (N, C, H, W) to (N, F).
        example: One image (1, C, H, W).
        device: Device on which it is run.

    Raises:
        TinvError: If it cannot take the image, or returns no vectors of two numbers or more.
    """
    network.eval().to(device)
    try:
        with torch.no_grad():
            output = network(example.to(device))
    except TinvError:
        raise
    except Exception as error:  # what a network raises over its input
        reason = str(error).partition("\n")[0]
        if NO_MEMORY.search(reason):
            raise
        raise TinvError(
            f"the network cannot take an image of {_shape(example.shape[1:])} ({type(error).__name__}: {reason[:150]})"
        ) from error
    count = vectors(output, len(example)).shape[1]
    if count < 2:
        raise TinvError(
            f"the network returns {count} number for each image, of which the largest is always the same; let it "
            "return one for each class, also where there are two"
        )
    return count


def _shape(shape: Sequence[int]) -> str:
    return "x".join(map(str, shape))


def _article(network: object) -> str:
    name = type(network).__name__
    return f"{'an' if name[0] in 'AEIOUaeiou' else 'a'} {name}"
