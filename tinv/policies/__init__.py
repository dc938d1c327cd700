"""What is varied: how convolutions and pools treat the border (padding) and how maps are subsampled.

Names below load when they are first used, so that the command line can answer without torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

_NAMES = {
    "graph.converted": ("ConvertedNetwork",),
    "graph.account": ("Conversion",),
    "policies.settings": ("Settings",),
    "graph.analysis": ("Analysis", "analyse"),
    "graph.verdict": ("Verdict",),
    "nn.padding": ("PaddedConv1d", "PaddedConv2d", "PaddedConv3d", "PolicySequential", "fit", "pad", "padding_amounts"),
    "nn.pooling": ("Pool",),
    "nn.subsampling": ("AdaptivePolyphase", "BlurPool", "subsampler"),
    "policies.cards": ("PADDINGS", "PADDING_CARDS", "SUBSAMPLINGS", "SUBSAMPLING_CARDS"),
}
_HOME = {name: module for module, names in _NAMES.items() for name in names}
__all__ = sorted(_HOME)


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'tinv.policies' has no attribute {name!r}; it has {', '.join(__all__)}")
    return getattr(import_module(f"tinv.{_HOME[name]}"), name)


def __dir__() -> list[str]:
    return __all__
