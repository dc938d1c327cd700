"""What a node of a network's graph does to a map: slides a window over it, acts on each pixel, merges maps, ...

A new kind of layer becomes known to geometry, conversion and background in this file and in `functions.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.modules.dropout import _DropoutNd
from torch.nn.modules.pooling import _AdaptiveAvgPoolNd, _AdaptiveMaxPoolNd, _AvgPoolNd, _MaxPoolNd

from tinv.graph import functions
from tinv.graph.functions import Kind
from tinv.graph.tracing import upsample_to_min_size
from tinv.graph.windows import (
    Pads,
    Window,
    blur_window,
    conv_window,
    expands_exactly,
    functional_window,
    own_pool_window,
    padding_module,
    written_pads,
)
from tinv.nn.activation import BandLimitedActivation
from tinv.nn.padding import pad, pad_or_crop_like
from tinv.nn.pooling import Pool
from tinv.nn.subsampling import BlurPool, PolyphaseSampling, Subsampler
from tinv.nn.token_layers import TokenLayer
from tinv.nn.tokens import PolyphaseAnchor

FUNCTIONS_OF_A_VALUE = (
    *(nn.ReLU, nn.ReLU6, nn.Hardtanh, nn.SiLU, nn.GELU, nn.Sigmoid, nn.Hardsigmoid, nn.Hardswish, nn.Tanh, nn.Softplus),
    *(nn.Mish, nn.ELU, nn.SELU, nn.CELU, nn.LeakyReLU, nn.PReLU, nn.RReLU, nn.LogSigmoid, nn.Softsign, nn.Threshold),
    *(nn.Hardshrink, nn.Softshrink, nn.Tanhshrink),
)
"""Activations of torch: functions of each value, none of them linear."""
FUNCTION_NAMES = {
    *("relu", "relu6", "hardtanh", "silu", "gelu", "sigmoid", "hardsigmoid", "hardswish", "tanh", "softplus", "mish"),
    *("elu", "selu", "celu", "leaky_relu", "logsigmoid", "softsign", "threshold", "prelu", "rrelu", "swish", "expit"),
    *("hardshrink", "softshrink", "tanhshrink"),
}
"""The same as functions and methods."""
ACTIVATIONS = (*FUNCTIONS_OF_A_VALUE, nn.Identity, _DropoutNd, nn.Linear)
OVER_AXES = (nn.Softmax, nn.LogSoftmax, nn.Softmin, nn.Softmax2d, nn.LocalResponseNorm, nn.ChannelShuffle, nn.GLU)
TRANSFORMERS = (nn.TransformerEncoderLayer, nn.TransformerEncoder)
"""Treat tokens, which stay in their order, alike; features are the last axis."""
POINTWISE_CLASSES = {"StochasticDepth", "DropPath", "Affine", "LayerScale", "LayerScale2d", "GELUTanh", "QuickGELU"}
"""Modules of timm and torchvision, by the name of their class."""


@dataclass(frozen=True)
class Operation:
    """What a node does.

    Attributes:
        kind: See `Kind`.
        name: Name of the function or method, or of the module's class.
        window: Window of convolutions, pools and blurs.
        pads: Pixels of padding that is a step of its own.
        module: Module of the node, if it is one.
        inputs: The nodes it reads.
        args: Arguments of the call, with the numbers that nodes stand for, as far as they are known.
        kwargs: Keyword arguments of the call, with the numbers that nodes stand for, as far as they are known.
    """

    kind: Kind
    name: str = ""
    window: Window | None = None
    pads: Pads | None = None
    module: nn.Module | None = None
    inputs: list[fx.Node] = field(default_factory=list)
    args: tuple[Any, ...] = ()
    kwargs: dict[str, Any] = field(default_factory=dict)

    @property
    def is_activation(self) -> bool:
        """Whether it is an activation: a function of each value that is not linear."""
        if self.module is None:
            return self.kind == "pointwise" and self.name in FUNCTION_NAMES
        return is_activation(self.module)

    @property
    def carried_activation(self) -> nn.Module | None:
        """The activation that a norm of timm runs after itself."""
        carried = getattr(self.module, "act", None)
        is_norm = self.kind == "norm" or self.name.startswith("FrozenBatchNorm")
        return carried if is_norm and isinstance(carried, nn.Module) and not isinstance(carried, nn.Identity) else None

    @property
    def reads(self) -> list[fx.Node]:
        """The nodes whose values matter; of some functions the second argument gives a shape or a type alone."""
        return self.inputs[:1] if self.name in functions.LIKE_SECOND else self.inputs

    def argument(self, position: int, key: str, default: Any = None) -> Any:
        """Returns an argument of a call, wherever it was written."""
        return self.args[position] if position < len(self.args) else self.kwargs.get(key, default)

    @property
    def draws(self) -> bool:
        """Whether it draws random numbers, in evaluation too: a dropout that is called without `training`."""
        if self.module is not None or self.name not in functions.RANDOM:
            return False
        position, default = functions.RANDOM[self.name]
        return bool(self.argument(position, "training", default)) and self.argument(1, "p", 0.5) != 0

    def sequence(self, position: int, key: str) -> tuple[Any, ...] | None:
        """Returns an argument that torch takes as one sequence or as several numbers; None if it was not given."""
        value = self.argument(position, key)
        if isinstance(value, Sequence) and not isinstance(value, str):
            return tuple(value)
        return tuple(self.args[position:]) if position < len(self.args) else None if value is None else (value,)


def is_activation(module: nn.Module) -> bool:
    """Returns whether a module is an activation of torch or timm: a function of each value that is not linear."""
    known = isinstance(module, FUNCTIONS_OF_A_VALUE) or type(module).__name__ in ("GELUTanh", "QuickGELU")
    return known or type(module).__module__.startswith("timm.layers.activations")


def operation(node: fx.Node, network: nn.Module, axes: int, values: Mapping[fx.Node, Any] | None = None) -> Operation:
    """Returns what a node does to maps with `axes` spatial axes.

    Args:
        node: Node of the graph.
        network: Holds the modules of the graph.
        axes: Spatial ones.
        values: Values of the nodes before, whose numbers become arguments.
    """
    known = values or {}

    def number(source: fx.Node) -> Any:
        value = known.get(source, source)
        return source if isinstance(value, Tensor) else value

    args: Any
    args, kwargs = fx.node.map_arg((node.args, node.kwargs), number)
    op = Operation("size", inputs=_nodes_in((node.args, node.kwargs)), args=args, kwargs=kwargs)
    if node.op in ("placeholder", "output"):
        return op
    if node.op == "get_attr":
        return replace(op, kind="constant")
    if node.op == "call_module":
        module = network.get_submodule(str(node.target))
        op = replace(op, name=type(module).__name__, module=module)
        return replace(op, **_of_module(module, axes))
    op = replace(op, name=function_name(node))
    return replace(op, **_of_function(op, node, known, axes))


def function_name(node: fx.Node) -> str:
    """Returns the plain name of a called function or method, the same for both and for its in-place form."""
    target = node.target
    name = target if isinstance(target, str) else str(getattr(target, "__name__", target))
    return name.strip("_") if name.startswith("__") else name.rstrip("_")


def _nodes_in(arguments: Any) -> list[fx.Node]:
    # in the order of the arguments, and twice if it is read twice
    found: list[fx.Node] = []
    fx.node.map_arg(arguments, found.append)
    return found


def _of_module(module: nn.Module, axes: int) -> dict[str, Any]:
    name = type(module).__name__
    if isinstance(module, (TokenLayer, PolyphaseAnchor)):
        # the first of them is a convolution
        return {"kind": "tokens" if isinstance(module, TokenLayer) else "anchor"}
    if isinstance(module, _ConvTransposeNd):
        return {"kind": "shuffle" if expands_exactly(module) else "transposed"}
    if isinstance(module, _ConvNd) and name != "CondConv2d":
        return {"kind": "conv", "window": conv_window(module)}
    if isinstance(module, Pool):
        return {"kind": module.kind, "window": own_pool_window(module, axes)}
    if isinstance(module, Subsampler) or name == "BlurPool2d":
        adaptive, blurs = isinstance(module, PolyphaseSampling), isinstance(module, BlurPool)
        own = isinstance(module, Subsampler) and not (adaptive or blurs)
        kind = "polyphase" if adaptive else "subsample" if own else "blur"
        return {"kind": kind, "window": blur_window(module, axes)}
    for kind, classes in (("max", _MaxPoolNd), ("average", _AvgPoolNd), ("patches", nn.Unfold)):
        if isinstance(module, classes):
            given = {key: getattr(module, key) for key in _POOL_ARGUMENTS[kind] if hasattr(module, key)}
            return _pool(kind, _rank(name, axes), given, name.endswith("Same"))
    pads = padding_module(module)
    if pads is not None:
        return {"kind": "pad", "pads": pads}
    return {"kind": _kind_of_module(module, name)}


def _kind_of_module(module: nn.Module, name: str) -> Kind:
    """Returns what a module without a window does."""
    kinds: tuple[tuple[Kind, Any], ...] = (
        ("adapt", (_AdaptiveAvgPoolNd, _AdaptiveMaxPoolNd)),
        ("resampled", BandLimitedActivation),
        ("norm", (_NormBase, nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)),
        ("reshape", (nn.Flatten, nn.Unflatten)),
        ("shuffle", (nn.PixelShuffle, nn.PixelUnshuffle)),
        ("resize", nn.Upsample),
        ("attention", nn.MultiheadAttention),
        ("over_axes", (*OVER_AXES, *TRANSFORMERS)),
        ("pointwise", ACTIVATIONS),
    )
    for kind, classes in kinds:
        if isinstance(module, classes):
            return kind
    # timm's activations, and holders of nothing
    known = type(module).__module__.startswith(("timm.layers.activations", "timm.layers.drop"))
    return "pointwise" if known or name in POINTWISE_CLASSES or name.startswith("FrozenBatchNorm") else "opaque"


def _rank(name: str, axes: int) -> int:
    """Returns for how many axes a layer or function is by its name."""
    digits = [c for c in name if c.isdigit()]
    return int(digits[0]) if digits else axes


_POOL_ARGUMENTS = {
    "max": ("kernel_size", "stride", "padding", "dilation", "ceil_mode"),
    "average": ("kernel_size", "stride", "padding", "ceil_mode", "count_include_pad", "divisor_override"),
    "patches": ("kernel_size", "dilation", "padding", "stride"),
}
"""What torch calls the arguments of its pools and of `unfold` that stand behind the map, in their order."""


def _pool(kind: Any, rank: int, given: dict[str, Any], same: bool = False) -> dict[str, Any]:
    """Returns what a pool or an `unfold` with some arguments does, on maps with `rank` spatial axes."""
    if given.pop("divisor_override", None):
        return {"kind": "opaque"}
    if kind == "patches":
        rank, given = 2, {"stride": 1, **given}
    return {"kind": kind, "window": functional_window(rank, **given, same=same)}


def _of_function(op: Operation, node: fx.Node, values: Mapping[fx.Node, Any], axes: int) -> dict[str, Any]:
    name = op.name
    if name == "pad":
        return _pads(op, node)
    if node.target is pad_or_crop_like:
        return {"kind": "pad_or_crop"}
    if node.target is upsample_to_min_size:
        return {"kind": "pointwise"}
    tensors = [s for s in op.inputs if isinstance(values.get(s), (Tensor, tuple, list))]
    if not tensors and values and name not in functions.SHAPES_ONLY and name != "getitem":
        # made of numbers alone: a grid of the image's own size
        made = isinstance(values.get(node), (Tensor, tuple, list)) or not op.inputs
        return {"kind": "constant" if made else "size"}
    if name in ("max", "min") and _is_tensor(op.argument(1, "other", op.argument(1, "dim")), values):
        return {"kind": "merge"}
    if name in ("conv1d", "conv2d", "conv3d"):
        return _functional_conv(op, values)
    if name.startswith(("adaptive_avg_pool", "adaptive_max_pool")):
        return {"kind": "adapt"}
    if name.startswith(("max_pool", "_max_pool", "avg_pool")) or name == "unfold":
        return _functional_pool(op, node, values, axes)
    if name == "getattr":
        return _attribute(op, values)
    if name == "scaled_dot_product_attention":
        return {"kind": "attention"}
    return {"kind": next((kind for kind, names in functions.KINDS.items() if name in names), "opaque")}


def _is_tensor(argument: Any, values: Mapping[fx.Node, Any]) -> bool:
    return isinstance(argument, fx.Node) and isinstance(values.get(argument), Tensor)


def _attribute(op: Operation, values: Mapping[fx.Node, Any]) -> dict[str, Any]:
    """Returns what reading an attribute does: sizes are numbers, `.T` a permutation, the rest of it unknown."""
    owner, key = op.inputs[0] if op.inputs else None, op.argument(1, "name")
    if isinstance(values.get(owner) if owner is not None else None, tuple):
        # the fields of what torch.max(x, dim) and its like return
        return {"kind": "item"}
    if key in ("T", "mT", "H", "mH"):
        return {"kind": "permute", "name": key}
    if key == "data":
        return {"kind": "pointwise", "name": "detach"}
    return {"kind": "size" if key in ("shape", "device", "dtype", "ndim", "is_cuda", "requires_grad") else "opaque"}


def _pads(op: Operation, node: fx.Node) -> dict[str, Any]:
    """Returns the padding that a call of torch's `pad` or of ours adds."""
    if node.target is pad:
        mode = op.argument(2, "padding_mode", "zeros")
        return {"kind": "pad", "pads": Pads(tuple(tuple(pair) for pair in op.argument(1, "widths")), mode)}
    flat = op.argument(1, "pad", ())
    fixed = not _nodes_in(node.args[1] if len(node.args) > 1 else node.kwargs.get("pad"))
    pads = written_pads(flat, op.argument(2, "mode", "constant"), op.argument(3, "value", 0), fixed)
    return {"kind": "opaque" if pads is None else "pad", "pads": pads}


