"""Weights from a file: a plain state dict, or one inside a checkpoint."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from tinv.errors import TinvError, TinvWarning
from tinv.models.features import classifier_name, is_added
from tinv.utils.download import fetch
from tinv.utils.io import regular

HOLDERS = ("state_dict", "model", "model_state_dict")
PREFIXES = ("module.", "network.", "_orig_mod.")
"""Of networks that were wrapped when they were saved: by DDP, by tinv's task, by torch.compile."""


def build_with_weights(network: str, pretrained: bool, build: Callable[[], nn.Module]) -> nn.Module:
    """Builds a network; says in one line why its pretrained weights could not be had.

    Args:
        network: Name of the network, for the error message.
        pretrained: Whether its weights are fetched.
        build: Function that fetches and builds; a second try starts with the same random numbers.

    Raises:
        TinvError: If the source has no weights of this network, is out of reach, or sends a damaged file.
    """
    if not pretrained:
        return build()
    state = torch.get_rng_state()

    def download() -> nn.Module:
        torch.set_rng_state(state)
        return build()

    instead = "give them in a file (weights), or set pretrained: false"
    return fetch(download, f"the pretrained weights of {network}", instead)


def read_torch_file(path: Path, what: str) -> dict[Any, Any]:
    """Reads a file that torch has saved, without running any code in it.

    Args:
        path: Path of the file.
        what: What it is read as, such as "weights".

    Raises:
        TinvError: If it is not there, is no regular file, cannot be read so, or holds no mapping.
    """
    try:
        with warnings.catch_warnings():
            # some releases of torch warn of a file that they then refuse, and the error says all of it
            warnings.simplefilter("ignore", UserWarning)
            content = torch.load(regular(path), map_location="cpu", weights_only=True)
    except TinvError:
        raise
    except Exception as error:  # damaged files raise many kinds of error
        reason = str(error).partition("\n")[0][:120] or type(error).__name__
        if re.search("weights.only", reason, re.IGNORECASE):  # torch's advice is to run the file
            reason = "it is damaged, of another kind, or holds code, which is never run"
        raise TinvError(f"{path} cannot be read as {what} ({reason})") from error
    if not isinstance(content, dict):
        raise TinvError(f"{path} cannot be read as {what}: it holds a {type(content).__name__}")
    return content


def differences(own: Mapping[str, Tensor], found: Mapping[Any, Any]) -> str:
    """Returns in what weights from a file differ from those of a network, the first three things; empty if in nothing.

    Args:
        own: State dict of the network.
        found: What the file holds.
    """
    wrong = [f"{key} is missing" for key in own if key not in found and not key.endswith("num_batches_tracked")]
    for key, value in found.items():
        if key not in own:
            wrong.append(f"{key} is not in this network")
        elif not isinstance(value, Tensor) or value.layout != torch.strided or value.is_meta:
            wrong.append(f"{key} is no tensor of numbers")
        elif value.shape != own[key].shape:
            wrong.append(f"{key} is {_shape(value)}, here {_shape(own[key])}")
        elif not value.isfinite().all():
            wrong.append(f"{key} holds numbers that are not finite")
    more = f" and {len(wrong) - 3} more" if len(wrong) > 3 else ""
    return f"{'; '.join(wrong[:3])}{more}"


def without_policies(own: Mapping[str, Tensor], found: Mapping[Any, Any], path: Path) -> dict[str, Tensor]:
    """Returns the weights of policies that a file of an unconverted network lacks, as they are, and says so.

    Args:
        own: State dict of the network.
        found: What the file holds; where it holds some weights of policies, nothing is returned, and what is missing is
            an error.
        path: Path of the file, for the message.
    """
    fresh = {key: value for key, value in own.items() if is_added(key)}
    if not fresh or any(isinstance(key, str) and is_added(key) for key in found):
        return {}
    count = sum(value.numel() for value in fresh.values())
    _warn(
        f"{path} is of a network without policies that learn: {count:,} parameters in {len(fresh)} tensors under "
        "policy_layers are new, and not trained"
    )
    return fresh


