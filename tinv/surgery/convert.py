"""Puts padding, subsampling, activation and token policies onto any network: `tinv.convert`."""

from __future__ import annotations

import copy
import inspect
import math
import warnings
from contextlib import suppress
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.parameter import UninitializedParameter

from tinv.errors import LayerError, TinvError
from tinv.graph.account import Conversion
from tinv.graph.converted import ConvertedNetwork
from tinv.graph.geometry import GeometryInterpreter
from tinv.graph.meta_copy import materialize
from tinv.nn.padding import PaddedConv
from tinv.policies.activation import ActivationPolicy
from tinv.policies.cards import Activation, Padding, Subsampling, Tokens
from tinv.policies.conversion import Axes, BlurPadding, ConversionPolicy, PoolPolicy, Stem
from tinv.policies.padding import PaddingPolicy
from tinv.policies.subsampling import SubsamplingPolicy
from tinv.policies.tokens import TokenPolicy
from tinv.surgery.edit import PartialError
from tinv.surgery.inexact_sizes import check_inexact_sizes
from tinv.surgery.rewriter import rewrite
from tinv.surgery.tokens import to_device

__all__ = [
    "Axes",
    "BlurPadding",
    "Conversion",
    "ConvertedNetwork",
    "PoolPolicy",
    "ConversionPolicy",
    "Stem",
    "convert",
    "convert_if_needed",
]


def convert_if_needed(model: nn.Module, example_input: Tensor, policy: ConversionPolicy) -> nn.Module:
    """Returns `convert(model, policy=policy)`, or the model itself if all policies are `keep`.

    A policy that changes nothing, such as `same_zero` on a network that has it, is not warned of: it is the baseline of
    a comparison.
    """
    if policy.keeps_all:
        return model
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*changed nothing.*")
        return convert(model, policy=policy, example_input=example_input)


