"""What torch's, timm's and tinv's layers slide over a map, and the padding that is a step of its own."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

from torch import nn
from torch.nn.modules import padding as pads
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from tinv.nn.padding import Content, PaddedConv, each_axis, same_widths
from tinv.nn.pooling import Pool
from tinv.nn.subsampling import Subsampler


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
    content: Content = "zeros"
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

    def cells(self, axis: int, size: int) -> int:
        """Returns how many windows there are on a map of `size` pixels."""
        left, right = self.padding(axis, size)
        room, stride = size + left + right - self.reach(axis) - 1, self.stride[axis]
        if not self.ceil_mode:
            return room // stride + 1
        windows = -(-room // stride) + 1
        # torch drops a last window that would begin in the padding on the right
        return windows - 1 if (windows - 1) * stride >= size + left else windows

    def is_trivial(self, axis: int) -> bool:
        """Returns whether each cell is a pixel."""
        return self.kernel[axis] == 1 and self.stride[axis] == 1


@dataclass(frozen=True)
class Pads:
    """Padding that is a step of its own.

    Attributes:
        amounts: pixels (left, right) of the last axes of the tensor, in their order; negative where it crops.
        content: of what is added; `constant` for a number that is not zero.
        fixed: whether the amounts are numbers, and not found from the size of the map.
    """

    amounts: tuple[tuple[int, int], ...]
    content: str = "zeros"
    fixed: bool = True

    def of(self, dim: int, rank: int) -> tuple[int, int]:
        """Returns the amounts of an axis of a tensor with `rank` axes."""
        place = dim - (rank - len(self.amounts))
        return self.amounts[place] if place >= 0 else (0, 0)


def written_pads(flat: Sequence[Any], mode: str, value: Any, fixed: bool) -> Pads | None:
    """Returns padding from the arguments of `torch.nn.functional.pad`; None for those that are not numbers."""
    if not all(isinstance(amount, int) for amount in flat):
        return None
    pairs = tuple((flat[i], flat[i + 1]) for i in range(0, len(flat) - 1, 2))[::-1]
    if mode == "constant":
        mode = "constant" if value else "zeros"
    return Pads(pairs, mode, fixed)


def padding_module(module: nn.Module) -> Pads | None:
    """Returns what one of torch's padding modules adds."""
    contents: dict[type, str] = {
        pads._ConstantPadNd: "constant",
        pads._ReflectionPadNd: "reflect",
        pads._ReplicationPadNd: "replicate",
        pads._CircularPadNd: "circular",
    }
    mode = next((content for kind, content in contents.items() if isinstance(module, kind)), None)
    if mode is None:
        return None
    return written_pads(cast(Any, module).padding, mode, getattr(module, "value", 0), True)


def conv_window(module: _ConvNd) -> Window:
    """Returns the window of a convolution of torch, timm or tinv."""
    kernel, stride, dilation = tuple(module.kernel_size), tuple(module.stride), tuple(module.dilation)
    if isinstance(module, PaddedConv):
        return Window(kernel, stride, dilation, tuple(module.padding_amounts), module.padding_content)
    content = module.padding_mode
    if is_tensorflow_same(module):
        return Window(kernel, stride, dilation, None, cast(Content, content))
    return Window(kernel, stride, dilation, _amounts(module.padding, kernel, dilation), cast(Content, content))


def functional_conv_window(axes: int, kernel: Sequence[int], stride: Any, padding: Any, dilation: Any) -> Window:
    """Returns the window of `torch.nn.functional.conv1d`, `conv2d` or `conv3d`."""
    steps = tuple(each_axis(_one(stride), axes))
    spread = tuple(each_axis(_one(dilation), axes))
    padding = padding if isinstance(padding, str) else each_axis(_one(padding), axes)
    return Window(tuple(kernel), steps, spread, _amounts(padding, kernel, spread))


def _one(value: Any) -> Any:
    # torch takes (1,) for 1 on every axis
    return value[0] if isinstance(value, Sequence) and len(value) == 1 else value


def _amounts(padding: Any, kernel: Sequence[int], dilation: Sequence[int]) -> tuple[tuple[int, int], ...]:
    if padding == "same":
        return same_widths(kernel, dilation)
    if padding == "valid":
        return ((0, 0),) * len(kernel)
    return tuple((int(p), int(p)) for p in padding)


def is_tensorflow_same(module: nn.Module) -> bool:
    """Returns whether a layer of timm finds its padding from the size of the map, as TensorFlow's SAME does."""
    if hasattr(module, "same_pad"):
        return bool(module.same_pad)
    return type(module).__name__ in ("Conv2dSame", "Conv2dSameExport", "AvgPool2dSame", "MaxPool2dSame")


def pool_window(
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
    """Returns the window of a pool from its arguments as torch takes them."""

    def each(value: Any) -> tuple[int, ...]:
        values = tuple(value) if isinstance(value, Sequence) else (value,)
        return values * axes if len(values) == 1 else values

    amounts = None if same else tuple((p, p) for p in each(padding))
    strides = each(stride if stride not in (None, (), []) else kernel)
    return Window(each(kernel), strides, each(dilation), amounts, "zeros", bool(ceil_mode), counts)


def own_pool_window(module: Pool, axes: int) -> Window:
    """Returns the window of tinv's pool."""
    kernel, stride, dilation = (tuple(each_axis(v, axes)) for v in (module.kernel_size, module.stride, module.dilation))
    amounts = tuple(module.widths(kernel, dilation))
    content = module.padding_content
    return Window(kernel, stride, dilation, amounts, content, module.ceil_mode, module.count_padding)


def blur_window(module: nn.Module, axes: int) -> Window:
    """Returns the window of a blur of timm or tinv, or of the blur of an adaptive layer."""
    if isinstance(module, Subsampler):
        kernel, stride = tuple(module.window(axes)), tuple(each_axis(module.stride, axes))
        return Window(kernel, stride, (1,) * axes, tuple(module.padding_amounts(axes)), module.padding_content)
    timms = cast(Any, module)
    modes: Mapping[str, str] = {"constant": "zeros"}
    amount, content = timms.padding[0], modes.get(timms.pad_mode, timms.pad_mode)
    size, stride = (timms.filt_size,) * 2, (timms.stride,) * 2
    return Window(size, stride, (1, 1), ((amount, amount),) * 2, cast(Content, content))


def expands_exactly(module: _ConvTransposeNd) -> bool:
    """Returns whether each cell becomes a block of cells of its own: a kernel as large as the stride, no padding."""
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
    if window.amounts is None:
        return "TensorFlow's same"
    pairs = [str(left) if left == right else f"{left}+{right}" for left, right in window.amounts]
    text = pairs[0] if len(set(pairs)) == 1 else "x".join(pairs)
    return text if text == "0" or window.content == "zeros" else f"{text} {window.content}"
