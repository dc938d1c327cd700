"""tinv: how translation invariant is a convolutional network, and what in it breaks the invariance?

Importing this package imports no torch, so that the command line can answer at once; the heavy parts load when they
are first used.
"""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from typing import TYPE_CHECKING

from tinv.deprecation import keep_old_modules
from tinv.errors import LayerError, TinvError
from tinv.utils.lazy import exports

if TYPE_CHECKING:
    from tinv import callbacks as callbacks
    from tinv import select as select
    from tinv.evaluation.invariance import measure
    from tinv.evaluation.invariance_report import InvarianceReport
    from tinv.evaluation.location_probe import LocationReport, probe_location
    from tinv.graph.summary import Summary, summary
    from tinv.graph.tile_plan import TilePlan, tile_plan
    from tinv.graph.trunk import trunk_of
    from tinv.graph.verification import verify
    from tinv.graph.verification_result import Verification
    from tinv.models import create_backbone, list_backbones
    from tinv.policies.activation import ActivationPolicy
    from tinv.policies.conversion import ConversionPolicy
    from tinv.policies.padding import PaddingPolicy
    from tinv.policies.subsampling import SubsamplingPolicy
    from tinv.policies.tokens import TokenPolicy
    from tinv.report.frame import load_runs
    from tinv.surgery.convert import convert

__all__ = [
    "ActivationPolicy",
    "ConversionPolicy",
    "InvarianceReport",
    "LayerError",
    "LocationReport",
    "PaddingPolicy",
    "SubsamplingPolicy",
    "Summary",
    "TilePlan",
    "TinvError",
    "TokenPolicy",
    "Verification",
    "__version__",
    "convert",
    "create_backbone",
    "list_backbones",
    "load_runs",
    "measure",
    "probe_location",
    "summary",
    "tile_plan",
    "trunk_of",
    "verify",
]

try:
    __version__ = version("tinv")
except PackageNotFoundError:  # a source tree that was never installed
    __version__ = "0+unknown"

__getattr__, _ = exports(
    __name__,
    {
        "tinv.models": ("create_backbone", "list_backbones"),
        "tinv.evaluation.invariance": ("measure",),
        "tinv.evaluation.invariance_report": ("InvarianceReport",),
        "tinv.evaluation.location_probe": ("LocationReport", "probe_location"),
        "tinv.graph.summary": ("Summary", "summary"),
        "tinv.graph.tile_plan": ("TilePlan", "tile_plan"),
        "tinv.graph.trunk": ("trunk_of",),
        "tinv.graph.verification": ("verify",),
        "tinv.graph.verification_result": ("Verification",),
        "tinv.report.frame": ("load_runs",),
        "tinv.surgery.convert": ("convert",),
        "tinv.policies.padding": ("PaddingPolicy",),
        "tinv.policies.subsampling": ("SubsamplingPolicy",),
        "tinv.policies.activation": ("ActivationPolicy",),
        "tinv.policies.tokens": ("TokenPolicy",),
        "tinv.policies.conversion": ("ConversionPolicy",),
    },
    modules=("callbacks", "select"),
)

keep_old_modules()
