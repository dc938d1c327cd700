"""What steps do to circular shifts by parts of a pixel, of images without the Nyquist frequency and those above it.

A map stands for the trigonometric polynomial through its values. A step follows such shifts if it commutes with moving
that polynomial by any distance. Steps that break shifts by whole positions, and strides, break these too and are noted
elsewhere; here is what is exact for whole positions alone. Linear steps that are the same at every position follow. A
function of each value does not, nor does a product of two maps: both make frequencies too high for the map, which
fold back. A statistic over all positions, such as a mean or a variance, does not change.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

from torch import nn
from torch.nn.modules.dropout import _DropoutNd

from tinv.graph.grid import Grid, grids_of, holds_positions
from tinv.graph.operations import Operation, reduced_axes
from tinv.graph.state import Case
from tinv.graph.values import norm_axes

Statistics = Literal["constant", "pooled", "per_position"]
"""What a norm divides by: numbers of the training set, a statistic over all positions, or one of each position."""

FOLDS = "makes frequencies that the positions cannot hold"
_LINEAR_MODULES = (nn.Identity, _DropoutNd, nn.Linear)
_LINEAR_CLASSES = ("StochasticDepth", "DropPath", "Affine", "LayerScale", "LayerScale2d")
_LINEAR_NAMES = {
    *("clone", "contiguous", "to", "type", "type_as", "float", "half", "bfloat16", "double", "detach", "identity"),
    *("neg", "positive", "cpu", "cuda", "requires_grad", "dropout", "dropout1d", "dropout2d", "dropout3d", "linear"),
    *("alpha_dropout", "feature_alpha_dropout", "stochastic_depth", "drop_path", "freeze_norm"),
    "upsample_to_min_size",
}
_SUMS = {"add", "iadd", "radd", "sub", "isub", "rsub", "subtract"}
_PRODUCTS = {"mul", "imul", "rmul", "multiply"}
_QUOTIENTS = {"div", "itruediv", "truediv", "true_divide", "divide"}


def norm_statistics(op: Operation, grid: Grid, shape: Sequence[int]) -> Statistics:
    """Returns what a norm's statistics are of, for a map with a grid and a shape.

    Statistics of the training set are constants, as of batch norm in evaluation. Those over all positions do not change
    under a shift by parts of a pixel (Parseval's theorem). Those of each position, as of a layer norm over channels,
    are a function of each position that is not linear (arXiv 2505.19805).
    """
    dims, _ = norm_axes(op, grid, shape)
    if not dims:
        return "constant"
    positions = [dim for dim, entry in enumerate(grid) if holds_positions(entry) and shape[dim] > 1]
    return "pooled" if dims.issuperset(positions) else "per_position"


def check_fractional(case: Case) -> None:
    """Notes which axes a step breaks for shifts by parts of a pixel alone."""
    reason = _CHECKS.get(case.op.kind, _nothing)(case)
    if reason:
        case.breaks_fractional(case.every_axis(), reason)


def _nothing(case: Case) -> str:
    return ""


def _always(reason: str) -> Callable[[Case], str]:
    return lambda case: reason


def _layer_says(case: Case) -> str:
    """A layer that says what it follows."""
    if "fractional" in getattr(case.op.module, "exact", ()):
        return ""
    layer: Any = case.op.module
    return getattr(layer, "reason", "") or getattr(layer, "between", "") or "does not say that it follows them"


def _pointwise(case: Case) -> str:
    op = case.op
    if op.carried_activation is not None:
        return f"its {type(op.carried_activation).__name__} {FOLDS}"
    if op.module is None:
        return "" if op.name in _LINEAR_NAMES else FOLDS
    known = isinstance(op.module, _LINEAR_MODULES) or type(op.module).__module__.startswith("timm.layers.drop")
    return "" if known or op.name in _LINEAR_CLASSES or op.name.startswith("FrozenBatchNorm") else FOLDS


def _over_axes(case: Case) -> str:
    return "" if "shuffle" in case.op.name.lower() else FOLDS


def _norm(case: Case) -> str:
    if norm_statistics(case.op, case.source.grid, case.source.shape) == "per_position":
        return "normalizes by a statistic of each position; only those over all positions, or constants, follow"
    return _pointwise(case) if case.op.carried_activation is not None else ""


def _merge(case: Case) -> str:
    """Sums follow, and products with what has no positions along the axes that the map has."""
    name = case.op.name
    if name in _SUMS:
        return ""
    if name not in _PRODUCTS | _QUOTIENTS or case.op.kwargs.get("rounding_mode") is not None:
        return FOLDS
    moving = [axes for r in case.readings if not r.constant and (axes := r.axes_in(range(len(r.grid))))]
    divisor = case.readings[-1]
    divided = name in _QUOTIENTS and (len(case.readings) > 1 or case.node.args[0] is not divisor.node)
    if len(moving) > 1 or (divided and divisor.axes_in(range(len(divisor.grid))) and not divisor.constant):
        return f"multiplies or divides maps, which {FOLDS}"
    return ""


def _product(case: Case) -> str:
    moving = [r for r in case.readings if not r.constant and r.axes_in(range(len(r.grid)))]
    return f"multiplies maps, which {FOLDS}" if len(moving) > 1 or case.op.kind == "attention" else ""


def _reduce(case: Case) -> str:
    if case.op.name in ("mean", "sum"):
        return ""
    dims = set(reduced_axes(case.op, len(case.source.grid)))
    held = {dim for dim, entry in enumerate(case.source.grid) if holds_positions(entry)}
    if case.op.name in ("var", "std", "var_mean", "std_mean") and held <= dims:
        return ""
    return f"takes {case.op.name} of values, which follows whole positions alone"


def _adapt(case: Case) -> str:
    return _maximum(case) if "max" in case.op.name.lower() else ""


def _maximum(case: Case) -> str:
    return f"takes maxima, which {FOLDS}"


def _resized(case: Case) -> str:
    """Steps after which an axis must have as many positions as before."""
    before = {part.axis: part.size for part in grids_of(case.source.grid)}
    after = {part.axis: part.size for part in grids_of(case.grid)}
    changed = any(after[axis] != size for axis, size in before.items() if axis in after)
    return "makes other positions of those there are, which follows whole positions alone" if changed else ""


_CHECKS: dict[str, Callable[[Case], str]] = {
    "pointwise": _pointwise,
    "over_axes": _over_axes,
    "resampled": _layer_says,
    "subsample": _layer_says,
    "norm": _norm,
    "merge": _merge,
    "max": _maximum,
    "adapt": _adapt,
    **dict.fromkeys(("polyphase", "tokens", "anchor"), _always("chooses among whole positions")),
    "reduce": _reduce,
    **dict.fromkeys(("contract", "attention"), _product),
    **dict.fromkeys(("resize", "shuffle", "reshape", "pad_or_crop", "expand"), _resized),
    **dict.fromkeys(("locate", "scan"), _always("depends on where values are")),
}
