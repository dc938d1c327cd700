"""Weights from a file: a plain state dict, or one inside a checkpoint."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tinv.errors import TinvError
from tinv.models.features import classifier_name

HOLDERS = ("state_dict", "model", "model_state_dict")
PREFIXES = ("module.", "network.", "_orig_mod.")
"""Of networks that were wrapped when they were saved: by DDP, by tinv's task, by torch.compile."""


@contextmanager
def fetching(network: str, pretrained: bool) -> Iterator[None]:
    """Around what builds a network: says in one line why its pretrained weights could not be had.

    Args:
        network: Network whose weights they are.
        pretrained: Whether any are fetched; without, nothing is done.

    Raises:
        TinvError: If the source has no weights of this network, is out of reach, or sends a damaged file.
    """
    try:
        yield
    except (OSError, RuntimeError, pickle.UnpicklingError, EOFError) as error:
        if not pretrained:
            raise
        reason = str(error).partition("\n")[0] or type(error).__name__
        raise TinvError(
            f"the pretrained weights of {network} cannot be fetched ({reason}); give them in a file (weights), or set "
            "pretrained: false"
        ) from error


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Reads the weights in a file without running any code in it.

    Takes a state dict, or a checkpoint that holds one as `state_dict` or `model`; prefixes of wrappers are taken off.

    Raises:
        TinvError: If the file is not there, cannot be read so, or holds no state dict.
    """
    if not path.is_file():
        raise TinvError(f"no weights file {path}")
    try:
        content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # damaged files raise many kinds of error
        reason = str(error).partition("\n")[0]
        raise TinvError(f"{path} cannot be read as weights ({type(error).__name__}: {reason})") from error
    for holder in HOLDERS:
        if isinstance(content, dict) and isinstance(content.get(holder), dict):
            content = content[holder]
    if not isinstance(content, dict) or not content or not all(isinstance(v, Tensor) for v in content.values()):
        raise TinvError(f"{path} holds no state dict: names of parameters and their tensors")
    for prefix in PREFIXES:
        if all(str(key).startswith(prefix) for key in content):
            content = {str(key).removeprefix(prefix): value for key, value in content.items()}
    return dict(content)


def load_file(network: nn.Module, path: Path, any_head: bool = False) -> None:
    """Loads the weights in a file into a network.

    Args:
        network: Network that the weights are loaded into.
        path: Path of the file.
        any_head: Leaves the last layer as it is where the file's has another number of classes.

    Raises:
        TinvError: If they are those of another network; the keys that differ are listed.
    """
    found, own = read_state_dict(path), network.state_dict()
    if any_head:
        head = classifier_name(network) + "."
        if any(key in own and own[key].shape != value.shape for key, value in found.items() if key.startswith(head)):
            found = {key: own[key] if key.startswith(head) else value for key, value in found.items()}
    wrong = [
        *(f"{key} is missing" for key in own if key not in found and not key.endswith("num_batches_tracked")),
        *(f"{key} is not in this network" for key in found if key not in own),
        *(
            f"{key} is {_shape(found[key])}, here {_shape(own[key])}"
            for key in own
            if key in found and found[key].shape != own[key].shape
        ),
    ]
    if wrong:
        more = f" and {len(wrong) - 5} more" if len(wrong) > 5 else ""
        raise TinvError(f"{path} holds the weights of another network: {'; '.join(wrong[:5])}{more}")
    network.load_state_dict(found, strict=False)


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a number"
