"""What functions and methods of torch do to a map, by their plain names: `add` stands for `add_` too."""

from __future__ import annotations

MERGES = frozenset(
    [
        *("add", "sub", "mul", "div", "truediv", "true_divide", "subtract", "multiply", "divide", "maximum"),
        *("minimum", "rsub", "addcmul", "addcdiv", "lerp", "where", "pow", "fmod", "masked_fill", "fmax", "fmin"),
        *("gt", "lt", "ge", "le", "eq", "ne", "logical_and", "logical_or", "rpow", "rtruediv", "heaviside", "atan2"),
        *("hypot", "iadd", "isub", "imul", "itruediv", "ipow", "radd", "rmul", "floordiv", "mod", "floor_divide"),
        *("remainder", "and", "or", "copysign"),
    ]
)
"""Functions that take maps together pixel by pixel."""
CONCATENATIONS = frozenset(["cat", "concat", "concatenate"])
STACKS = frozenset(["stack"])
POINTWISE = frozenset(
    [
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
    ]
)
"""Functions that act on each pixel by itself."""
OVER_AXES = frozenset(["softmax", "log_softmax", "softmin", "normalize", "local_response_norm", "glu"])
"""Functions that act on the values along one axis and keep their order."""
NORMS = frozenset(["batch_norm", "layer_norm", "rms_norm", "group_norm", "instance_norm"])
REDUCTIONS = frozenset(
    [
        *("mean", "sum", "amax", "amin", "max", "min", "norm", "vector_norm", "std", "var", "prod", "logsumexp"),
        *("any", "all", "median", "nanmean", "nansum", "count_nonzero", "var_mean", "std_mean", "sort", "topk"),
        *("aminmax", "quantile", "nanmedian", "mode", "kthvalue", "cosine_similarity", "pairwise_distance"),
    ]
)
"""Functions whose result does not depend on the order of what they take together."""
LOCATIONS = frozenset(["argmax", "argmin", "argsort", "nonzero"])
SCANS = frozenset(["cumsum", "cumprod", "cummax", "cummin", "logcumsumexp", "diff"])
CONTRACTIONS = frozenset(["matmul", "bmm", "einsum", "mm", "rmatmul", "imatmul", "scaled_dot_product_attention"])
SHUFFLES = frozenset(["pixel_shuffle", "pixel_unshuffle"])
RESIZES = frozenset(["interpolate", "upsample", "upsample_nearest", "upsample_bilinear"])
LIKES = frozenset(
    [
        *("zeros_like", "ones_like", "full_like", "empty_like", "new_zeros", "new_ones", "new_full"),
        *("new_empty", "new_tensor"),
    ]
)
"""Functions that make a tensor of which a map gives the shape or type alone."""
SHAPES_ONLY = frozenset(
    [
        *("size", "dim", "ndimension", "numel", "_assert", "int", "len", "is_floating_point", "is_cuda", "get_device"),
        *("stride", "is_contiguous", "element_size", "sym_size", "not", "switch_gradients", "getattr"),
    ]
)
"""Functions that look at sizes, types and devices alone."""
RESHAPES = frozenset(
    ["view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze", "view_as", "ravel", "reshape_as"]
)
EXPANSIONS = frozenset(["expand", "expand_as", "broadcast_to", "repeat", "tile"])
PERMUTATIONS = frozenset(["permute", "transpose", "movedim", "swapaxes", "swapdims", "moveaxis", "t"])
SPLITS = frozenset(["chunk", "split", "tensor_split", "unbind", "split_with_sizes", "hsplit", "vsplit", "dsplit"])
UNKNOWN_WINDOWS = frozenset(
    [
        *("deform_conv2d", "lp_pool1d", "lp_pool2d", "lp_pool3d", "fractional_max_pool2d", "fractional_max_pool3d"),
        *("conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "avg_pool1d", "avg_pool2d", "avg_pool3d"),
        *("conv1d", "conv2d", "conv3d", "fold"),
    ]
)
"""Functions that slide a window, where tinv cannot tell or change it."""
LIKE_SECOND = frozenset(["to", "type_as", "view_as", "reshape_as", "expand_as"])
"""Functions whose second argument gives a shape or a type alone."""
