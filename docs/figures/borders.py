"""Figures on the border: how often a pixel is seen, what the border holds, and what a blank image leaves there."""

import torch
from matplotlib.figure import Figure
from style import BLUE, ORANGE, PALE_ORANGE, WHITE, cells, frame, new
from torch import Tensor
from torch.nn import functional as F

from tinv.nn import PaddedConv1d, PaddedConv2d, pad

SIZE, KERNEL = 5, 3
MODES = ("zeros", "circular", "reflect", "replicate", "background")


def positions_seen(padding: str) -> tuple[Tensor, int]:
    """Returns how many positions of a 3x3 kernel see each pixel of a 5x5 image, (5, 5), and the side of the output."""
    layer = PaddedConv2d(1, 1, KERNEL, padding=padding, bias=False)
    torch.nn.init.ones_(layer.weight)
    image = torch.ones(1, 1, SIZE, SIZE, requires_grad=True)
    output = layer(image)
    (seen,) = torch.autograd.grad(output.sum(), image)
    return seen[0, 0], output.shape[-1]


def coverage() -> Figure:
    """Valid, same and full: how many kernel positions see each pixel."""
    figure, axes = new(1.95, columns=3)
    for panel, padding in zip(axes, ("valid", "same", "full"), strict=True):
        counts, side = positions_seen(padding)
        panel.imshow(counts.numpy(), cmap="Blues", vmin=0, vmax=16)
        for (row, column), count in zip(torch.cartesian_prod(*[torch.arange(SIZE)] * 2), counts.flatten(), strict=True):
            panel.text(column, row, f"{count:g}", ha="center", va="center")
        panel.set(title=f"{padding}", xlabel=f"output {side}x{side}", xticks=[], yticks=[])
        panel.spines[:].set_visible(False)
    return figure


def padded_rows() -> dict[str, Tensor]:
    """Returns, for each padding mode, the map 1 2 3 4 5 with two more pixels a side, (9,)."""
    row = torch.arange(1.0, 6).view(1, 1, 5)
    background = torch.full((1, 1, 1), 0.5)
    return {mode: pad(row, [(2, 2)], mode, background)[0, 0] for mode in MODES}


def border_contents() -> Figure:
    """What the border of a map holds under each padding mode."""
    figure, [axes] = new(2.0)
    colors = [PALE_ORANGE] * 2 + [WHITE] * 5 + [PALE_ORANGE] * 2
    for number, (mode, row) in enumerate(padded_rows().items()):
        cells(axes, row.tolist(), 1.25 * number + 0.1, colors)
        axes.text(-0.3, 1.25 * number + 0.63, mode, ha="right", va="center")
    frame(axes, -4, 9.1, 6.3)
    return figure


def blank_responses() -> dict[str, Tensor]:
    """Returns what two convolutions with biases make of a blank row of 12 pixels, by the padding of the second."""
    first, second = PaddedConv1d(1, 1, 3), PaddedConv1d(1, 1, 3)
    with torch.no_grad():
        for layer, bias in ((first, 1.0), (second, 0.5)):
            layer.weight.copy_(torch.tensor([[[0.25, 0.5, 0.25]]]))
            layer.bias.fill_(bias)
        blank = torch.zeros(1, 1, 12)
        constant = F.relu(first(blank)).amax(dim=2, keepdim=True)  # the response far from any border
        found = {}
        for mode in ("zeros", "background"):
            layer = PaddedConv1d(1, 1, 3, padding_mode=mode)
            layer.load_state_dict(second.state_dict())
            found[mode] = layer(F.relu(first(blank)), constant if mode == "background" else None)[0, 0]
    return found


def background() -> Figure:
    """A blank image after two layers with biases, the second padded with zeros or with the background."""
    figure, [axes] = new(2.2)
    for (mode, response), color, style in zip(blank_responses().items(), (ORANGE, BLUE), ("o-", "s--"), strict=True):
        axes.plot(range(len(response)), response, style, color=color, markersize=4, label=mode)
    axes.set(xlabel="position", ylabel="response", ylim=(1.1, 1.55), xticks=range(0, 12, 2))
    axes.legend(frameon=False, loc="lower center", ncols=2)
    return figure
