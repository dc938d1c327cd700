"""How a map is subsampled by layers with weights: they learn which pixels to keep, how to mix them, or how to blur."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from math import prod
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tinv.errors import TinvError
from tinv.nn.pad_widths import PadWidths, to_ntuple
from tinv.nn.padding import CONVOLUTIONS, check_axes, check_kernel_fits, pad, standard_padding
from tinv.nn.precision import at_least_single, without_autocast
from tinv.nn.subsampling import PolyphaseSampling, Subsampler, padded_to_stride, polyphase_components

_CONV_LAYERS: tuple[Any, ...] = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_ADAPTIVE_POOLS: tuple[Any, ...] = (F.adaptive_avg_pool1d, F.adaptive_avg_pool2d, F.adaptive_avg_pool3d)


class LearnedPolyphaseSampling(PolyphaseSampling):
    """Keeps the polyphase component of largest learned logit (LPS; Rojas-Gomez et al., NeurIPS 2022, arXiv 2210.08001).

    The logit of component k is the mean over channels and positions of conv(ReLU(conv(x_k))), with circular padding and
    the same two convolutions for all k, so that it is the same wherever the component begins. In training the output
    is the sum of all components, weighted by a Gumbel-softmax of the logits with a temperature; in evaluation it is
    the component of largest logit, the first of equals. Logits are computed in float32 at least.

    Args:
        channels: Channels C of the map.
        stride: Pixels: one number for both axes of images, or one for each of one to three axes. Axes with a stride
            have kernels of 3 pixels, the others of 1.
        hidden: Channels between the two convolutions, and behind them; None takes those of the map.
        temperature: Temperature of the Gumbel-softmax at the start and at the end of training, above 0. Between them
            it is start * (end / start) ** progress, see `set_progress`.
        blur: Size (1 to 7) of a binomial filter before the choice, one number or one for each axis; 1 for none.
        padding_mode: What the border of the filter holds, and the pixels added where a stride does not divide a size.
        full: Whether the filter's padding is full, see BlurPool.

    Raises:
        TinvError: For a temperature that is not above 0, or fewer than one hidden channel.

    Shape:
        (N, C, *spatial) -> (N, C, *ceil(spatial' / stride)); spatial' is spatial, or spatial + blur - 1 with a full
        blur.

    Examples:
        >>> layer = LearnedPolyphaseSampling(channels=4).eval()
        >>> images = torch.randn(1, 4, 8, 8)
        >>> torch.allclose(layer(images).mean((2, 3)), layer(images.roll(3, 2)).mean((2, 3)), atol=1e-6)
        True
    """

    temperature: Tensor

    def __init__(
        self,
        channels: int,
        stride: int | Sequence[int] = 2,
        hidden: int | None = None,
        temperature: tuple[float, float] = (1.0, 0.1),
        blur: int | Sequence[int] = 1,
        padding_mode: str | Sequence[str] = "zeros",
        full: bool = False,
    ) -> None:
        super().__init__(stride, blur, padding_mode, full)
        self.start, self.end = _temperatures(temperature)
        hidden = channels if hidden is None else hidden
        if hidden < 1:
            raise TinvError(f"hidden channels of learned polyphase sampling must be 1 or more, not {hidden}")
        kernel = _kernel(3, stride)
        conv = _CONV_LAYERS[len(kernel) - 1]
        self.hidden_conv, self.logit_conv = conv(channels, hidden, kernel), conv(hidden, hidden, kernel)
        # a tensor, so that a compiled network is not compiled anew for every step
        self.register_buffer("temperature", torch.tensor(self.start), persistent=False)

    def set_progress(self, progress: float) -> None:
        """Sets the temperature for a share of the training that is done, 0 to 1."""
        self.temperature.fill_(self.start * (self.end / self.start) ** progress)

    def logits(self, components: Tensor) -> Tensor:
        """Returns the logits (N, P) of components (N, P, C, ...), in float32 or float64."""
        with without_autocast(components):
            maps = at_least_single(components.flatten(0, 1))
            found: Tensor = _convolve(_wrapped(maps, self.hidden_conv.kernel_size), self.hidden_conv).relu()
            # on a ring every weight of a kernel meets every position once: the mean of the second convolution is that
            # of its input, times the sums of its weights
            kernels: Tensor = self.logit_conv.weight.to(found.dtype).flatten(2).sum(2).mean(0)
            found = found.flatten(2).mean(2) @ kernels + self.logit_conv.bias.to(found.dtype).mean()
        return found.view(components.shape[:2])

    def choose(self, components: Tensor) -> Tensor:
        """Returns weights (N, P) in training, the number (N,) of the component of largest logit in evaluation."""
        logits = self.logits(components)
        if not self.training:
            return logits.argmax(dim=1)
        return F.gumbel_softmax(logits, cast(Any, self.temperature.to(logits.dtype)))

    def extra_repr(self) -> str:
        return f"stride={self.stride}, temperature=({self.start:g}, {self.end:g})"


class TIPSPooling(Subsampler):
    """Mixes the polyphase components of each channel (TIPS; Saha & Gokhale, WACV 2025, arXiv 2404.07410).

    psi is the ReLU of a depthwise convolution of the map x, t its adaptive average pool to s positions an axis, s the
    stride, and tau_c = softmax(w_c t_c) with a learned number w_c. Channel c of the output is the sum of its
    components, component k weighted by entry k of tau_c. The pool averages parts of the map, not components, so that
    tau changes when the content moves: no shift is followed exactly.

    Two losses are added in training, see `penalty`: L_mix = mean(1 - |tau_c|), which is largest for equal weights; and,
    late in the training, L_undo = mean((psi(x) - psi(x moved) moved back)^2). It is moved by up to `max_shift` pixels,
    drawn for each batch; zeros come in and what leaves the map is lost, so that the loss is one of the border.

    Args:
        channels: Channels C of the map.
        stride: Pixels: one number for both axes of images, or one for each of one to three axes. Axes with a stride
            have kernels of 3 pixels, the others of 1.
        padding_mode: What the border of the convolution holds, and the pixels added where a stride does not divide a
            size.
        undo_weight: Weight of L_undo.
        undo_from: Share of the training, 0 to 1, after which L_undo is added.
        mix_weight: Weight of L_mix.
        max_shift: Largest shift of L_undo, in pixels.

    Raises:
        TinvError: For a negative weight or shift, or a share that is not 0 to 1.

    Shape:
        (N, C, *spatial) -> (N, C, *ceil(spatial / stride)).
    """

    between = "weighs the components of its map by averages over parts of the map, which no shift leaves as they are"
    averages = True
    ceil_mode = True

    def __init__(
        self,
        channels: int,
        stride: int | Sequence[int] = 2,
        padding_mode: str | Sequence[str] = "zeros",
        undo_weight: float = 0.35,
        undo_from: float = 0.4,
        mix_weight: float = 0.35,
        max_shift: int = 2,
    ) -> None:
        super().__init__()
        _check_tips(undo_weight, undo_from, mix_weight, max_shift)
        _, self.padding_mode = standard_padding("same", padding_mode, "TIPSPooling")
        self.stride, self.max_shift = stride, max_shift
        self.undo_weight, self.undo_from, self.mix_weight = undo_weight, undo_from, mix_weight
        kernel = _kernel(3, stride)
        self.psi = _CONV_LAYERS[len(kernel) - 1](channels, channels, kernel, groups=channels, bias=False)
        self.weight = nn.Parameter(torch.empty(channels).uniform_(-1, 1))
        self.undoes = undo_from == 0

    def set_progress(self, progress: float) -> None:
        """Switches L_undo on where the share of the training that is done, 0 to 1, is late enough."""
        self.undoes = progress >= self.undo_from

    def forward(self, images: Tensor, background: Tensor | None = None) -> Tensor:
        check_axes("TIPS", images, len(self.psi.kernel_size))
        with without_autocast(images):
            maps = at_least_single(images)
            features = self.features(maps, background)
            mixing = self.mixing(features)
            if self.training:
                self.keep_penalty(self._loss(maps, features, mixing, background))
            whole = padded_to_stride(maps, self.stride, self.padding_mode, background)
            components = polyphase_components(whole, self.stride)
            mixed: Tensor = torch.einsum("ncp,npc...->nc...", mixing, components)
        return mixed.to(images.dtype)

    def features(self, maps: Tensor, background: Tensor | None = None) -> Tensor:
        """Returns psi (N, C, *spatial) of a map of that shape."""
        return _convolve(pad(maps, _same(self.psi.kernel_size), self.padding_mode, background), self.psi).relu()

    def mixing(self, features: Tensor) -> Tensor:
        """Returns tau (N, C, P), the weights of the P components, from psi (N, C, *spatial)."""
        axes = features.dim() - 2
        parts = _ADAPTIVE_POOLS[axes - 1](features, to_ntuple(self.stride, axes)).flatten(2)
        mixing: Tensor = (self.weight.to(features.dtype).view(-1, 1) * parts).softmax(dim=2)
        return mixing

    def _loss(self, maps: Tensor, features: Tensor, mixing: Tensor, background: Tensor | None) -> Tensor:
        loss: Tensor = self.mix_weight * (1 - mixing.norm(dim=2)).mean()
        if self.undoes and self.undo_weight:
            by = torch.randint(-self.max_shift, self.max_shift + 1, (maps.dim() - 2,), device=maps.device)
            undone = self._moved(self.features(self._moved(maps, by), background), -by)
            loss = loss + self.undo_weight * (features - undone).square().mean()
        return loss

    def _moved(self, maps: Tensor, by: Tensor) -> Tensor:
        """Returns maps moved by pixels (axes,) along the axes with a stride; zeros come in at the border."""
        for axis, stride in enumerate(to_ntuple(self.stride, maps.dim() - 2)):
            if stride > 1:
                size = maps.shape[2 + axis]
                # computed of tensors alone, which keeps the graph of a compiled network whole
                index = torch.arange(size, device=maps.device) - by[axis]
                there = ((index >= 0) & (index < size)).to(maps.dtype).view(-1, *(1 for _ in maps.shape[3 + axis :]))
                maps = maps.index_select(2 + axis, index.clamp(0, size - 1)) * there
        return maps

    def extra_repr(self) -> str:
        return f"stride={self.stride}, {self.padding_mode}"


class AdaptiveBlurPool(Subsampler):
    """A filter of its own for each position and group of channels, then stride (DDAC; Zou et al., BMVC 2020).

    A convolution of the map, softmaxed over the taps, gives the filter: y[i, j] = sum_n w_{g,n}[i, j] x[s (i, j) + n].
    Filters are computed in float32 at least.

    Args:
        channels: Channels C of the map.
        stride: Pixels: one number for both axes of images, or one for each of one to three axes. Axes with a stride
            have filters of `size` pixels, the others of 1.
        size: Pixels of the filter, and of the convolution that makes it, along each axis with a stride.
        groups: Groups of channels with a filter each; None takes the largest divisor of C up to 8.
        padding_mode: What the border of the map holds, a `PaddingMode`; `background` in converted networks.
        full: Whether size - 1 pixels are added a side, not (size - 1) / 2, see BlurPool.

    Raises:
        TinvError: If the groups do not divide the channels, or the size is below 2.

    Shape:
        (N, C, *spatial) -> (N, C, *spatial'); spatial' = ceil(spatial / stride) unless full.

    Examples:
        >>> AdaptiveBlurPool(12)
        AdaptiveBlurPool(
          stride=2, size=3, groups=6, zeros
          (filter_conv): Conv2d(12, 54, kernel_size=(3, 3), stride=(2, 2))
        )
    """

    exact = frozenset({"circular", "zero_canvas"})
    averages = True

    def __init__(
        self,
        channels: int,
        stride: int | Sequence[int] = 2,
        size: int = 3,
        groups: int | None = None,
        padding_mode: str | Sequence[str] = "zeros",
        full: bool = False,
    ) -> None:
        super().__init__()
        _check_adaptive_blur(size, groups)
        self.groups = next(g for g in range(min(8, channels), 0, -1) if channels % g == 0) if groups is None else groups
        if channels % self.groups:
            raise TinvError(f"the {self.groups} groups of an adaptive blur do not divide the {channels} channels")
        self.stride, self.size, self.full = stride, size, full
        _, self.padding_mode = standard_padding("same", padding_mode, "AdaptiveBlurPool")
        self.taps = _kernel(size, stride)
        axes = len(self.taps)
        self.filter_conv = _CONV_LAYERS[axes - 1](
            channels, self.groups * prod(self.taps), self.taps, to_ntuple(stride, axes)
        )

    def forward(self, images: Tensor, background: Tensor | None = None) -> Tensor:
        check_axes("adaptive blur", images, len(self.taps))
        padded = pad(images, self.pad_widths(len(self.taps)), self.padding_mode, background)
        check_kernel_fits("adaptive blur", self.taps, padded.shape[2:])
        with without_autocast(images):
            maps = at_least_single(padded)
            filters = _convolve(maps, self.filter_conv, self.filter_conv.stride)
            counts = filters.shape[2:]
            filters = filters.reshape(len(images), self.groups, -1, *counts).softmax(dim=2)
            maps = maps.reshape(len(images), self.groups, -1, *maps.shape[2:])
            taps = enumerate(self._under_each_tap(maps, counts))
            total = sum((filters[:, :, number].unsqueeze(2) * seen for number, seen in taps), maps.new_zeros(()))
        return total.flatten(1, 2).to(images.dtype)

    def _under_each_tap(self, maps: Tensor, counts: Sequence[int]) -> Iterator[Tensor]:
        """Yields, for each tap of the filter, the pixels (N, groups, C / groups, *counts) that it meets."""
        for tap in itertools.product(*map(range, self.taps)):
            seen = maps
            for axis, (first, count, by) in enumerate(zip(tap, counts, self.filter_conv.stride, strict=True)):
                index = (*(slice(None),) * (3 + axis), slice(first, first + (count - 1) * by + 1, by))
                seen = seen[index]
            yield seen

    def window(self, axes: int) -> tuple[int, ...]:
        """Returns the size of the filter along each axis."""
        return self.taps

    def pad_widths(self, axes: int) -> list[tuple[int, int]]:
        """Returns the pixels (left, right) that are added to each of `axes` spatial axes."""
        return [(k - 1, k - 1) if self.full else ((k - 1) // 2, k // 2) for k in self.taps]

    def extra_repr(self) -> str:
        full = ", full" if self.full else ""
        return f"stride={self.stride}, size={self.size}, groups={self.groups}, {self.padding_mode}{full}"


def _temperatures(temperature: tuple[float, float]) -> tuple[float, float]:
    """Returns two temperatures; raises TinvError for one that is not above 0."""
    start, end = (float(value) for value in temperature)
    if not (start > 0 and end > 0):
        raise TinvError(f"temperatures of learned polyphase sampling must be above 0, not {start:g} and {end:g}")
    return start, end


def _check_tips(undo_weight: float, undo_from: float, mix_weight: float, max_shift: int) -> None:
    """Raises TinvError for options of TIPS that are out of their range."""
    for name, value in (("undo_weight", undo_weight), ("mix_weight", mix_weight), ("max_shift", max_shift)):
        if not value >= 0:
            raise TinvError(f"{name} of TIPS must be 0 or more, not {value}")
    if not 0 <= undo_from <= 1:
        raise TinvError(f"undo_from of TIPS is a share of the training, 0 to 1, not {undo_from}")


def _check_adaptive_blur(size: int, groups: int | None) -> None:
    """Raises TinvError for a filter of fewer than 2 pixels, or fewer than one group."""
    if size < 2:
        raise TinvError(f"the size of an adaptive blur must be 2 pixels or more, not {size}")
    if groups is not None and groups < 1:
        raise TinvError(f"the groups of an adaptive blur must be 1 or more, not {groups}")


def _kernel(size: int, stride: int | Sequence[int]) -> tuple[int, ...]:
    """Returns the kernel of axes that have a stride, of one pixel on the others; two axes for a single number."""
    strides = (stride, stride) if isinstance(stride, int) else stride
    if len(strides) not in (1, 2, 3):
        raise TinvError(f"a stride is one number, or one for each of one to three axes, not {tuple(strides)}")
    return tuple(size if s > 1 else 1 for s in strides)


def _same(kernel: Sequence[int]) -> PadWidths:
    return [((k - 1) // 2, k // 2) for k in kernel]


def _wrapped(maps: Tensor, kernel: Sequence[int]) -> Tensor:
    return pad(maps, _same(kernel), "circular")


def _convolve(maps: Tensor, conv: Any, stride: Any = 1) -> Tensor:
    """Returns the convolution of padded maps with a layer's weights, in the precision of the maps."""
    bias = None if conv.bias is None else conv.bias.to(maps.dtype)
    weight = conv.weight.to(maps.dtype)
    return CONVOLUTIONS[len(conv.kernel_size) - 1](maps, weight, bias, stride=stride, groups=conv.groups)
