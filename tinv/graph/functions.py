"""The kinds of operation, and which functions and methods of torch are of each.

Functions are listed by their plain names: `add` stands for `add_` too.
"""

from __future__ import annotations

from typing import Literal

Kind = Literal[
    "conv",  # a weighted sum over a window
    "transposed",  # each position spreads over a window of the output
    "max",  # the maximum of a window
    "average",  # the mean of a window
    "blur",  # a fixed filter, then a stride
    "polyphase",  # a stride whose first pixel depends on the content
    "subsample",  # a stride carried by a layer of the user's own, which says what it sees and follows
    "tokens",  # a layer of a grid of tokens that follows its shifts, see `tinv.nn.TokenLayer`
    "anchor",  # rolls each image to a position that its content says, so that shifts leave no trace
    "patches",  # the pixels of each window, one after the other
    "pad",  # adds pixels at the border
    "pad_or_crop",  # adds or takes away pixels at the end, until a size is met
    "pointwise",  # the same function at every pixel
    "resampled",  # a function of each value on a finer grid, low-passed after
    "over_axes",  # a function of the values along some axes, which keep their order
    "norm",  # statistics over some axes or of the training set, then a factor and a number to add
    "merge",  # pixel by pixel, of several maps
    "concatenate",  # several maps, one behind the other along an axis
    "stack",  # several maps along a new axis
    "reduce",  # one number for all entries of some axes, whatever their order
    "locate",  # says where something is
    "scan",  # depends on what came before along an axis
    "contract",  # products of two maps, summed over an axis
    "attention",  # torch's attention, as a layer or a function
    "adapt",  # pools to a fixed number of positions
    "resize",  # to another number of positions
    "shuffle",  # between channels and positions: pixel shuffles
    "roll",
    "flip",
    "permute",
    "reshape",
    "expand",  # repeats along an axis
    "split",
    "item",  # an element of a tuple, or a slice
    "constant",  # a tensor of which a map gives the shape alone
    "size",  # numbers that are not maps
    "opaque",  # a layer that tinv does not know
]
"""What a node does to maps."""
WINDOWS = ("conv", "max", "average", "blur", "polyphase", "subsample", "patches")
"""Kinds that slide a window."""

