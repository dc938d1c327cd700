"""Stitched tiles equal the whole; tiles that are not aligned differ; what no tile can give is refused by name."""

import pytest
import timm
import torch
import torchvision
from torch import nn

import tinv
from tinv.errors import TinvError
from tinv.graph.tile_plan import tile_plan
from tinv.graph.tile_proof import proof_plan, prove, unaligned
from tinv.graph.trunk import trunk_of


def seeded(network: nn.Module) -> nn.Module:
    """The network in float64 and evaluation, with statistics and biases that are not zero."""
    generator = torch.Generator().manual_seed(0)
    for name, tensor in (*network.named_parameters(), *network.named_buffers()):
        if tensor.is_floating_point():
            tensor.data = torch.randn(tensor.shape, generator=generator) * 0.1 + ("running_var" in name)
    return network.double().eval()


class TwoScales(nn.Module):
    """Maps of two strides in a dictionary, one of them after an upsampling."""

    def __init__(self) -> None:
        super().__init__()
        self.down = nn.Sequential(nn.Conv2d(3, 4, 5, 2, 2), nn.ReLU(), nn.Conv2d(4, 4, 3, 2, 1))
        self.up = nn.Sequential(nn.Upsample(scale_factor=4, mode="bilinear"), nn.Conv2d(4, 3, 3, padding=1))

    def forward(self, images: torch.Tensor) -> dict[str, torch.Tensor]:
        coarse = self.down(images)
        return {"coarse": coarse, "fine": self.up(coarse)}


NETWORKS = {
    "squeezenet": lambda: torchvision.models.squeezenet1_1(weights=None),
    "tensorflow padding": lambda: timm.create_model("tf_efficientnet_lite0", num_classes=10).blocks[:2],
    "odd strides": lambda: nn.Sequential(
        nn.Conv2d(3, 4, 5, 3, 1), nn.ReLU(), nn.MaxPool2d(3, 2, 1), nn.Conv2d(4, 2, 2)
    ),
    "two scales": TwoScales,
    "ceil mode": lambda: nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.MaxPool2d(3, 2, ceil_mode=True), nn.Conv2d(4, 2, 1)),
    "reflected": lambda: nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1, padding_mode="reflect"), nn.Conv2d(4, 4, 3, padding=1)),
}
SIZES = {"squeezenet": ((299, 251), 219), "tensorflow padding": ((101, 90), 52)}


def plan_of(name: str):
    network = seeded(NETWORKS[name]())
    image, tile = SIZES.get(name, ((91, 74), 40))
    if name == "squeezenet":
        network = trunk_of(network, torch.zeros(1, 3, 224, 224, dtype=torch.double))
    channels = 32 if name == "tensorflow padding" else 3
    return network, tile_plan(network, image, tile, channels), torch.randn(1, channels, *image, dtype=torch.double)


@pytest.mark.parametrize("name", NETWORKS)
def test_stitched_equals_whole_and_unaligned_does_not(name):
    network, plan, image = plan_of(name)
    assert len(plan.tiles) > 4
    proof = prove(network, plan, image)
    assert proof.aligned < 1e-12
    assert proof.unaligned is None or proof.unaligned > 1e-7
    assert (proof.unaligned is None) == (unaligned(plan) is None)


