"""What `convert` promises in float64: which shifts change nothing, and equality with hand-written networks."""

import pytest
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

from tinv import convert
from tinv.graph.analysis import analyze

NETWORKS = ["resnet18", "resnet50", "densenet121", "mobilenet_v2", "efficientnet_b0", "r3d_18"]
EXACT = 1e-9


def build(name: str, statistics: bool = False) -> nn.Module:
    """A float64 network in evaluation; with random norm statistics, shifts and biases if asked for."""
    torch.manual_seed(0)
    network = torchvision.models.get_model(name, weights=None, num_classes=10).double().eval()
    if statistics:
        for module in network.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.running_mean.normal_(0, 0.1)
                module.running_var.uniform_(0.5, 1.5)
                nn.init.uniform_(module.weight, 0.5, 1.5)
                nn.init.normal_(module.bias, 0, 0.2)
            elif isinstance(module, (nn.Conv2d, nn.Conv3d)) and module.bias is not None:
                nn.init.normal_(module.bias, 0, 0.1)
    return network


def total_stride(name: str) -> int:
    return 16 if name == "r3d_18" else 32


def random_images(name: str, size: int) -> torch.Tensor:
    return torch.randn(1, 3, *([2] if name == "r3d_18" else []), size, size, dtype=torch.double)


def on_canvas(content: torch.Tensor, size: int, row: int, column: int) -> torch.Tensor:
    canvas = content.new_zeros(*content.shape[:-2], size, size)
    canvas[..., row : row + content.shape[-2], column : column + content.shape[-1]] = content
    return canvas


@torch.no_grad()
def change(network: nn.Module, images: torch.Tensor, moved: torch.Tensor) -> float:
    """The largest change of a logit, as a part of the largest logit."""
    before = network(images)
    return float((network(moved) - before).abs().max() / before.abs().max())


@torch.no_grad()
def canvas_changes(network: nn.Module, name: str, unit: int) -> list[float]:
    """Content moved by multiples of `unit` between the corners and the middle of a canvas."""
    stride = total_stride(name)
    size, content = 3 * stride, random_images(name, stride)
    start = on_canvas(content, size, 0, 0)
    places = [(2 * stride, 2 * stride), (0, 2 * stride), (unit, 2 * stride - unit)]
    return [change(network, start, on_canvas(content, size, *place)) for place in places]


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_full_zero_is_exact_on_a_zero_canvas_in_a_fresh_network(name):
    network = convert(build(name), "full_zero", pool="full", example_input=random_images(name, 64))
    assert max(canvas_changes(network, name, total_stride(name))) < EXACT


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_full_background_is_exact_with_any_statistics_and_biases_and_full_zero_is_not(name):
    original, example = build(name, statistics=True), random_images(name, 64)
    zero = convert(original, "full_zero", pool="full", example_input=example)
    background = convert(original, "full_background", pool="full", example_input=example)
    stride = total_stride(name)
    assert max(canvas_changes(background, name, stride)) < EXACT
    # efficientnet's gates and mobilenet's clipped activations leave next to nothing of the border in the logits
    if name not in ("efficientnet_b0", "mobilenet_v2"):
        assert max(canvas_changes(zero, name, stride)) > 1e-4


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_same_circular_is_exact_under_circular_shifts_by_the_total_stride(name):
    stride = total_stride(name)
    images = random_images(name, 3 * stride)
    network = convert(build(name, statistics=True), "same_circular", example_input=images)
    assert change(network, images, images.roll((stride, -stride), (-2, -1))) < EXACT


@pytest.mark.slow
@pytest.mark.parametrize("name", NETWORKS)
def test_aps_with_same_circular_is_exact_under_every_circular_shift(name):
    images = random_images(name, 3 * total_stride(name))
    network = convert(build(name), "same_circular", "aps", stem="convert", example_input=images)
    for shift in [(1, 0), (0, 1), (3, 5), (-7, 2)]:
        assert change(network, images, images.roll(shift, (-2, -1))) < EXACT


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "r3d_18"])
def test_aps_with_full_background_is_exact_under_every_shift_on_a_zero_canvas(name):
    options = {"pool": "full", "stem": "convert", "example_input": random_images(name, 64)}
    network = convert(build(name, statistics=True), "full_background", "aps", **options)
    assert max(canvas_changes(network, name, 1)) < EXACT


