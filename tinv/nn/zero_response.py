"""Responses of single layers to an image of zeros: one constant per channel, which background padding puts at borders.

The constants have one pixel an axis that the policy treats; time, where it is left alone, keeps its size. Norms use the
statistics that the data uses, in training those of the batch.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from tinv.nn.frequency import FrequencySubsampling


def zero_image(images: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Returns zeros (1, C, ...) with one pixel on the spatial axes named and the images' size on the others."""
    sizes = [1 if axis in axes else size for axis, size in enumerate(images.shape[2:])]
    return images.new_zeros(1, images.shape[1], *sizes)


def _over_window(response: Tensor, size: tuple[int, ...], axes: tuple[int, ...]) -> Tensor:
    sizes = [s if axis in axes else have for axis, (s, have) in enumerate(zip(size, response.shape[2:], strict=True))]
    return response.expand(*response.shape[:2], *sizes)


def conv_response(layer: nn.Module, response: Tensor, size: tuple[int, ...], axes: tuple[int, ...]) -> Tensor:
    """Returns a convolution's response to a constant map, on `axes` to one window of it; there it must not pad."""
    return cast(Tensor, layer.forward(_over_window(response, size, axes)))


def pool_response(
    pool: Callable[[Tensor], Tensor], response: Tensor, size: tuple[int, ...], axes: tuple[int, ...]
) -> Tensor:
    """Returns a pool's response to a constant map: the same constant, pooled over the axes that are not in `axes`."""
    if len(axes) == response.dim() - 2:
        return response
    answer = pool(_over_window(response, size, axes))
    return answer[(..., *(slice(0, 1) if axis in axes else slice(None) for axis in range(len(size))))]


def frequency_response(layer: FrequencySubsampling, response: Tensor, images: Tensor) -> Tensor:
    """Returns what a layer that cuts the spectrum of `images` makes of a constant map."""
    return layer.response(response, images.shape[2:])


def norm_and_response(layer: nn.Module, images: Tensor, response: Tensor) -> tuple[Tensor, Tensor]:
    """Returns a norm's outputs for `images` (N, C, ...) and for a constant, with the statistics of `images`.

    Batch norms of torch and timm compute the batch's moments once for both.
    """
    if not _shares_moments(layer, images):
        return layer(images), norm_response(layer, response, images)
    assert isinstance(layer, _BatchNorm)
    running, momentum = (layer.running_mean, layer.running_var), layer.momentum
    if not layer.track_running_stats:
        running = (None, None)
    elif layer.num_batches_tracked is not None:
        layer.num_batches_tracked.add_(1)
        if momentum is None:
            # the average over all batches so far
            momentum = 1.0 / float(layer.num_batches_tracked)
    data, response = _BatchNormWithResponse.apply(
        images, response, layer.weight, layer.bias, *running, momentum or 0.0, layer.eps
    )
    return _carried(layer, data, drops=True), _carried(layer, response)


def _shares_moments(layer: nn.Module, images: Tensor) -> bool:
    known = type(layer).forward is _BatchNorm.forward or type(layer).__name__ == "BatchNormAct2d"
    hooked = bool(layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks)
    # a compiler sees for itself that both passes need the same moments, and one value a channel is torch's to refuse
    several = images.numel() > images.shape[1]
    return known and layer.training and several and not (hooked or images.is_meta or torch.compiler.is_compiling())


class _BatchNormWithResponse(torch.autograd.Function):
    """Batch norm of a map and of a constant c beside it, by the moments of the map alone.

    With mean m, inverse deviation s, weight w and bias b, the constant becomes w s (c - m) + b. Its gradient reaches
    the map through both moments: dm/dx = 1/n and ds/dx = -s^3 (x - m) / n for n values a channel.
    """

    @staticmethod
    def forward(
        ctx: Any,
        images: Tensor,
        response: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        running_mean: Tensor | None,
        running_variance: Tensor | None,
        momentum: float,
        eps: float,
    ) -> tuple[Tensor, Tensor]:
        data, mean, deviation = torch.native_batch_norm(
            images, weight, bias, running_mean, running_variance, True, momentum, eps
        )
        ctx.save_for_backward(images, response, weight, mean, deviation)
        ctx.eps = eps
        scale = deviation if weight is None else deviation * weight
        answer = (response - _by_channel(mean, response)) * _by_channel(scale, response)
        return data, answer if bias is None else answer + _by_channel(bias, response)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, data_gradient: Tensor, response_gradient: Tensor) -> tuple[Tensor | None, ...]:
        images, response, weight, mean, deviation = ctx.saved_tensors
        needs_images, needs_response, needs_weight, needs_bias = ctx.needs_input_grad[:4]
        for_images, for_weight, for_bias = torch.ops.aten.native_batch_norm_backward(
            data_gradient.to(images.dtype), images, weight, None, None, mean, deviation, True, ctx.eps,
            [needs_images, needs_weight, needs_bias],
        )  # fmt: skip
        dims = [0, *range(2, response.dim())]
        sums = response_gradient.sum(dims)
        products = (response_gradient * (response - _by_channel(mean, response))).sum(dims) * deviation
        if needs_weight:
            for_weight = for_weight + products
        if needs_bias:
            for_bias = for_bias + sums
        scale = deviation if weight is None else deviation * weight
        if needs_images:
            count = images.numel() / images.shape[1]
            slope = -scale * deviation * products / count
            level = -scale * sums / count - slope * mean
            slope, level = (_by_channel(factor.to(images.dtype), images) for factor in (slope, level))
            for_images.addcmul_(images, slope).add_(level)
        scale = _by_channel(scale, response)
        for_response = (response_gradient * scale).to(response.dtype) if needs_response else None
        return for_images, for_response, for_weight, for_bias, None, None, None, None


