"""Figure on what is exact: the change of a small network's output over the shift of its input."""

import torch
from matplotlib.figure import Figure
from style import BLUE, GREEN, ORANGE, new
from torch import Tensor, nn

from tinv import convert
from tinv.policies.cards import Padding, Subsampling

SHIFTS = range(9)
# the network pads with same_zero as it stands
CIRCULAR: dict[str, tuple[Padding, Subsampling]] = {
    "same_zero": ("keep", "keep"),
    "same_circular": ("same_circular", "keep"),
    "same_circular, aps": ("same_circular", "aps"),
}
CANVAS: dict[str, tuple[Padding, Subsampling]] = {
    "same_zero": ("keep", "keep"),
    "full_background": ("full_background", "keep"),
    "full_background, aps": ("full_background", "aps"),
}


def network() -> nn.Module:
    """Returns three convolutions with random weights and biases, total stride 4, and a global mean."""
    torch.manual_seed(0)
    layers: list[nn.Module] = []
    for channels, stride in ((1, 1), (8, 2), (8, 2)):
        layers += [nn.Conv2d(channels, 8, 3, stride, padding=1), nn.ReLU()]
    head = [nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 10)]
    return nn.Sequential(*layers, *head).double().eval()


@torch.no_grad()
def changes(padding: Padding, subsampling: Subsampling, circular: bool) -> list[float]:
    """Returns the largest change of an output over the largest output, for each shift of the image to the right.

    Args:
        padding: Policy of convolutions.
        subsampling: Policy of strides.
        circular: Whether a full image is moved on a circle, or 10x10 pixels on a canvas of zeros.
    """
    image = torch.randn(1, 1, 32, 32, dtype=torch.double, generator=torch.Generator().manual_seed(1))
    if not circular:
        # it begins at the left border
        image[..., :11, :] = image[..., 21:, :] = image[..., 10:] = 0
    made = convert(network(), padding, subsampling, pool="full", stem="convert", example_input=image)
    # the deviation from the answer to a blank image is what the content says
    blank = made(torch.zeros_like(image))
    answers: list[Tensor] = [made(image.roll(shift, dims=3)) - blank for shift in SHIFTS]
    return [float((answer - answers[0]).abs().max() / answers[0].abs().max()) for answer in answers]


def exactness() -> Figure:
    """The relative change over the shift: circular shifts above, content on a canvas of zeros below."""
    figure, axes = new(4.9, rows=2)
    panels = ((CIRCULAR, True, "circular shift"), (CANVAS, False, "content on a zero canvas"))
    for panel, (policies, circular, title) in zip(axes, panels, strict=True):
        for (name, policy), color, style in zip(
            policies.items(), (ORANGE, BLUE, GREEN), ("o-", "s-", "^-"), strict=True
        ):
            panel.plot(SHIFTS, changes(*policy, circular), style, color=color, markersize=4.5, label=name)
        panel.set(title=title, ylabel="relative change", xticks=SHIFTS)
        panel.margins(y=0.12)
        panel.legend(frameon=False, fontsize=8, loc="lower center", bbox_to_anchor=(0.5, 1.1), ncols=2)
        for stop in (4, 8):
            panel.axvline(stop, color="#cccccc", linewidth=0.8, zorder=0)
    axes[-1].set_xlabel("shift in pixels (total stride 4)")
    return figure