@pytest.mark.parametrize("name", ["odd strides", "two scales"])
def test_tiles_cover_every_position_once_and_begin_at_multiples(name):
    network, plan, image = plan_of(name)
    for axis, tiles in enumerate(plan.axes):
        assert all(tile.start % plan.alignment[axis] == 0 for tile in tiles)
        assert tiles[-1].start + plan.tile_size[axis] == plan.image_size[axis]
        for number, size in enumerate(plan.outputs):
            positions = [to + k for tile in tiles for _, to, count in [tile.parts[number]] for k in range(count)]
            assert positions == list(range(size[axis]))
    # every tile gives what it says: a position of one tile alone has the value of the whole
    whole = network(image)
    tile = plan.tiles[len(plan.tiles) // 2]
    window = image[
        ..., tile[0].start : tile[0].start + plan.tile_size[0], tile[1].start : tile[1].start + plan.tile_size[1]
    ]
    made, true = network(window), whole
    if isinstance(made, dict):
        made, true = made["coarse"], whole["coarse"]
    (y, to_y, _), (x, to_x, _) = (axis.parts[0] for axis in tile)
    torch.testing.assert_close(made[..., y, x], true[..., to_y, to_x])


def test_one_pixel_fewer_than_is_kept_would_differ():
    """The halo is no larger than it has to be: the next position of a tile has another value."""
    network = seeded(nn.Sequential(nn.Conv2d(1, 2, 3, 2, 1), nn.Conv2d(2, 2, 3, padding=1)))
    plan, image = tile_plan(network, (64, 64), 32, 1), torch.randn(1, 1, 64, 64, dtype=torch.double)
    whole, first = network(image), plan.axes[0][0]
    kept = first.parts[0][2]
    tile = network(image[..., :32, :32])
    assert torch.allclose(tile[..., :kept, :kept], whole[..., :kept, :kept], atol=1e-12)
    assert not torch.allclose(tile[..., kept, :kept], whole[..., kept, :kept], atol=1e-3)


def test_an_image_no_larger_than_a_tile_is_one_tile():
    network = seeded(nn.Sequential(nn.Conv2d(3, 2, 3, padding=1)))
    plan = tile_plan(network, (20, 30), 64, 3)
    assert (len(plan.tiles), plan.tile_size, plan.work) == (1, (20, 30), 1)


def test_the_smaller_image_of_a_proof_has_the_same_tiles():
    network = nn.Sequential(nn.Conv2d(3, 4, 5, 2, 2), nn.Conv2d(4, 4, 3, 2, 1)).eval()
    plan = tile_plan(network, (1001, 2000), 64, 3)
    small = proof_plan(network, plan, 3)
    assert small.tile_size == plan.tile_size
    assert max(small.image_size) <= 3 * 64
    assert prove(network, small, torch.randn(1, 3, *small.image_size)).holds


def test_a_trunk_ends_with_the_last_map_and_shares_its_weights():
    network = torchvision.models.resnet18(weights=None).eval()
    trunk = trunk_of(network, torch.zeros(1, 3, 64, 64))
    images = torch.randn(2, 3, 96, 64)
    expected = images
    for name, layer in network.named_children():
        if name not in ("avgpool", "fc"):
            expected = layer(expected)
    torch.testing.assert_close(trunk(images), expected)
    assert trunk.conv1.weight is network.conv1.weight


def test_a_converted_network_has_a_trunk_too():
    network = tinv.convert(
        timm.create_model("resnet10t", num_classes=10).eval(),
        "full_background",
        example_input=torch.zeros(1, 3, 64, 64),
    )
    trunk = trunk_of(seeded(network), torch.zeros(1, 3, 64, 64, dtype=torch.double))
    plan = tile_plan(trunk, (700, 400), 320, 3)
    assert prove(trunk, plan, torch.randn(1, 3, 700, 400, dtype=torch.double)).aligned < 1e-12


class Excited(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        maps = self.conv(images)
        return maps * maps.mean((2, 3), keepdim=True)


@pytest.mark.parametrize(
    ("network", "message"),
    [
        (Excited(), "layer mean reads its whole map, which is another one in a tile"),
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.GroupNorm(2, 4)), "layer 1 normalizes by its whole map"),
        (nn.Sequential(nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular")), "axis 0 is padded circularly"),
        (nn.Sequential(nn.Conv2d(3, 4, 3), nn.Flatten()), "has no positions of the image"),
        (nn.Sequential(*[nn.Conv2d(3, 3, 9, padding=4) for _ in range(6)]), "too small along axis 0: .* see 49 pixels"),
    ],
)
def test_what_no_tile_can_give_is_refused_by_name(network, message):
    with pytest.raises(TinvError, match=message):
        tile_plan(network.eval(), (100, 100), 40, 3)


def test_an_adaptive_choice_is_refused():
    network = tinv.convert(
        nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1)),
        "same_zero",
        "aps",
        stem="convert",
        example_input=torch.zeros(1, 3, 32, 32),
    )
    with pytest.raises(TinvError, match=r"layer policy_layers.0_subsample chooses its positions by the whole image"):
        tile_plan(network, (100, 100), 40, 3)


def test_the_least_size_that_a_message_names_is_enough():
    network = torchvision.models.resnet18(weights=None).eval()
    trunk = trunk_of(network, torch.zeros(1, 3, 64, 64))
    with pytest.raises(TinvError, match="give tiles of") as refused:
        tile_plan(trunk, (1000, 1000), 256, 3)
    least = int(str(refused.value).split("give tiles of ")[1].split()[0])
    assert tile_plan(trunk, (1000, 1000), least, 3).tiles


def test_an_image_of_another_size_is_refused():
    network = nn.Sequential(nn.Conv2d(3, 4, 3)).eval()
    with pytest.raises(TinvError, match="the plan is for images of 50x50, not 50x51"):
        tile_plan(network, (50, 50), 32, 3).run(network, torch.zeros(1, 3, 50, 51))