def convert(
    model: nn.Module,
    padding: Padding | PaddingPolicy = "keep",
    subsampling: Subsampling | SubsamplingPolicy = "keep",
    *,
    policy: ConversionPolicy | None = None,
    pool: PoolPolicy = "keep",
    stem: Stem = "keep",
    axes: Axes = "space",
    blur_padding: BlurPadding = "as_padding",
    activation: Activation | ActivationPolicy = "keep",
    partial: bool = False,
    tokens: Tokens | TokenPolicy = "keep",
    example_input: Tensor,
) -> nn.Module:
    """Returns a copy of a network under padding, subsampling, activation and token policies; the given one is left.

    Padding changes every convolution with a kernel larger than one pixel. Pools keep the amounts of their padding
    unless `pool` says otherwise, but circular and background policies also say what fills it. Branches that meet
    (add, multiply, concatenate) are padded or cropped so that they show the same pixels.

    Subsampling changes every convolution and pool with a stride. Blur and adaptive layers come after the norm and
    activation that follow the strided layer, and before a strided 1x1 convolution (Zhang, ICML 2019). Under `full_*`
    padding they are padded fully too, as in Kayhan & van Gemert's F+BlurPool networks. Pools keep their
    kernel at stride 1. Adaptive layers of one resolution share one choice a sample.

    Activations of maps are replaced, as modules, functions, and where a norm of timm runs them. Those of vectors, as in
    heads and squeeze-excite gates, are left.

    Args:
        model: Takes one batch of images (N, C, *spatial), one to three spatial axes.
        padding: A name of `tinv list padding`, or a `PaddingPolicy`.
        subsampling: A name of `tinv list subsampling`, or a `SubsamplingPolicy`, also one of your own.
        policy: All policies together, in the place of single ones.
        pool: Padding of pools: `keep`, `valid`, `same` ((k-1)/2 a side) or `full` (k-1 a side).
        stem: `keep` leaves the stride of the first convolution, as the BlurPool networks of Kayhan & van Gemert do.
        axes: Axes of clips (N, C, T, H, W): `space` leaves time as it is.
        blur_padding: What the border of blurs holds; `as_padding` follows `padding`, zeros for `keep`. That border
            is full, size - 1 pixels a side, under `full_*`.
        activation: A name of `tinv list activation`, or an `ActivationPolicy`, also one of your own.
        partial: Whether layers that cannot take a policy asked for are left, which otherwise is an error. They are
            listed in `conversion.partial`.
        tokens: A name of `tinv list tokens`, or a `TokenPolicy`: where the patches and windows of vision transformers
            begin. `anchor` rolls each image to one position; `a_token` makes each grid follow the content.
        example_input: Images of any values; the converted network takes other sizes and batches too.

    Returns:
        A `ConvertedNetwork` (a plain copy if all policies are `keep`), on the same device, in the same mode, whose
        parameter names, shapes and order are the old ones, and whose attribute `conversion` is a `Conversion`. What a
        policy learns is named `policy_layers.*` and comes behind them; it begins with random numbers (torch's seed),
        `poly2` with fixed ones, in the precision of the network's first weight.

    Raises:
        TinvError: For an unknown policy, a wrapped model, an example of the wrong rank, or one too small for `valid`
            or not divisible under `tokens` (naming the least size that works).
        LayerError: Naming a layer that cannot be traced, or those with a window larger than one pixel that cannot take
            a policy; one that a subsampling policy gave, and whose map has a wrong size; or one whose stride does not
            divide its map, under a policy with `allow_inexact=False`.
    """
    given = ConversionPolicy(padding, subsampling, pool, stem, axes, blur_padding, activation, partial, tokens)
    if policy is not None and given != ConversionPolicy():
        raise TinvError("give either policy or single policies, not both")
    policy = policy or given
    if isinstance(model, ConvertedNetwork):
        if model.conversion.policy == policy or policy.keeps_all:
            return copy.deepcopy(model)
        raise TinvError(
            f"this network is already converted ({model.conversion.policy}); convert the original with all policies "
            "at once"
        )
    _check_model(model, example_input)
    if policy.keeps_all:
        same = copy.deepcopy(model)
        same.conversion = Conversion(policy)  # type: ignore[assignment]
        return same
    try:
        edit = rewrite(model, policy, example_input.detach().to("meta"))
    except PartialError:
        raise
    except LayerError as error:
        if policy.padding.amount != "valid":
            raise
        raise TinvError(f"{error}{_minimum_input_size(model, policy, example_input)}") from error
    assert edit.geometry is not None
    check_inexact_sizes(edit, edit.geometry)
    layers = materialize(edit.meta_copy, model, edit.values)
    argument = next(iter(inspect.signature(model.forward).parameters), "images")
    network = ConvertedNetwork(layers, edit.graphs, edit.conversion, argument)
    network.original_class = type(model).__name__
    weight = next(model.parameters(), None)
    policy_layers = cast(nn.Module, network.policy_layers)
    if weight is not None:
        policy_layers.to(weight.device)
        to_device(network, weight.device)
    edit.conversion.fresh = {f"policy_layers.{key}": value.numel() for key, value in policy_layers.state_dict().items()}
    network.train(model.training)
    for name, module in model.named_modules():
        network.get_submodule(name).training = module.training
    _warn(edit.conversion, type(model).__name__)
    return network


def _check_model(model: nn.Module, example: Tensor) -> None:
    if not isinstance(example, Tensor):
        raise TinvError(f"example_input must be a tensor of images (N, C, *spatial), not {type(example).__name__}")
    if any(isinstance(module, PaddedConv) for module in model.modules()):
        raise TinvError(
            f"{type(model).__name__} holds tinv's own convolutions, whose padding is set when they are built; build it "
            "of torch.nn.Conv2d and convert it"
        )
    if inner := _WRAPPERS.get(name := type(model).__name__):
        raise TinvError(f"the network is wrapped in {name}; convert model.{inner} and wrap the result anew")
    if isinstance(model, torch.jit.ScriptModule):
        raise TinvError("a TorchScript module cannot be converted; convert the network before scripting it")
    for name, module in model.named_modules():
        _check_module(name or "the network", module)
    _check_rank(model, example)