def norm_response(layer: nn.Module, response: Tensor, images: Tensor) -> Tensor:
    """Returns what a norm makes of a constant, with the statistics it uses on `images`."""
    dims = [0, *range(2, images.dim())]
    if isinstance(layer, _BatchNorm):
        if not (layer.training or layer.running_mean is None):
            return layer.forward(response)
        variance, mean = _moments(layer, images, dims)
        return _carried(layer, _affine(layer, response, mean, variance))
    if isinstance(layer, nn.GroupNorm):
        grouped = images.view(images.shape[0], layer.num_groups, -1, *images.shape[2:])
        variance, mean = torch.var_mean(grouped, dim=list(range(2, grouped.dim())), correction=0, keepdim=True)
        mean, variance = (t.expand(-1, -1, grouped.shape[2], *t.shape[3:]).flatten(1, 2) for t in (mean, variance))
        return _carried(layer, _affine(layer, response, mean, variance))
    if isinstance(layer, nn.modules.instancenorm._InstanceNorm):
        variance, mean = torch.var_mean(images, dim=dims[1:], correction=0, keepdim=True)
        return _affine(layer, response, mean, variance)
    # over the channels of one pixel
    return cast(Tensor, layer(response))


def _carried(norm: nn.Module, images: Tensor, drops: bool = False) -> Tensor:
    """Applies the dropout and activation that timm's norms carry."""
    for name in ("drop", "act"):
        extra = getattr(norm, name, None)
        if isinstance(extra, nn.Module) and (drops or not isinstance(extra, _DropoutNd)):
            images = extra(images)
    return images


def _moments(layer: _BatchNorm, images: Tensor, dims: list[int]) -> tuple[Tensor, Tensor]:
    variance, mean = torch.var_mean(images, dim=dims, correction=0, keepdim=True)
    synchronised = isinstance(layer, nn.SyncBatchNorm) and torch.distributed.is_initialized()
    if not synchronised or torch.distributed.get_world_size() == 1:
        return variance, mean
    from torch.distributed.nn.functional import all_reduce

    # ranks may hold batches of different sizes
    count = mean.new_tensor(images.numel() / images.shape[1])
    sums = torch.stack([mean * count, (variance + mean.square()) * count, count.expand_as(mean)])
    total = all_reduce(sums, group=layer.process_group)  # type: ignore[no-untyped-call]
    mean, square = total[0] / total[2], total[1] / total[2]
    return square - mean.square(), mean


def _affine(norm: Any, response: Tensor, mean: Tensor, variance: Tensor) -> Tensor:
    answer = (response - mean) * torch.rsqrt(variance + norm.eps)
    if norm.weight is not None:
        answer = answer * _by_channel(norm.weight, response)
    return answer if norm.bias is None else answer + _by_channel(norm.bias, response)


def _by_channel(values: Tensor, images: Tensor) -> Tensor:
    """Returns one value a channel (C,) as it meets maps (N, C, ...): (1, C, 1, ...)."""
    return values.view(1, -1, *(1 for _ in images.shape[2:]))


def pointwise_response(layer: Callable[..., Tensor], response: Tensor, *parameters: Tensor) -> Tensor:
    """Returns what a layer that acts on each pixel alone makes of a constant; nothing is dropped."""
    if isinstance(layer, _DropoutNd) or type(layer).__name__ in ("StochasticDepth", "DropPath"):
        return response
    return layer(response.clone() if getattr(layer, "inplace", False) else response, *parameters)


def concatenated_response(responses: Sequence[Tensor], dim: int) -> Tensor:
    """Returns the constants of concatenated maps; those of one sample count for all."""
    samples = max(response.shape[0] for response in responses)
    return torch.cat([response.expand(samples, *response.shape[1:]) for response in responses], dim)
