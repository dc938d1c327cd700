"""Stability for any network without training: modules that choose by content which pixels a network is shown.

A network inside one of them is not changed. The modules know nothing of its layers, so that any callable works.
"""

from __future__ import annotations

from tinv.utils.lazy import exports

__getattr__, __all__ = exports(
    __name__,
    {
        "tinv.select.anchor": ("PatchAnchor",),
        "tinv.select.circular": ("CircularCanonical",),
        "tinv.select.crop": ("CenterCrop", "CropSelect"),
        "tinv.select.planner": ("expected_consistency", "range_for"),
        "tinv.select.scores": ("LaplacianEnergy", "LocalScore", "RandomFilter"),
        "tinv.select.selection": ("Selection",),
    },
)