def _functional_conv(op: Operation, values: Mapping[fx.Node, Any]) -> dict[str, Any]:
    weight = op.argument(1, "weight")
    if not _is_tensor(weight, values):
        return {"kind": "opaque"}
    stride, padding, dilation = op.argument(3, "stride", 1), op.argument(4, "padding", 0), op.argument(5, "dilation", 1)
    kernel = values[weight].shape[2:]
    return {"kind": "conv", "window": functional_window(int(op.name[4]), kernel, stride, padding, dilation)}


def _functional_pool(op: Operation, node: fx.Node, values: Mapping[fx.Node, Any], axes: int) -> dict[str, Any]:
    """Returns the window of a pool that is a call; one as large as the map it gets is a reduction."""
    kind = "patches" if op.name == "unfold" else "average" if op.name.startswith("avg") else "max"
    if kind == "patches" and isinstance(node.target, str):
        return {"kind": "patches"}
    given = {key: op.argument(i, key) for i, key in enumerate(_POOL_ARGUMENTS[kind], start=1)}
    rank = _rank(op.name, axes)
    found = _pool(kind, rank, {key: value for key, value in given.items() if value is not None})
    source = values.get(op.inputs[0]) if op.inputs else None
    from_sizes = kind != "patches" and len({*node.all_input_nodes}) > 1 and "window" in found
    if from_sizes and isinstance(source, Tensor) and tuple(source.shape[-rank:]) == found["window"].kernel:
        return {"kind": "reduce", "window": None, "args": (op.args[0], tuple(range(-rank, 0)), True), "kwargs": {}}
    return found


