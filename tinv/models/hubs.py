"""Networks of timm's two other sources: `hf-hub:OWNER/NAME`, on the Hugging Face hub, and `local-dir:FOLDER`.

Both hold `config.json`, which names the architecture, and weights. These are read here, and not by timm, some releases
of which unpickle them: `model.safetensors`, which is no pickle, or a file that torch.load(weights_only=True) takes.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from tinv.errors import TinvError, TinvWarning, unknown
from tinv.models.weights import read_state_dict
from tinv.utils.download import fetch, hub_or_its_cache
from tinv.utils.io import read_json, regular

HUB, FOLDER = ("hf-hub", "hf_hub"), "local-dir"
FILES = ("model.safetensors", "pytorch_model.bin", "pytorch_model.pth", "model.pth")
"""Names of weights in a folder, the first that is there."""


def is_hub_name(name: str) -> bool:
    """Returns whether the name of a network of timm is one of another source than timm's own list."""
    return name.partition(":")[0].lower() in (*HUB, FOLDER) and ":" in name


def hub_network(name: str, num_classes: int, in_channels: int, pretrained: bool, args: dict[str, Any]) -> nn.Module:
    """Builds a network of the hub, or of a folder; see `tinv.create_backbone` for the other arguments.

    Args:
        name: `hf-hub:OWNER/NAME`, with `@REVISION` if wanted, or `local-dir:FOLDER`.
        num_classes: Output classes.
        in_channels: Channels of the image.
        pretrained: Whether its weights are loaded; the configuration is read in any case.
        args: Options of the network itself.

    Raises:
        TinvError: If there is no such network, it is out of reach, or its files cannot be read.
    """
    prefix, _, place = name.partition(":")
    local = prefix.lower() == FOLDER
    state = torch.get_rng_state()
    config = _folder_config(name, Path(place)) if local else _hub_config(name, place)
    overlay: dict[str, Any] = {}
    there = config.get("num_classes") if pretrained else None
    classes = there if isinstance(there, int) and there > 0 else num_classes
    if pretrained:
        weights = _folder_weights(name, Path(place)) if local else _hub_weights(name, place, config)
        # with these, and without a source, timm looks nowhere else
        overlay = {"state_dict": weights, "source": "", "custom_load": False}
    torch.set_rng_state(state)
    network = _build(name, overlay, local, pretrained=pretrained, num_classes=classes, in_chans=in_channels, **args)
    if classes != num_classes:
        # afterwards: for other classes timm would take whatever weights there are
        message = f"{name} is for {classes} classes, here are {num_classes}: its last layer is replaced by a new one"
        warnings.warn(message, TinvWarning, stacklevel=5)
        cast(Any, network).reset_classifier(num_classes)
    if isinstance(getattr(network, "pretrained_cfg", None), dict):
        network.pretrained_cfg.pop("state_dict", None)  # type: ignore[union-attr, operator]  # it is loaded
    return network


def _folder_config(name: str, folder: Path) -> dict[str, Any]:
    if not folder.is_dir():
        raise TinvError(f"{name}: there is no folder {folder}")
    config = read_json(folder / "config.json")
    architecture = config.get("architecture") if isinstance(config, dict) else None
    if not isinstance(architecture, str):
        raise TinvError(f"{folder / 'config.json'} names no architecture of timm; it needs the key architecture")
    _check_architecture(name, architecture)
    own = config.get("pretrained_cfg") or {}
    if not isinstance(own, dict):
        raise TinvError(f"{folder / 'config.json'} is damaged: pretrained_cfg is no mapping")
    return {**config, **own}


def _hub_config(name: str, place: str) -> dict[str, Any]:
    from timm.models import load_model_config_from_hf

    def download() -> Any:
        with hub_or_its_cache():
            return load_model_config_from_hf(place)

    instead = "check the name, or download the folder and name it as local-dir:FOLDER"
    try:
        config, architecture, _ = fetch(download, f"the configuration of timm's {name}", instead)
    except (ValueError, KeyError, AssertionError) as error:  # what the client says of a name, and timm of the file
        reason = str(error).partition("\n")[0][:150]
        raise TinvError(f"{name} is no network of timm on the Hugging Face hub ({reason})") from error
    _check_architecture(name, architecture)
    return cast(dict[str, Any], config)


def _check_architecture(name: str, architecture: str) -> None:
    import timm

    if not timm.is_model(architecture):
        raise unknown(f"architecture of {name}:", architecture, timm.list_models())


def _folder_weights(name: str, folder: Path) -> dict[str, Tensor]:
    path = next((folder / file for file in FILES if (folder / file).exists()), None)
    if path is None:
        raise TinvError(f"{name} holds no weights ({', '.join(FILES)}); set pretrained: false for random ones")
    return _read_safetensors(path) if path.suffix == ".safetensors" else read_state_dict(path)


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    from safetensors.torch import load_file

    try:
        return load_file(regular(path))
    except TinvError:
        raise
    except Exception as error:  # its own class of errors is not public
        reason = str(error).partition("\n")[0][:120]
        raise TinvError(f"{path} cannot be read as weights ({reason})") from error


def _hub_weights(name: str, place: str, config: dict[str, Any]) -> dict[str, Tensor]:
    from timm.models import load_state_dict_from_hf

    file = config.get("hf_hub_filename") or "pytorch_model.bin"  # for which the client takes safetensors first

    def download() -> Any:
        with hub_or_its_cache():
            return load_state_dict_from_hf(place, file, weights_only=True)

    instead = "download the folder and name it as local-dir:FOLDER, or set pretrained: false"
    found = fetch(download, f"the pretrained weights of timm's {name}", instead)
    return cast(dict[str, Tensor], found)


def _build(name: str, overlay: dict[str, Any], local: bool, **options: Any) -> nn.Module:
    import timm

    def build() -> Any:
        if local:
            return timm.create_model(name, pretrained_cfg_overlay=overlay, **options)
        with hub_or_its_cache():  # it reads the configuration again, from the cache
            return timm.create_model(name, pretrained_cfg_overlay=overlay, **options)

    try:
        return cast(nn.Module, build())
    except (RuntimeError, KeyError, AssertionError, TypeError, ValueError) as error:  # over options and weights
        reason = " ".join(str(error).split())[:200]
        raise TinvError(f"timm's {name} cannot be built ({reason})") from error
