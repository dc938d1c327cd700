"""Which maps are zero where a blank image is, and which hold no negative numbers."""

from __future__ import annotations

from typing import get_args

from torch import nn

from tinv.graph.contractions import contracted
from tinv.graph.grid import Grid, axes_of, grids_of, holds_positions
from tinv.graph.operations import TRANSFORMERS, Operation
from tinv.graph.state import Case
from tinv.graph.values import Values, norm_axes
from tinv.nn.pad_widths import PaddingMode

_PRODUCTS = {"mul", "multiply", "imul", "rmul"}
_QUOTIENTS = {"div", "divide", "truediv", "true_divide", "itruediv"}
_MOVES = {
    *("max", "average", "blur", "polyphase", "patches", "pad", "pad_or_crop", "permute", "reshape", "expand", "split"),
    *("item", "roll", "flip", "shuffle", "concatenate", "stack", "adapt", "resize"),
}
"""Kinds that give values they were given, or means of them."""


def _moves(op: Operation) -> bool:
    """Returns whether a node gives values it was given, or means of them."""
    return op.kind in _MOVES or (op.kind == "subsample" and getattr(op.module, "averages", False))


_POSITIVE = (nn.ReLU, nn.ReLU6, nn.Sigmoid, nn.Hardsigmoid, nn.Softplus, nn.Softmax, nn.Softmax2d)
_KEEPS_SIGN = (nn.Identity, nn.modules.dropout._DropoutNd, nn.ReLU, nn.GELU, nn.SiLU, nn.ELU, nn.LeakyReLU, nn.Tanh)
_POSITIVE_NAMES = {"relu", "relu6", "sigmoid", "hardsigmoid", "abs", "square", "exp", "softplus", "softmax"}
_KEEPS_SIGN_NAMES = {
    *("clone", "contiguous", "to", "float", "half", "double", "bfloat16", "detach", "dropout", "drop_path"),
    *("stochastic_depth", "sqrt", "leaky_relu", "elu", "silu", "gelu", "hardswish", "tanh", "hardtanh"),
    "upsample_to_min_size",
    *("mean", "sum", "amax", "amin", "max", "min", "norm", "vector_norm", "std", "var", "median", "prod"),
    *("normalize", "channel_shuffle", "native_channel_shuffle", "local_response_norm", "round", "floor", "ceil"),
}


def zero_axes(case: Case, values: Values) -> tuple[bool, ...]:
    """Returns for each axis of the image whether the output is zero wherever no content is seen along it."""
    op, state = case.op, case.state
    kept = axes_of(case.grid)
    axes = range(len(state.zero))
    if op.kind in _PRODUCTS_KINDS:
        return tuple(axis in kept and _zero_product(case, axis) for axis in axes)
    if op.kind == "merge" and op.name in _PRODUCTS:
        return tuple(
            axis in kept and any(_covers(case, r.grid, axis) and r.state.zero[axis] for r in case.readings)
            for axis in axes
        )
    if op.kind == "merge" and op.name in _QUOTIENTS:
        first = case.readings[0]
        # a quotient of two blanks is not a number
        finite = all(r.constant for r in case.readings[1:])
        numerator = case.node.args[0] is first.node
        return tuple(
            axis in kept and finite and numerator and first.state.zero[axis] and _covers(case, first.grid, axis)
            for axis in axes
        )
    # every summand must be zero there, constants as well
    zero = tuple(all(r.state.zero[axis] for r in case.readings) for axis in axes)
    if not any(zero[axis] and axis in kept for axis in axes) and op.kind not in _OWN_FACTORS:
        return (False,) * len(zero)
    maps = [r for r in case.readings if not r.constant]
    zero = tuple(axis in kept and all(r.state.zero[axis] for r in maps) for axis in axes)
    return zero if not any(zero) or _keeps_zero(case, values) else (False,) * len(zero)


_PRODUCTS_KINDS = ("contract", "attention")
_OWN_FACTORS = ("conv", "norm", "pointwise", "over_axes", "merge")
"""Kinds whose constants are weights of their own, and no summands."""


