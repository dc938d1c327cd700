"""What torch's, timm's and tinv's layers slide over a map, and the padding that is a step of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from torch import nn
from torch.nn.modules import padding as pads
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from tinv.nn.pad_widths import axis_modes, to_ntuple, window_count, window_widths
from tinv.nn.padding import PaddedConv
from tinv.nn.pooling import Pool
from tinv.nn.subsampling import Subsampler


@dataclass(frozen=True)
class Window:
    """What slides over a map, a number for each of its spatial axes.

    Attributes:
        kernel: Pixels.
        stride: Pixels.
        dilation: Pixels.
        pad_widths: (left, right) in pixels; None where TensorFlow's SAME rule finds them from the size of the map.
        padding_mode: What it holds.
        ceil_mode: Whether the last window may end outside of the map.
        count_include_pad: Whether an average counts zeros at the border.
    """

    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    pad_widths: tuple[tuple[int, int], ...] | None
    padding_mode: str = "zeros"
    ceil_mode: bool = False
    count_include_pad: bool = True

    @property
    def is_padded(self) -> bool:
        """Whether it is known to add pixels; False where the size of the map decides."""
        return any(any(pair) for pair in self.pad_widths or ())

    def effective_kernel_size(self, axis: int) -> int:
        """Returns the pixels that the window covers on an axis."""
        return self.dilation[axis] * (self.kernel[axis] - 1) + 1

    def widths(self, axis: int, size: int) -> tuple[int, int]:
        """Returns the padding (left, right) on a map of `size` pixels."""
        if self.pad_widths is not None:
            return self.pad_widths[axis]
        stride = self.stride[axis]
        total = max(0, (-(-size // stride) - 1) * stride + self.effective_kernel_size(axis) - size)
        return total // 2, total - total // 2

    def mode_of(self, axis: int) -> str:
        """Returns the padding mode of an axis."""
        return axis_modes(self.padding_mode, len(self.kernel))[axis]

    def output_size(self, axis: int, size: int) -> int:
        """Returns how many windows there are on a map of `size` pixels."""
        effective, stride = self.effective_kernel_size(axis), self.stride[axis]
        return window_count(size, self.widths(axis, size), effective, stride, self.ceil_mode)

    def is_trivial(self, axis: int) -> bool:
        """Returns whether each position is a pixel."""
        return self.kernel[axis] == 1 and self.stride[axis] == 1


@dataclass(frozen=True)
class Pads:
    """Padding that is a step of its own.

    Attributes:
        widths: Pixels (left, right) of the last axes of the tensor, in their order; negative where it crops.
        padding_mode: What is added; `constant` for a number that is not zero.
        fixed: Whether the widths are numbers, and not found from the size of the map.
    """

    widths: tuple[tuple[int, int], ...]
    padding_mode: str = "zeros"
    fixed: bool = True

    def of(self, dim: int, rank: int) -> tuple[int, int]:
        """Returns the widths of an axis of a tensor with `rank` axes."""
        axis = dim - (rank - len(self.widths))
        return self.widths[axis] if axis >= 0 else (0, 0)

    def mode_of(self, dim: int, rank: int) -> str:
        """Returns the padding mode of a spatial axis of a map with `rank` axes."""
        return axis_modes(self.padding_mode, rank - 2)[dim - 2]


def written_pads(flat: Sequence[Any], mode: str, value: Any, fixed: bool) -> Pads | None:
    """Returns padding from the arguments of `torch.nn.functional.pad`; None for those that are not numbers."""
    if not all(isinstance(width, int) for width in flat):
        return None
    pairs = tuple((flat[i], flat[i + 1]) for i in range(0, len(flat) - 1, 2))[::-1]
    if mode == "constant":
        mode = "constant" if value else "zeros"
    return Pads(pairs, mode, fixed)


def padding_module(module: nn.Module) -> Pads | None:
    """Returns what one of torch's padding modules adds."""
    modes: dict[type, str] = {
        pads._ConstantPadNd: "constant",
        pads._ReflectionPadNd: "reflect",
        pads._ReplicationPadNd: "replicate",
        pads._CircularPadNd: "circular",
    }
    mode = next((mode for kind, mode in modes.items() if isinstance(module, kind)), None)
    if mode is None:
        return None
    return written_pads(cast(Any, module).padding, mode, getattr(module, "value", 0), True)


