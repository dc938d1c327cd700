"""How well every layer moves along: zero where the policy is exact, and equal to shifting by hand."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from tinv.artifacts import write_artifacts
from tinv.errors import TinvError
from tinv.metrics import LayerEquivariance
from tinv.models import create_backbone
from tinv.surgery.convert import convert


def network_with_statistics() -> nn.Module:
    torch.manual_seed(0)
    network = create_backbone("resnet18", "torchvision", num_classes=4).double().eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.running_mean, std=0.1)
            nn.init.normal_(module.bias, std=0.1)
    return network


def small_network() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 8, 3, stride=2, padding=1), nn.ReLU(inplace=True), nn.Conv2d(8, 8, 3, stride=2, padding=1)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)).double().eval()


def update(metric: LayerEquivariance, network: nn.Module, images: torch.Tensor, index: torch.Tensor) -> None:
    metric.update(network, images, torch.zeros(len(images), 4), torch.zeros(len(images), dtype=torch.long), index)


@pytest.mark.parametrize(
    ("padding", "mode", "exact"),
    [
        ("keep", "circular", False),
        ("same_circular", "circular", True),
        ("keep", "zero", False),
        ("full_zero", "zero", False),
        ("full_background", "zero", True),
        ("keep", "crop", False),
    ],
)
def test_errors_are_zero_where_the_policy_is_exact(padding, mode, exact):
    network, example = network_with_statistics(), torch.zeros(1, 3, 64, 64, dtype=torch.float64)
    if padding != "keep":
        network = convert(network, padding, pool="full" if "full" in padding else "keep", example_input=example)
    layers = LayerEquivariance(32, mode)
    side = 96 if mode == "crop" else 64
    images = torch.randn(2, 3, side, side, dtype=torch.float64)
    if mode == "zero":
        inside = torch.zeros_like(images)
        inside[:, :, 16:-16, 16:-16] = images[:, :, 16:-16, 16:-16]
        images = inside
    update(layers, network, images, torch.arange(2))
    errors = layers.errors()
    assert layers.layers.shift == 32
    assert {error.stride for error in errors} == {2, 4, 8, 16, 32}
    assert errors[0].layer == "conv1"
    largest = max(error.error for error in errors)
    assert largest < 1e-9 if exact else largest > 0.05
    assert float(layers.compute()["layer_error_last"]) == errors[-1].error


@pytest.mark.parametrize("mode", ["crop", "zero", "circular"])
def test_errors_equal_a_slow_reference(mode):
    """The second convolution, one image at a time, shifted by hand."""
    network, reach, shift = small_network(), 6, 4  # 4 is the multiple of strides 2 and 4 that fits
    side = 24 + (reach if mode == "crop" else 0)
    images = torch.randn(5, 3, side, side, dtype=torch.float64)
    layers = LayerEquivariance(reach, mode)
    update(layers, network, images, torch.arange(5))
    assert layers.layers.shift == shift
    expected = []
    for image in images:
        if mode == "crop":
            image = image[:, 1:-1, 1:-1]  # 28 of 30 pixels
            before, after = image[:, 4:, 4:], image[:, :-4, :-4]
        else:
            before, after = (image.roll((by, by), (1, 2)) for by in (-2, 2))
            if mode == "zero":
                before, after = before.clone(), after.clone()
                before[:, -2:], before[:, :, -2:], after[:, :2], after[:, :, :2] = 0, 0, 0, 0
        with torch.no_grad():
            still, moved = (network[:3](x[None])[0] for x in (before, after))
        if mode == "circular":
            still = still.roll((1, 1), (1, 2))
        else:
            still, moved = still[:, :-1, :-1], moved[:, 1:, 1:]
        expected.append(float((still - moved).norm() / still.norm()))
    found = layers.errors()
    assert [error.layer for error in found] == ["0", "1", "2"]
    assert found[2].error == pytest.approx(sum(expected) / 5, rel=1e-9)
    # intervals: means of images drawn with replacement
    assert min(expected) < found[2].low < found[2].error < found[2].high < max(expected)


def test_results_do_not_depend_on_batches_and_are_of_the_first_images_only():
    network, images = small_network(), torch.randn(9, 3, 20, 20, dtype=torch.float64)
    one, other = (LayerEquivariance(4, "circular", max_images=7) for _ in range(2))
    update(one, network, images, torch.arange(9))
    for index in torch.randperm(9, generator=torch.Generator().manual_seed(0)).split(2):
        update(other, network, images[index], index)
    assert [vars(error) for error in one.errors()] == [pytest.approx(vars(error)) for error in other.errors()]
    first = LayerEquivariance(4, "circular")
    update(first, network, images[:7], torch.arange(7))
    assert first.compute() == one.compute()


def test_all_layers_are_written_and_drawn(tmp_path):
    layers = LayerEquivariance(4, "circular")
    assert write_artifacts(layers, tmp_path, "layers") == []
    assert layers.compute() == {}
    update(layers, small_network(), torch.randn(3, 3, 20, 20, dtype=torch.float64), torch.arange(3))
    assert write_artifacts(layers, tmp_path, "layers") == [tmp_path / "layers.npz", tmp_path / "layers.png"]
    kept = np.load(tmp_path / "layers.npz")
    assert kept["layer"].tolist() == ["0", "1", "2"]
    assert kept["stride"].tolist() == [2, 2, 4]
    assert kept["error"].tolist() == [error.error for error in layers.errors()]
    assert kept["shift"] == 4
    assert sorted(path.name for path in tmp_path.iterdir()) == ["layers.npz", "layers.png"]


def test_what_cannot_be_measured_is_said_before_any_training():
    with pytest.raises(
        TinvError, match="metric layer_error: no map of the network has a stride of at most max_stride=1"
    ):
        LayerEquivariance(1, "circular").check(network_with_statistics(), (3, 32, 32))
    with pytest.raises(TinvError, match="metric layer_error is for images; use ClipShiftMap"):
        LayerEquivariance(4).check(small_network(), (3, 8, 32, 32))


def _two_processes(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    # of the three images that count, the second process has none
    index = torch.arange(3) if rank == 0 else torch.arange(3, 6)
    metric = LayerEquivariance(4, "circular", max_images=3)
    update(metric, small_network(), _images()[index], index)
    found = metric.compute()
    if rank == 1:
        torch.save(found, f"{folder}/results.pt")
    dist.destroy_process_group()


def _images() -> torch.Tensor:
    return torch.randn(6, 3, 20, 20, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.slow
def test_a_process_without_images_takes_part(tmp_path: Path):
    mp.spawn(_two_processes, args=(str(tmp_path),), nprocs=2)
    alone = LayerEquivariance(4, "circular", max_images=3)
    update(alone, small_network(), _images(), torch.arange(6))
    found = torch.load(tmp_path / "results.pt", weights_only=True)
    assert {k: float(v) for k, v in found.items()} == pytest.approx({k: float(v) for k, v in alone.compute().items()})