def load_learned(network: nn.Module, path: Path, policy: str) -> bool:
    """Loads into a network what its policies have learned, if a file holds that; returns whether it does.

    Args:
        network: Network that has the others already.
        path: Path of the file.
        policy: Name of the network's policies, for messages.

    Raises:
        TinvError: If they were learned by policies that are not the network's.
    """
    found, own = read_state_dict(path), network.state_dict()
    learned = {key: value for key, value in found.items() if is_added(str(key))}
    wrong = differences({key: value for key, value in own.items() if is_added(key)}, learned)
    if learned and wrong:
        raise TinvError(f"{path} was trained under policies that are not {policy}: {wrong}; give the same policies")
    network.load_state_dict(learned, strict=False)
    return bool(learned)


def warn_of_untrained(name: str, network: nn.Module) -> None:
    """Warns of weights that policies added to a pretrained network, if there are any: they are not trained."""
    conversion = getattr(network, "conversion", None)
    if conversion is not None and conversion.fresh:
        _warn(f"{name} under {conversion.policy}: {conversion.fresh_summary} are not pretrained")


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Reads the weights in a file without running any code in it.

    Takes a state dict, or a checkpoint that holds one as `state_dict` or `model`; prefixes of wrappers are taken off.

    Raises:
        TinvError: If the file is not there, cannot be read so, or holds no state dict.
    """
    content = read_torch_file(path, "weights")
    for holder in HOLDERS:
        if isinstance(content.get(holder), dict):
            content = content[holder]
    if not content or not all(isinstance(v, Tensor) for v in content.values()):
        raise TinvError(f"{path} holds no state dict: names of parameters and their tensors")
    for prefix in PREFIXES:
        if all(str(key).startswith(prefix) for key in content):
            content = {str(key).removeprefix(prefix): value for key, value in content.items()}
    return dict(content)


def load_file(network: nn.Module, path: Path, any_head: bool = False, without_learned: bool = False) -> None:
    """Loads the weights in a file into a network.

    Those of an unconverted network load into a converted one; what its policies learn stays as it is, and a warning
    says so.

    Args:
        network: Network that the weights are loaded into.
        path: Path of the file.
        any_head: Leaves the last layer as it is where the file's has another number of classes, and says so in a
            warning.
        without_learned: Leaves out what policies have learned (`policy_layers.*`), for the unconverted network.

    Raises:
        TinvError: If they are those of another network; the keys that differ are listed.
    """
    found, own = read_state_dict(path), network.state_dict()
    if without_learned:
        found = {key: value for key, value in found.items() if not is_added(str(key))}
    found |= without_policies(own, found, path)
    if any_head:
        head = classifier_name(network) + "."
        last = {key: value.shape for key, value in found.items() if key.startswith(head) and key in own and value.dim()}
        classes = {shape[0] for shape in last.values()}
        if len(classes) == 1 and all(shape[1:] == own[key].shape[1:] for key, shape in last.items()):
            fresh = {key: own[key] for key, shape in last.items() if shape != own[key].shape}
            found |= fresh
            if fresh and not differences(own, found):
                _say_new_head(path, head[:-1], classes.pop(), len(next(iter(fresh.values()))))
    if wrong := differences(own, found):
        raise TinvError(f"{path} holds the weights of another network: {wrong}; set backbone to the network it is of")
    network.load_state_dict(found, strict=False)


def _say_new_head(path: Path, head: str, there: int, here: int) -> None:
    _warn(f"{path} is for {there} classes, here are {here}: its last layer, {head}, is replaced by a new one")


def _warn(message: str) -> None:
    from lightning.pytorch.utilities import rank_zero_warn  # slow to import, and needed here alone

    rank_zero_warn(message, category=TinvWarning)


def _shape(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "a number"
