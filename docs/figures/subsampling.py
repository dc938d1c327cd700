"""Figures on subsampling: stride, blur, adaptive polyphase sampling, the kernel of a pool, and the head."""

import torch
from matplotlib.figure import Figure
from style import BLUE, GRAY, ORANGE, PALE_BLUE, PALE_ORANGE, WHITE, cells, frame, new
from torch import Tensor
from torch.nn import functional as F

from tinv.nn import AdaptivePolyphaseSampling, BlurPool, PaddedConv1d, Pool

SIGNAL = torch.tensor([0.0, 0, 0, 0, 1, 2, 0, 0, 0, 0])
"""The signal of Mouton et al. (2020); their kernel is 1 0 1."""
EDGES = torch.tensor([0.0, 0, 1, 1, 0, 0, 1, 1])
"""The signal of Zhang (ICML 2019)."""
ADAPTIVE = torch.tensor([1.0, 0, 3, 1, 2, 0, 1, 1])
KERNELS = (1, 2, 3, 4, 5)


def rolled(signal: Tensor, shift: int) -> Tensor:
    """Returns a signal (L,) moved to the right on a circle, as a batch (1, 1, L)."""
    return signal.roll(shift).view(1, 1, -1)


def strided(step: int, shift: int) -> Tensor:
    """Returns the valid convolution of the moved signal with 1 0 1 at a stride."""
    layer = PaddedConv1d(1, 1, 3, padding="valid", stride=step, bias=False)
    with torch.no_grad():
        layer.weight.copy_(torch.tensor([[[1.0, 0, 1]]]))
        output: Tensor = layer(rolled(SIGNAL, shift))
    return output[0, 0]


def stride() -> Figure:
    """The output of a convolution with stride 2 for three shifts of its input, which are not shifts of one another."""
    figure, [axes] = new(2.45)
    for number, shift in enumerate((0, 1, 2)):
        for column, step in ((0, 1), (9.5, 2)):
            output = strided(step, shift)
            colors = [PALE_BLUE if value else WHITE for value in output]
            cells(axes, output.tolist(), 2.4 * number + 2.2, colors, column)
        axes.text(0, 2.4 * number + 1.75, f"input shifted by {shift}", color=GRAY, va="center")
    axes.text(0, 0.6, "stride 1", va="center", weight="bold")
    axes.text(9.5, 0.6, "stride 2", va="center", weight="bold")
    frame(axes, -0.1, 13.6, 8.2)
    return figure


def edges_subsampled(blurred: bool, shift: int) -> Tensor:
    """Returns the moved edges after a maximum of two pixels and stride 2, with or without a blur before the stride."""
    image = rolled(EDGES, shift)
    dense = Pool("max", 2, 1, padding=[(0, 1)], padding_mode="circular")
    output: Tensor = BlurPool(3, 2, padding_mode="circular")(dense(image)) if blurred else Pool("max", 2, 2)(image)
    return output[0, 0]


def blur() -> Figure:
    """Max pooling of a pattern of edges and of the pattern moved by one, without and with a blur before the stride."""
    figure, [axes] = new(2.2)
    for column, blurred in ((0, False), (6.2, True)):
        for number, shift in enumerate((0, 1)):
            output = edges_subsampled(blurred, shift)
            colors = [PALE_BLUE if value else WHITE for value in output]
            for place, value in enumerate(output.tolist()):
                cells(axes, [value], 2.3 * number + 2.2, [colors[place]], column + 1.05 * place)
            axes.text(column, 2.3 * number + 1.75, f"shifted by {shift}", color=GRAY, va="center")
        axes.text(column, 0.6, "blur, then stride" if blurred else "stride alone", va="center", weight="bold")
    frame(axes, -0.1, 10.6, 5.7)
    return figure


def phases(shift: int) -> tuple[Tensor, int]:
    """Returns both components (2, 4) of the moved signal, and the number of the one that is kept."""
    layer = AdaptivePolyphaseSampling(2, padding_mode="circular")
    components = layer.components(rolled(ADAPTIVE, shift))
    return components[0, :, 0], int(layer.choose(components))


