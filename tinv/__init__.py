"""tinv: how translation invariant is a convolutional network, and what in it breaks the invariance?

Importing this package imports no torch, so that the command line can answer at once; the heavy parts load when they
are first used.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from tinv.errors import LayerError, TinvError
from tinv.lazy import exports

if TYPE_CHECKING:
    from tinv.models import create_backbone
    from tinv.policies.activation import ActivationPolicy
    from tinv.policies.conversion import ConversionPolicy
    from tinv.policies.padding import PaddingPolicy
    from tinv.policies.subsampling import SubsamplingPolicy
    from tinv.surgery.convert import convert

__all__ = [
    "ActivationPolicy",
    "ConversionPolicy",
    "LayerError",
    "PaddingPolicy",
    "SubsamplingPolicy",
    "TinvError",
    "__version__",
    "convert",
    "create_backbone",
]

try:
    __version__ = version("tinv")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"

__getattr__, _ = exports(
    __name__,
    {
        "tinv.models": ("create_backbone",),
        "tinv.surgery.convert": ("convert",),
        "tinv.policies.padding": ("PaddingPolicy",),
        "tinv.policies.subsampling": ("SubsamplingPolicy",),
        "tinv.policies.activation": ("ActivationPolicy",),
        "tinv.policies.conversion": ("ConversionPolicy",),
    },
)