_REDUCED = {
    **dict.fromkeys(("norm", "vector_norm", "quantile"), (2, None)),
    **dict.fromkeys(("topk", "kthvalue"), (2, -1)),
    **dict.fromkeys(("sort", "argsort", "mode"), (1, -1)),
    "cosine_similarity": (2, 1),
}
"""Which argument of a function names the axes that it runs over, and its default, where they are not 1 and None."""


def reduced_axes(op: Operation, rank: int) -> tuple[int, ...]:
    """Returns the axes that a reduction, a location or a scan runs over, of a tensor with `rank` axes."""
    if op.name == "pairwise_distance":
        return (rank - 1,)
    position, default = _REDUCED.get(op.name, (1, None))
    dims = op.argument(position, "dim", op.kwargs.get("axis", default))
    if isinstance(dims, bool):
        # var(x, unbiased) and sort(x, descending) name no axis
        dims = default
    if dims is None or isinstance(dims, fx.Node) or dims in ((), []):
        return tuple(range(rank))
    return tuple(sorted(d % rank for d in ([dims] if isinstance(dims, int) else dims)))


def whole_value(value: Any) -> Tensor | None:
    """Returns the tensor that a node gives, the first of several; None for numbers."""
    if isinstance(value, (tuple, list)) and value and not isinstance(value, torch.Size):
        value = value[0]
    return value if isinstance(value, Tensor) else None


def item_number(op: Operation) -> int | None:
    """Returns which of several tensors a node takes, by number or by the names of torch's pairs; None for a part."""
    index = op.args[1]
    if isinstance(index, str):
        return {"values": 0, "indices": 1}.get(index)
    return index if isinstance(index, int) else None
