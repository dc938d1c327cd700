"""What a node of a network's graph does to a map: slides a window over it, acts on each pixel, merges maps, ...

A new kind of layer becomes known to geometry, conversion and background in this one file.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from torch import fx, nn
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.modules.dropout import _DropoutNd

from tinv.policies.padding import Content, PaddedConv, each_axis, fit, pad, padding_amounts
from tinv.policies.pooling import Pool
from tinv.policies.subsampling import AdaptivePolyphase, BlurPool
from tinv.policies.tracing import at_least

Kind = Literal[
    "conv",  # a weighted sum over a window
    "max",  # the maximum of a window
    "average",  # the mean of a window
    "blur",  # a fixed filter, then a stride
    "polyphase",  # a stride whose first pixel depends on the content
    "pad",  # adds pixels at the border
    "fit",  # adds or takes away pixels at the end, until a size is met
    "pointwise",  # the same function at every pixel; a norm in evaluation
    "norm",  # pointwise too, with statistics that may come from the batch
    "merge",  # pixel by pixel, of several maps
    "concatenate",  # several maps, channel after channel
    "global",  # one number a channel: positions are gone
    "resample",  # to a fixed size: positions are not equidistant any more
    "permute",
    "reshape",
    "split",
    "item",  # an element of a tuple, or a slice
    "size",  # numbers that are not maps
    "opaque",  # a layer that tinv does not know
]

MERGES = {
    *("add", "sub", "mul", "div", "truediv", "true_divide", "subtract", "multiply", "divide"),
    *("maximum", "minimum", "rsub", "addcmul", "lerp", "where", "pow", "fmod"),
    *("iadd", "isub", "imul", "itruediv", "radd", "rmul"),
}
CONCATENATIONS = {"cat", "concat", "concatenate"}
POINTWISE = {
    *("relu", "relu6", "hardtanh", "silu", "gelu", "sigmoid", "hardsigmoid", "hardswish", "tanh", "softplus", "mish"),
    *("elu", "selu", "celu", "leaky_relu", "logsigmoid", "softsign", "threshold", "prelu", "rrelu", "swish"),
    *("clamp", "clamp_min", "clamp_max", "clip", "neg", "exp", "log", "abs", "sqrt", "rsqrt", "square", "erf", "sign"),
    *("clone", "contiguous", "to", "type", "type_as", "float", "half", "bfloat16", "double", "detach", "identity"),
    *("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout", "stochastic_depth"),
    *("drop_path", "linear", "layer_norm", "rms_norm", "normalize", "softmax", "log_softmax", "freeze_norm"),
}
REDUCTIONS = {"mean", "sum", "amax", "amin", "max", "min", "norm", "vector_norm", "std", "var", "prod", "logsumexp"}
RESHAPES = {"view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "view_as", "expand", "expand_as"}
PERMUTATIONS = {"permute", "transpose", "movedim", "swapaxes", "swapdims"}
SPLITS = {"chunk", "split", "tensor_split", "unbind", "split_with_sizes"}
ACTIVATIONS = (
    *(nn.ReLU, nn.ReLU6, nn.Hardtanh, nn.SiLU, nn.GELU, nn.Sigmoid, nn.Hardsigmoid, nn.Hardswish, nn.Tanh, nn.Softplus),
    *(nn.Mish, nn.ELU, nn.SELU, nn.CELU, nn.LeakyReLU, nn.PReLU, nn.RReLU, nn.LogSigmoid, nn.Softsign, nn.Threshold),
    *(nn.Identity, nn.Hardshrink, nn.Softshrink, nn.Tanhshrink, _DropoutNd, nn.Linear),
)
ADAPTIVE_POOLS = (
    *(nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d),
    *(nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.AdaptiveMaxPool3d),
)
POINTWISE_CLASSES = {"StochasticDepth", "DropPath", "Affine", "LayerScale", "LayerScale2d", "GELUTanh", "QuickGELU"}
"""Modules of timm and torchvision, by the name of their class."""


@dataclass(frozen=True)
class Window:
    """What slides over a map, a number for each of its spatial axes.

    Attributes:
        kernel: pixels.
        stride: pixels.
        dilation: pixels.
        amounts: padding (left, right) in pixels; None where TensorFlow's SAME rule finds it from the size of the map.
        content: of that padding.
        ceil_mode: whether the last window may end outside of the map.
        counts_padding: whether an average counts zeros at the border.
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    amounts: tuple[tuple[int, int], ...] | None
    content: Content = "zero"
    ceil_mode: bool = False
    counts_padding: bool = True

    def reach(self, axis: int) -> int:
        """Returns the pixels from the first to the last of the window."""
        return self.dilation[axis] * (self.kernel[axis] - 1)

    def padding(self, axis: int, size: int) -> tuple[int, int]:
        """Returns the padding (left, right) on a map of `size` pixels."""
        if self.amounts is not None:
            return self.amounts[axis]
        stride = self.stride[axis]
        total = max(0, (-(-size // stride) - 1) * stride + self.reach(axis) + 1 - size)
        return total // 2, total - total // 2


@dataclass(frozen=True)
class Operation:
    """What a node does.

    Attributes:
        kind: see `Kind`.
        window: of convolutions, pools and blurs.
        module: of the node, if it is one.
        inputs: the nodes it reads maps from.
    """

    kind: Kind
    window: Window | None = None
    module: nn.Module | None = None
    inputs: list[fx.Node] = field(default_factory=list)


def operation(node: fx.Node, network: nn.Module, axes: int) -> Operation:
    """Returns what a node does to maps with `axes` spatial axes."""
    inputs = _inputs(node)
    if node.op == "call_module":
        module = network.get_submodule(str(node.target))
        kind, window = _of_module(module, axes)
        return Operation(kind, window, module, inputs)
    if node.op in ("placeholder", "output"):
        return Operation("size", None, None, inputs)
    if node.op == "get_attr":
        return Operation("size")
    name = function_name(node)
    kind, window = _of_function(name, node, axes)
    return Operation(kind, window, None, inputs)


def function_name(node: fx.Node) -> str:
    """Returns the plain name of a called function or method, the same for both and for its in-place form."""
    target = node.target
    name = target if isinstance(target, str) else str(getattr(target, "__name__", target))
    return name if name.startswith("__") else name.rstrip("_")


def _inputs(node: fx.Node) -> list[fx.Node]:
    # in the order of the arguments, and twice if it is read twice
    found: list[fx.Node] = []

    def note(source: fx.Node) -> fx.Node:
        found.append(source)
        return source

    fx.node.map_arg((node.args, node.kwargs), note)
    return found


def _of_module(module: nn.Module, axes: int) -> tuple[Kind, Window | None]:
    name = type(module).__name__
    if isinstance(module, _ConvTransposeNd) or name == "CondConv2d":
        return "opaque", None
    if isinstance(module, PaddedConv):
        amounts = tuple(module.padding_amounts)
        return "conv", Window(
            tuple(module.kernel_size), tuple(module.stride), tuple(module.dilation), amounts, module.padding_content
        )
    if isinstance(module, _ConvNd):
        return "conv", _conv_window(module)
    if isinstance(module, Pool):
        kernel, stride, dilation = (
            tuple(each_axis(v, axes)) for v in (module.kernel_size, module.stride, module.dilation)
        )
        amounts = tuple(module.amounts or padding_amounts(module.padding_policy, kernel, dilation))
        content = module.padding_content
        return module.kind, Window(kernel, stride, dilation, amounts, content, module.ceil_mode, module.count_padding)
    if isinstance(module, (BlurPool, AdaptivePolyphase)):
        blur = module if isinstance(module, BlurPool) else module.blur
        kernel, stride = tuple(each_axis(blur.size, axes)), tuple(each_axis(module.stride, axes))
        amounts = tuple(blur.padding_amounts(axes))
        kind: Kind = "blur" if isinstance(module, BlurPool) else "polyphase"
        return kind, Window(kernel, stride, (1,) * axes, amounts, module.padding_content)
    if name == "BlurPool2d":
        size, stride, amount = cast(Any, module).filt_size, cast(Any, module).stride, cast(Any, module).padding[0]
        mode = {"zeros": "zero", "constant": "zero"}.get(cast(Any, module).pad_mode, cast(Any, module).pad_mode)
        return "blur", Window((size,) * 2, (stride,) * 2, (1, 1), ((amount, amount),) * 2, cast(Content, mode))
    if isinstance(module, (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)):
        if module.return_indices:
            return "opaque", None
        args = (module.kernel_size, module.stride, module.padding, module.dilation, module.ceil_mode)
        return "max", _pool_window(axes, *args, same=name.endswith("Same"))
    if isinstance(module, (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d)):
        if getattr(module, "divisor_override", None):
            return "opaque", None
        args = (module.kernel_size, module.stride, module.padding, 1, module.ceil_mode)
        return "average", _pool_window(axes, *args, counts=module.count_include_pad, same=name.endswith("Same"))
    if isinstance(module, ADAPTIVE_POOLS):
        return "global" if _is_one(module.output_size) else "resample", None
    if isinstance(module, (_NormBase, nn.LayerNorm, nn.GroupNorm)):
        return "norm", None
    if name.startswith("FrozenBatchNorm"):
        return "pointwise", None
    if isinstance(module, nn.Flatten | nn.Unflatten):
        return "reshape", None
    if isinstance(module, ACTIVATIONS) or name in POINTWISE_CLASSES or _is_activation(module):
        return "pointwise", None
    return "opaque", None


def _is_activation(module: nn.Module) -> bool:
    """Returns whether a module is one of timm's activations, or a holder of nothing."""
    return type(module).__module__.startswith(("timm.layers.activations", "timm.layers.drop"))


def _of_function(name: str, node: fx.Node, axes: int) -> tuple[Kind, Window | None]:
    if name == "pad":
        return ("pad" if written_pads(node, axes) is not None else "opaque"), None
    if node.target is fit:
        return "fit", None
    if node.target is at_least:
        return "pointwise", None
    if name in MERGES:
        return "merge", None
    if name in CONCATENATIONS:
        return "concatenate", None
    if name in POINTWISE:
        return "pointwise", None
    if name == "batch_norm":
        return "norm", None
    if name in REDUCTIONS:
        return "global", None
    if name.startswith(("adaptive_avg_pool", "adaptive_max_pool")):
        return "global" if _is_one(argument(node, 1, "output_size", None)) else "resample", None
    if name.startswith(("max_pool", "_max_pool")):
        values = [argument(node, i, key, default) for i, (key, default) in enumerate(_MAX_POOL, start=1)]
        return "max", _pool_window(axes, *values)
    if name.startswith("avg_pool"):
        kernel, stride, padding, ceil_mode, counts = (
            argument(node, i, key, default) for i, (key, default) in enumerate(_AVG_POOL, start=1)
        )
        return "average", _pool_window(axes, kernel, stride, padding, 1, ceil_mode, counts=counts)
    if name in RESHAPES:
        return "reshape", None
    if name in PERMUTATIONS:
        return "permute", None
    if name in SPLITS:
        return "split", None
    if name == "getitem":
        return "item", None
    if name in ("size", "getattr", "dim", "floordiv", "mod", "floor_divide", "eq", "_assert", "int", "len"):
        return "size", None
    return "opaque", None


_MAX_POOL = (("kernel_size", None), ("stride", None), ("padding", 0), ("dilation", 1), ("ceil_mode", False))
_AVG_POOL = (("kernel_size", None), ("stride", None), ("padding", 0), ("ceil_mode", False), ("count_include_pad", True))


def argument(node: fx.Node, position: int, key: str, default: Any) -> Any:
    """Returns an argument of a call, wherever it was written."""
    if position < len(node.args):
        return node.args[position]
    return node.kwargs.get(key, default)


def written_pads(node: fx.Node, axes: int) -> list[tuple[int, int]] | None:
    """Returns the (left, right) of each axis that a call of `pad` adds, ours or torch's; None if it is not constant."""
    amounts = argument(node, 1, "pad", ())
    if node.target is pad:
        return list(amounts)
    if argument(node, 2, "mode", "constant") != "constant" or not all(isinstance(a, int) for a in amounts):
        return None
    pairs = [(amounts[i], amounts[i + 1]) for i in range(0, len(amounts), 2)][::-1]
    return [(0, 0)] * (axes - len(pairs)) + pairs if len(pairs) <= axes else None


def _is_one(size: Any) -> bool:
    sizes = size if isinstance(size, Sequence) else [size]
    return all(s == 1 for s in sizes)


def _conv_window(module: _ConvNd) -> Window:
    kernel, stride, dilation = tuple(module.kernel_size), tuple(module.stride), tuple(module.dilation)
    content = {"zeros": "zero"}.get(module.padding_mode, module.padding_mode)
    if is_tensorflow_same(module):
        amounts = None
    elif module.padding == "same":
        reach = [d * (k - 1) for k, d in zip(kernel, dilation, strict=True)]
        amounts = tuple((r // 2, r - r // 2) for r in reach)
    elif module.padding == "valid":
        amounts = ((0, 0),) * len(kernel)
    else:
        amounts = tuple((int(p), int(p)) for p in module.padding)
    return Window(kernel, stride, dilation, amounts, cast(Content, content))


def is_tensorflow_same(module: nn.Module) -> bool:
    """Returns whether a layer of timm finds its padding from the size of the map, as TensorFlow's SAME does."""
    if hasattr(module, "same_pad"):
        return bool(module.same_pad)
    return type(module).__name__ in ("Conv2dSame", "Conv2dSameExport", "AvgPool2dSame", "MaxPool2dSame")


def _pool_window(
    axes: int,
    kernel: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    ceil_mode: bool,
    *,
    counts: bool = True,
    same: bool = False,
) -> Window:
    def each(value: Any) -> tuple[int, ...]:
        values = tuple(value) if isinstance(value, Sequence) else (value,)
        return values * axes if len(values) == 1 else values

    amounts = None if same else tuple((p, p) for p in each(padding))
    strides = each(stride if stride not in (None, (), []) else kernel)
    return Window(each(kernel), strides, each(dilation), amounts, "zero", bool(ceil_mode), counts)
