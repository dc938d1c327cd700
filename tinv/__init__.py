"""tinv: how translation invariant is a convolutional network, and what in it breaks the invariance?

Importing this package imports no torch, so that the command line can answer at once; the heavy parts load when they
are first used.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tinv.models import create_backbone
    from tinv.surgery.convert import convert

from tinv.errors import LayerError, TinvError

__all__ = ["LayerError", "TinvError", "__version__", "convert", "create_backbone"]

try:
    __version__ = version("tinv")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"


def __getattr__(name: str) -> Any:
    if name == "create_backbone":
        from tinv.models import create_backbone

        return create_backbone
    if name == "convert":
        from tinv.surgery.convert import convert

        return convert
    raise AttributeError(f"module 'tinv' has no attribute {name!r}")