@pytest.mark.parametrize("name", ["resnet18", "efficientnet_b0"])
def test_background_is_exact_with_the_statistics_of_the_batch(name):
    """In training mode: the same batch, every image moved alike."""
    example = random_images(name, 64)
    network = convert(build(name, statistics=True), "full_background", pool="full", example_input=example)
    network.train()
    for module in network.modules():
        if isinstance(module, nn.Dropout) or type(module).__name__ == "StochasticDepth":
            module.eval()
    content = torch.cat([random_images(name, 64), random_images(name, 64)])
    assert change(network, on_canvas(content, 128, 0, 0), on_canvas(content, 128, 64, 32)) < EXACT


# the verdict says what is measured


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "squeezenet1_1", "shufflenet_v2_x0_5", "mobilenet_v3_small"])
@pytest.mark.parametrize(
    ("padding", "subsampling", "options"),
    [
        ("keep", "keep", {}),
        ("full_zero", "keep", {}),
        ("full_background", "keep", {"pool": "full"}),
        ("full_background", "aps", {"pool": "full", "stem": "convert"}),
        ("same_circular", "keep", {}),
        ("same_circular", "keep", {"pool": "same"}),
        ("same_circular", "aps", {}),
        ("same_circular", "aps", {"stem": "convert"}),
    ],
)
def test_the_verdict_is_what_is_measured(name, padding, subsampling, options):
    images = random_images(name, 128)
    network = convert(build(name, statistics=True), padding, subsampling, example_input=images, **options)
    found = analyze(network, images).verdict
    content = random_images(name, 64)
    start = on_canvas(content, 128, 0, 0)

    def rolled(by: int) -> float:
        return change(network, images, images.roll((by, by), (-2, -1)))

    def carried(by: int) -> float:
        return change(network, start, on_canvas(content, 128, by, by))

    for standing, move in ((found.circular[0], rolled), (found.zero_canvas[0], carried)):
        if standing.unit is None:
            assert standing.layer
            assert max(move(32), move(64)) > 1e-14
            continue
        assert max(move(standing.unit), move(64 // standing.unit * standing.unit)) < EXACT
        if standing.unit > 1:
            assert standing.layer
            assert move(standing.unit // 2) > 1e-14


def test_the_verdict_names_the_pool_that_drops_the_last_row_and_what_helps():
    images = torch.zeros(1, 3, 224, 224, dtype=torch.double)
    original = build("densenet121")
    dropped = analyze(convert(original, "full_zero", example_input=images), images).verdict.zero_canvas[0]
    assert dropped.unit is None
    assert dropped.layer == "features.transition2.pool"
    helped = analyze(convert(original, "full_zero", pool="full", example_input=images), images).verdict.zero_canvas[0]
    assert helped.unit == 32


def test_the_verdict_sees_the_weights():
    images = torch.zeros(1, 3, 64, 64, dtype=torch.double)
    trained = convert(build("resnet18", statistics=True), "full_zero", example_input=images)
    standing = analyze(trained, images).verdict.zero_canvas[0]
    assert standing.unit is None
    assert "full_background" in standing.reason


@pytest.mark.parametrize("subsampling", ["blur2", "blur3", "aps_blur3"])
def test_full_convolution_with_blur_is_exact_on_a_zero_canvas(subsampling):
    original = build("resnet18", statistics=True)
    canvas = torch.zeros(1, 3, 96, 96, dtype=torch.double)
    policies = {"subsampling": subsampling, "pool": "full", "stem": "convert"}
    network = convert(original, "full_background", **policies, example_input=canvas)
    content = torch.randn(1, 3, 32, 32, dtype=torch.double)
    unit = analyze(network, canvas).verdict.zero_canvas[0].unit
    assert unit == (1 if subsampling.startswith("aps") else 32)
    start = on_canvas(content, 96, 0, 0)
    # flush with the opposite corner, too
    assert max(change(network, start, on_canvas(content, 96, *to)) for to in ((unit, 0), (64, 64))) < EXACT


# networks written out by hand from the description of Kayhan & van Gemert (protocols of section 4.3)


def blur(images: torch.Tensor, size: int, full: bool = False) -> torch.Tensor:
    """Zhang's BlurPool: normalised binomial filter, zero padding (m-1)/2, stride 2; m-1 in F+BlurPool networks."""
    row = torch.ones(1, dtype=images.dtype)
    for _ in range(size - 1):
        row = F.pad(row, (0, 1)) + F.pad(row, (1, 0))
    kernel = torch.outer(row, row) / row.sum() ** 2
    channels = images.shape[1]
    weight = kernel.expand(channels, 1, size, size)
    return F.conv2d(images, weight, stride=2, padding=size - 1 if full else (size - 1) // 2, groups=channels)


def by_hand(network: nn.Module, images: torch.Tensor, full: bool, blur_size: int | None) -> torch.Tensor:
    """S-Conv or F-Conv ResNet with or without BlurPool; the stem keeps its stride, the max pool is 2x2."""

    def conv(layer: nn.Conv2d, x: torch.Tensor, stride: int) -> torch.Tensor:
        padding = layer.kernel_size[0] - 1 if full else (layer.kernel_size[0] - 1) // 2
        return F.conv2d(x, layer.weight, stride=stride, padding=padding)

    def block(b: nn.Module, x: torch.Tensor) -> torch.Tensor:
        bottleneck = hasattr(b, "conv3")
        stride = b.stride
        thin = stride == 2 and blur_size is not None
        step = 1 if thin else stride
        # 3x3 layers of the main branch: how far full padding moves it, in pixels of the block's input
        if bottleneck:
            y = F.relu(b.bn1(conv(b.conv1, x, 1)))
            y = F.relu(b.bn2(conv(b.conv2, y, step)))
            y = blur(y, blur_size, full) if thin else y
            y = b.bn3(conv(b.conv3, y, 1))
            grown = 1
        else:
            y = F.relu(b.bn1(conv(b.conv1, x, step)))
            y = blur(y, blur_size, full) if thin else y
            y = b.bn2(conv(b.conv2, y, 1))
            grown = 1 + stride
        side = F.pad(x, (grown,) * 4) if full else x
        if b.downsample is not None:
            side = blur(side, blur_size, full) if thin else side
            side = b.downsample[1](conv(b.downsample[0], side, step))
        return F.relu(y + side)

    x = F.relu(network.bn1(conv(network.conv1, images, 2)))
    x = blur(F.max_pool2d(x, 2, 1), blur_size, full) if blur_size is not None else F.max_pool2d(x, 2, 2)
    for stage in (network.layer1, network.layer2, network.layer3, network.layer4):
        for b in stage:
            x = block(b, x)
    return network.fc(x.mean((2, 3)))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "resnet34", "resnet50"])
@pytest.mark.parametrize(("padding", "size"), [("full_zero", None), ("keep", 3), ("full_zero", 3), ("keep", 5)])
@pytest.mark.parametrize("pixels", [65, 72])
def test_converted_resnets_equal_hand_written_ones(name, padding, size, pixels):
    original = build(name, statistics=True)
    original.maxpool = nn.MaxPool2d(2, 2)
    images = torch.randn(2, 3, pixels, pixels, dtype=torch.double)
    subsampling = "keep" if size is None else f"blur{size}"
    # converted on another size than it runs on
    network = convert(original, padding, subsampling, example_input=torch.zeros(1, 3, 64, 64, dtype=torch.double))
    with torch.no_grad():
        expected = by_hand(original, images, padding == "full_zero", size)
        torch.testing.assert_close(network(images), expected, rtol=0, atol=1e-5 * float(expected.abs().max()))
        # to rounding, not only to the tolerance promised
        assert (network(images) - expected).abs().max() < 1e-12 * expected.abs().max()