def uniform_axes(case: Case) -> tuple[bool, ...]:
    """Returns for each axis whether what is seen where no content is along it is the same at every position."""
    op, axes = case.op, range(len(case.state.uniform))
    moving = [r for r in case.readings if not r.constant]
    held = [axes_of(r.grid) for r in moving]
    pairs = [(p, q) for p in grids_of(case.source.grid) for q in grids_of(case.grid) if p.axis == q.axis]
    blocks = op.kind in ("shuffle", "reshape", "transposed") and any(q.size > p.size for p, q in pairs)
    several = op.kind == "contract" and sum(map(bool, held)) > 1
    return tuple(
        all(r.state.uniform[axis] for r in moving)
        and not case.uneven - {axis}
        and not (blocks or several)
        and not (op.kind in ("merge", "concatenate", "stack") and any(h and axis not in h for h in held))
        for axis in axes
    )


def _covers(case: Case, grid: Grid, axis: int) -> bool:
    """Returns whether a tensor holds an axis of the image wherever the output does."""

    def dims(entries: Grid) -> set[int]:
        return {dim - len(entries) for dim, entry in enumerate(entries) if axis in axes_of([entry])}

    return dims(case.grid) <= dims(grid)


def _zero_product(case: Case, axis: int) -> bool:
    """Returns whether a sum of products is zero wherever no content is seen along an axis."""
    operands = [(r.grid, r.shape) for r in case.readings]
    if case.op.kind == "attention":
        # softmax gives every position a share
        return False
    found = contracted(case.op, operands)
    if found is None:
        return False
    for owners, entry in zip(found.owners, found.grid, strict=True):
        if axis in axes_of([entry]) and not any(case.readings[number].state.zero[axis] for number in owners):
            return False
    return True


def _keeps_zero(case: Case, values: Values) -> bool:
    op = case.op
    if op.kind == "pad":
        return op.pads is not None and set(op.pads.padding_mode.split("+")) <= set(get_args(PaddingMode))
    if op.kind in ("conv", "transposed") or (op.kind == "shuffle" and "Conv" in op.name):
        return _no_bias(case, values)
    if _moves(op):
        return True
    if isinstance(op.module, TRANSFORMERS):
        # every token sees the content
        return False
    if op.kind == "norm":
        axes, _ = norm_axes(op, case.source.grid, case.source.shape)
        over_positions = any(holds_positions(case.source.grid[dim]) for dim in axes)
        root_mean_square = op.name in ("RMSNorm", "rms_norm")
        if over_positions and not root_mean_square:
            # beside content, what is blank becomes the mean's distance from zero
            return False
    return op.kind in ("norm", "pointwise", "over_axes", "merge", "reduce") and values.keeps_zero(case.node)


def _no_bias(case: Case, values: Values) -> bool:
    module = case.op.module
    if module is not None:
        bias = getattr(module, "bias", None)
        return bias is None or not (bias.is_meta or bool(bias.any()))
    bias = case.op.argument(2, "bias")
    if bias is None:
        return True
    known = values.constant(bias) if values.is_constant(bias) else None
    return known is not None and not bool(known.any())


def not_negative(case: Case) -> bool:
    """Returns whether no value of the output can be negative."""
    op, positive = case.op, all(r.state.not_negative for r in case.readings)
    if _moves(op):
        return positive and (op.pads is None or op.pads.padding_mode != "constant")
    if op.kind in ("norm", "pointwise", "over_axes") and op.module is not None:
        activation = getattr(op.module, "act", op.module)
        return isinstance(activation, _POSITIVE) or (isinstance(op.module, _KEEPS_SIGN) and positive)
    if op.kind in ("pointwise", "over_axes", "reduce"):
        return op.name in _POSITIVE_NAMES or (op.name in _KEEPS_SIGN_NAMES and positive)
    if op.kind == "merge":
        numbers = [a for a in (*op.args, *op.kwargs.values()) if isinstance(a, (int, float))]
        grows = op.name in {"add", "iadd", "radd", "maximum", "minimum", "max", "min", *_PRODUCTS, *_QUOTIENTS}
        return grows and positive and all(n >= 0 for n in numbers)
    return False