LIKES = {
    *("zeros_like", "ones_like", "full_like", "empty_like", "new_zeros", "new_ones", "new_full"),
    *("new_empty", "new_tensor"),
}
"""Functions that make a tensor of which a map gives the shape or type alone."""
SHAPES_ONLY = {
    *("size", "dim", "ndimension", "numel", "_assert", "int", "len", "is_floating_point", "is_cuda", "get_device"),
    *("stride", "is_contiguous", "element_size", "sym_size", "not", "switch_gradients", "getattr"),
    *("same_decision", "enter_autocast", "exit_autocast"),
}
"""Functions that look at sizes, types and devices alone."""
UNKNOWN_WINDOWS = {
    *("deform_conv2d", "lp_pool1d", "lp_pool2d", "lp_pool3d", "fractional_max_pool2d", "fractional_max_pool3d"),
    *("conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "avg_pool1d", "avg_pool2d", "avg_pool3d"),
    *("conv1d", "conv2d", "conv3d", "fold"),
}
"""Functions that slide a window, where tinv cannot tell or change it."""
LIKE_SECOND = {"to", "type_as", "view_as", "reshape_as", "expand_as"}
"""Functions whose second argument gives a shape or a type alone."""

KINDS: dict[Kind, set[str]] = {
    # functions that take maps together pixel by pixel
    "merge": {
        *("add", "sub", "mul", "div", "truediv", "true_divide", "subtract", "multiply", "divide", "maximum"),
        *("minimum", "rsub", "addcmul", "addcdiv", "lerp", "where", "pow", "fmod", "masked_fill", "fmax", "fmin"),
        *("gt", "lt", "ge", "le", "eq", "ne", "logical_and", "logical_or", "rpow", "rtruediv", "heaviside", "atan2"),
        *("hypot", "iadd", "isub", "imul", "itruediv", "ipow", "radd", "rmul", "floordiv", "mod", "floor_divide"),
        *("remainder", "and", "or", "copysign"),
    },
    "concatenate": {"cat", "concat", "concatenate"},
    "stack": {"stack"},
    # functions that act on each pixel by itself
    "pointwise": {
        *("relu", "relu6", "hardtanh", "silu", "gelu", "sigmoid", "hardsigmoid", "hardswish", "tanh", "softplus"),
        *("mish", "elu", "selu", "celu", "leaky_relu", "logsigmoid", "softsign", "threshold", "prelu", "rrelu"),
        *("swish", "clamp", "clamp_min", "clamp_max", "clip", "neg", "exp", "log", "abs", "sqrt", "rsqrt", "square"),
        *("erf", "sign", "clone", "contiguous", "to", "type", "type_as", "float", "half", "bfloat16", "double"),
        *("detach", "identity", "dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout"),
        *("feature_alpha_dropout", "stochastic_depth", "drop_path", "linear", "freeze_norm", "tanhshrink"),
        *("hardshrink", "softshrink", "round", "floor", "ceil", "erfc", "log1p", "expm1", "exp2", "log2", "log10"),
        *("sin", "cos", "tan", "reciprocal", "logit", "expit", "nan_to_num", "trunc", "isfinite", "isnan", "isinf"),
        *("logical_not", "bool", "frac", "sgn", "positive", "cpu", "cuda", "deg2rad", "requires_grad", "atan", "asin"),
        *("acos", "sinh", "cosh"),
    },
    # functions that act on the values along one axis and keep their order
    "over_axes": {
        *("softmax", "log_softmax", "softmin", "normalize", "local_response_norm", "glu"),
        *("channel_shuffle", "native_channel_shuffle"),
    },
    "norm": {"batch_norm", "layer_norm", "rms_norm", "group_norm", "instance_norm"},
    # functions whose result does not depend on the order of what they take together
    "reduce": {
        *("mean", "sum", "amax", "amin", "max", "min", "norm", "vector_norm", "std", "var", "prod", "logsumexp"),
        *("any", "all", "median", "nanmean", "nansum", "count_nonzero", "var_mean", "std_mean", "sort", "topk"),
        *("aminmax", "quantile", "nanmedian", "mode", "kthvalue", "cosine_similarity", "pairwise_distance"),
    },
    "locate": {"argmax", "argmin", "argsort", "nonzero"},
    "scan": {"cumsum", "cumprod", "cummax", "cummin", "logcumsumexp", "diff"},
    "contract": {"matmul", "bmm", "einsum", "mm", "rmatmul", "imatmul", "scaled_dot_product_attention"},
    "shuffle": {"pixel_shuffle", "pixel_unshuffle"},
    "resize": {"interpolate", "upsample", "upsample_nearest", "upsample_bilinear"},
    "reshape": {"view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "view_as", "ravel", "reshape_as"},
    "expand": {"expand", "expand_as", "broadcast_to", "repeat", "tile"},
    "permute": {"permute", "transpose", "movedim", "swapaxes", "swapdims", "moveaxis", "t"},
    "split": {"chunk", "split", "tensor_split", "unbind", "split_with_sizes", "hsplit", "vsplit", "dsplit"},
    "roll": {"roll"},
    "flip": {"flip", "fliplr", "flipud"},
    "item": {"getitem", "select", "narrow"},
    "constant": LIKES,
    "size": SHAPES_ONLY,
}
"""Functions by the kind of what they do."""

RANDOM: dict[str, tuple[int, bool]] = {
    **dict.fromkeys(("dropout", "dropout1d", "dropout2d", "dropout3d"), (2, True)),
    **dict.fromkeys(("alpha_dropout", "feature_alpha_dropout", "drop_path"), (2, False)),
    **{"rrelu": (3, False), "stochastic_depth": (3, True)},
}
"""Functions that draw random numbers where their argument `training` is true: its position, and its default."""