_WRAPPERS = {
    **dict.fromkeys(("DistributedDataParallel", "DataParallel", "FullyShardedDataParallel"), "module"),
    "OptimizedModule": "_orig_mod",
}
"""Classes that wrap a network, and the attribute that holds it."""


def _check_rank(model: nn.Module, example: Tensor) -> None:
    """Raises TinvError for an example that has not the axes that a network's first convolution takes."""
    # the first layer's rank, but 1-D layers inside of 2-D networks act on channels
    convs = ((n, m) for n, m in model.named_modules() if isinstance(m, (nn.Conv1d, nn.Conv2d, nn.Conv3d)))
    name, conv = next(convs, ("the network", model))
    rank = len(conv.kernel_size) + 2 if isinstance(conv, _ConvNd) else example.dim()
    if example.dim() != rank or not 3 <= example.dim() <= 5:
        raise TinvError(
            f"example_input has shape {tuple(example.shape)}, {example.dim()} axes; layer {name} "
            f"({type(conv).__name__}) takes {rank}: (N, C, *spatial)"
        )


def _check_module(name: str, module: nn.Module) -> None:
    """Raises TinvError for what a copy of a layer could not keep."""
    if any(isinstance(p, UninitializedParameter) for p in module.parameters(recurse=False)):
        raise TinvError(f"layer {name} is lazy and has no weights yet; run the network once, then convert it")
    made = [key for key, value in vars(module).items() if isinstance(value, Tensor) and value.grad_fn is not None]
    if made:
        raise TinvError(
            f"layer {name}: its {made[0]} is computed by a hook (torch.nn.utils.weight_norm, spectral_norm or prune); "
            "remove it (remove_weight_norm, prune.remove) or use torch.nn.utils.parametrizations, then convert"
        )
    if list(module.children()) and (module._forward_hooks or module._forward_pre_hooks):
        raise TinvError(
            f"{name} holds hooks, which a converted network would not run; remove them, and register them on the "
            "converted network or on single layers of it"
        )


def _warn(conversion: Conversion, name: str) -> None:
    policy, counts = conversion.policy, conversion.counts
    if policy.padding.amount != "keep" and not counts.get("convolutions padded"):
        warnings.warn(f"padding={policy.padding} changed nothing in {name}", stacklevel=3)
    if policy.subsampling.treats_strides and not counts.get("strides replaced"):
        warnings.warn(f"subsampling={policy.subsampling} changed nothing in {name}", stacklevel=3)
    if policy.activation.treats_activations and not counts.get("activations replaced"):
        warnings.warn(f"activation={policy.activation} changed nothing in {name}", stacklevel=3)


def _minimum_input_size(model: nn.Module, policy: ConversionPolicy, example: Tensor) -> str:
    """Returns the end of an error message: the smallest images that work under `valid`, if any do."""
    edit = None
    sizes = list(example.shape[2:])
    spatial = policy.treated_axes(len(sizes))

    def at(scale: float) -> Tensor:
        scaled = [math.ceil(s * scale) if axis in spatial else s for axis, s in enumerate(sizes)]
        return example.new_empty(*example.shape[:2], *scaled, device="meta")

    scale = 1.0
    while edit is None and max(sizes) * scale < 8192:
        scale *= 1.5
        with suppress(LayerError):
            edit = rewrite(model, policy, at(scale))
    if edit is None:
        return ""
    low, high = scale / 1.5, scale
    while max(sizes) * (high - low) >= 1:
        middle = (low + high) / 2
        try:
            GeometryInterpreter(edit.graphs[False], edit.meta_copy, at(middle)).run()
            high = middle
        except LayerError:
            low = middle
    least = "x".join(str(size) for size in at(high).shape[2:])
    return f"; under padding=valid the least input that works is {least}"