def adaptive() -> Figure:
    """The two phases of a signal, and the one that adaptive polyphase sampling keeps, for two shifts."""
    figure, [axes] = new(3.5)
    for number, shift in enumerate((0, 1)):
        top = 4.9 * number
        components, chosen = phases(shift)
        axes.text(0, top + 0.45, f"input shifted by {shift}", color=GRAY, va="center")
        cells(axes, rolled(ADAPTIVE, shift)[0, 0].tolist(), top + 0.9, [PALE_BLUE, PALE_ORANGE] * 4)
        for phase, (component, color) in enumerate(zip(components, (PALE_BLUE, PALE_ORANGE), strict=True)):
            row = top + 2.15 + 1.15 * phase
            cells(axes, component.tolist(), row, [color] * 4)
            norm = float(component.norm())
            words = f"norm {norm:.2f}" + (", kept" if phase == chosen else "")
            axes.text(4.3, row + 0.53, words, va="center", weight="bold" if phase == chosen else "normal")
    frame(axes, -0.1, 9.2, 9.5)
    return figure


def pooled_similarity(kernel: int, step: int = 4) -> float:
    """Returns the mean cosine similarity of pooled random signals and of the same signals moved by one pixel."""
    signals = torch.rand(500, 1, 64, generator=torch.Generator().manual_seed(0))
    layer = Pool("max", kernel, step, padding="same", padding_mode="circular")
    first, second = layer(signals), layer(signals.roll(1, dims=2))
    return float(F.cosine_similarity(first - first.mean(), second - second.mean(), dim=2).mean())


def pooling() -> Figure:
    """How similar pooled signals stay when the input moves by one pixel, over the kernel size of the pool."""
    figure, [axes] = new(2.2)
    values = [pooled_similarity(kernel) for kernel in KERNELS]
    axes.bar(KERNELS, values, color=BLUE, width=0.65)
    axes.axhline(0, color=GRAY, linewidth=0.6)
    for kernel, value in zip(KERNELS, values, strict=True):
        axes.text(kernel, max(value, 0) + 0.02, f"{value:.2f}", ha="center")
    axes.set(xlabel="kernel size of the max pool, stride 4", ylabel="cosine similarity", ylim=(-0.03, 0.85))
    return figure


def head_outputs() -> dict[str, tuple[Tensor, Tensor]]:
    """Returns what each head makes of a map (4, 4) and of the map moved right by one, as vectors."""
    image = torch.zeros(1, 1, 4, 4)
    image[..., 1:3, 0:2] = torch.tensor([[2.0, 4], [6, 4]])
    moved = image.roll(1, dims=3)
    heads = {"map": torch.nn.Identity(), "mean": Pool("average", 4, 4), "maximum": Pool("max", 4, 4)}
    return {name: (layer(image).flatten(), layer(moved).flatten()) for name, layer in heads.items()}


def head() -> Figure:
    """A last map and the same map moved: flattened they differ, their mean and maximum are equal."""
    figure, axes = new(2.5, columns=2)
    outputs = head_outputs()
    flat = outputs["map"]
    similarity = float(F.cosine_similarity(*flat, dim=0))
    for panel, number, title in zip(axes, (0, 1), ("last map", "moved by one"), strict=True):
        panel.imshow(flat[number].view(4, 4).numpy(), cmap="Blues", vmin=0, vmax=12)
        for place, value in enumerate(flat[number].tolist()):
            panel.text(place % 4, place // 4, f"{value:g}", ha="center", va="center")
        mean, maximum = (float(outputs[name][number]) for name in ("mean", "maximum"))
        panel.set(title=title, xlabel=f"mean {mean:g}, maximum {maximum:g}", xticks=[], yticks=[])
        panel.spines[:].set_visible(False)
    figure.supxlabel(f"cosine of the flattened maps: {similarity:.2f}", fontsize=9, color=ORANGE)
    return figure