def conv_window(module: _ConvNd) -> Window:
    """Returns the window of a convolution of torch, timm or tinv."""
    kernel, stride, dilation = tuple(module.kernel_size), tuple(module.stride), tuple(module.dilation)
    if isinstance(module, PaddedConv):
        # the verdict holds in evaluation, where random padding is that of zeros
        mode = str(module.padding_mode)
        mode = "zeros" if mode == "random" else mode
        return Window(kernel, stride, dilation, tuple(module.pad_widths), mode)
    widths = None if is_tensorflow_same(module) else window_widths(cast(Any, module.padding), kernel, dilation)
    return Window(kernel, stride, dilation, widths, module.padding_mode)


def _one(value: Any) -> Any:
    # torch takes (1,) for 1 on every axis
    return value[0] if isinstance(value, Sequence) and not isinstance(value, str) and len(value) == 1 else value


def is_tensorflow_same(module: nn.Module) -> bool:
    """Returns whether a layer of timm finds its padding from the size of the map, as TensorFlow's SAME does."""
    if hasattr(module, "same_pad"):
        return bool(module.same_pad)
    return type(module).__name__ in ("Conv2dSame", "Conv2dSameExport", "AvgPool2dSame", "MaxPool2dSame")


def functional_window(
    axes: int, kernel_size: Any, stride: Any = None, padding: Any = 0, dilation: Any = 1, same: bool = False, **how: Any
) -> Window:
    """Returns the window of a convolution, pool or `unfold` on `axes` spatial axes from torch's arguments of it.

    With `same`, its padding is found from the size of the map, as in TensorFlow. `how` is `ceil_mode` and
    `count_include_pad`.
    """
    stride = stride if stride not in (None, (), []) else kernel_size
    size, steps, spread = (to_ntuple(_one(value), axes) for value in (kernel_size, stride, dilation))
    widths = None if same else window_widths(_one(padding), size, spread)
    return Window(size, steps, spread, widths, **how)


def own_pool_window(module: Pool, axes: int) -> Window:
    """Returns the window of tinv's pool."""
    kernel, stride, dilation = (to_ntuple(v, axes) for v in (module.kernel_size, module.stride, module.dilation))
    widths, mode = module.pad_widths(kernel, dilation), module.padding_mode
    return Window(kernel, stride, dilation, widths, mode, module.ceil_mode, module.count_include_pad)


def blur_window(module: nn.Module, axes: int) -> Window:
    """Returns the window of a blur of timm or tinv, or of the blur of an adaptive layer."""
    if isinstance(module, Subsampler):
        kernel, stride = tuple(module.window(axes)), to_ntuple(module.stride, axes)
        widths = tuple(module.pad_widths(axes))
        return Window(kernel, stride, (1,) * axes, widths, module.padding_mode, module.ceil_mode)
    timms = cast(Any, module)
    modes: Mapping[str, str] = {"constant": "zeros"}
    width, mode = timms.padding[0], modes.get(timms.pad_mode, timms.pad_mode)
    size, stride = (timms.filt_size,) * 2, (timms.stride,) * 2
    return Window(size, stride, (1, 1), ((width, width),) * 2, mode)


def expands_exactly(module: _ConvTransposeNd) -> bool:
    """Returns whether each position becomes a block of its own: a kernel as large as the stride, no padding."""
    return (
        tuple(module.kernel_size) == tuple(module.stride)
        and not any(cast(tuple[int, ...], module.padding))
        and not any(module.output_padding)
        and set(module.dilation) == {1}
    )


def plain_conv(conv: _ConvNd) -> _ConvNd:
    """Returns a layer of timm that finds its padding from the size of the map as one of torch's, with its weights."""
    if not is_tensorflow_same(conv):
        return conv
    if hasattr(conv, "same_pad"):
        conv.same_pad = False  # type: ignore[assignment]
        return conv
    plain = nn.Conv2d.__new__(nn.Conv2d)
    plain.__dict__.update(conv.__dict__)
    return plain


def set_conv(conv: _ConvNd, window: Window, padding: list[int]) -> None:
    """Changes a convolution of torch or timm in place; its weights stay what they are."""
    conv.stride, conv.dilation, conv.padding = window.stride, window.dilation, tuple(padding)
    conv.padding_mode = "zeros"
    conv._reversed_padding_repeated_twice = [p for p in reversed(padding) for _ in range(2)]


def sizes_text(values: Sequence[int]) -> str:
    """Returns sizes as a message shows them: one number if they are equal."""
    return str(values[0]) if len(set(values)) == 1 else "x".join(map(str, values))


def padding_text(window: Window) -> str:
    """Returns the padding of a window as a message shows it."""
    if window.pad_widths is None:
        return "TensorFlow's same"
    pairs = [str(left) if left == right else f"{left}+{right}" for left, right in window.pad_widths]
    text = pairs[0] if len(set(pairs)) == 1 else "x".join(pairs)
    return text if text == "0" or window.padding_mode == "zeros" else f"{text} {window.padding_mode}"
