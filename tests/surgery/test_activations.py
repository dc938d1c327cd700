"""The activation policy on networks: modules, functions, norms with an activation, gates, and what is refused."""

import pickle
import warnings

import pytest
import timm
import torch
import torchvision
from torch import nn
from torch.nn import functional as F

from tinv import create_backbone
from tinv.errors import LayerError, TinvError
from tinv.nn import PolynomialActivation, UpsampledActivation
from tinv.policies.activation import ActivationPolicy, Upsampled, activation_policy
from tinv.policies.cards import ACTIVATION_CARDS, ACTIVATIONS
from tinv.surgery.convert import convert

IMAGES = torch.randn(2, 3, 9, 8, dtype=torch.double, generator=torch.Generator().manual_seed(2))
UP = UpsampledActivation


class Written(nn.Module):
    """Activations as functions, methods, in place, and of a vector."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 1)
        self.act, self.prelu, self.gate = nn.SiLU(inplace=True), nn.PReLU(4), nn.Linear(4, 4)

    def forward(self, images, act=None):
        run = act or (lambda function, *parameters: lambda maps: function(maps, *parameters))
        maps = run(F.leaky_relu)(self.first(images)) if act else F.leaky_relu(self.first(images), 0.2, inplace=True)
        maps = run(torch.relu)(self.second(maps)) if act else self.second(maps).relu_()
        maps = run(F.silu)(maps - 1) if act else self.act(maps - 1)
        maps = run(F.hardswish)(maps + 0.5) if act else F.hardswish(maps + 0.5)
        maps = run(F.prelu)(maps - 0.2) if act else self.prelu(maps - 0.2)
        gates = torch.sigmoid(self.gate(torch.relu(maps.mean((2, 3)))))
        return maps * gates[:, :, None, None]


def test_every_way_to_write_an_activation_is_replaced_and_vectors_are_left():
    torch.manual_seed(0)
    model = Written().double()
    made = convert(model, activation="up2", example_input=IMAGES)

    def around(function):
        if function is F.leaky_relu:
            return UP(lambda maps: F.leaky_relu(maps, 0.2))
        return UP((lambda maps: F.prelu(maps, model.prelu.weight)) if function is F.prelu else function)

    before = IMAGES.clone()
    torch.testing.assert_close(made(IMAGES), model(IMAGES, around))
    assert torch.equal(IMAGES, before)
    assert list(made.state_dict()) == list(model.state_dict())
    assert made.conversion.counts == {"activations replaced": 5}
    assert {note.text for note in made.conversion.skipped} == {"activation of a vector, which has no positions"}
    made(IMAGES).sum().backward()
    assert made.prelu.weight.grad.abs().min() > 0
    torch.testing.assert_close(pickle.loads(pickle.dumps(made))(IMAGES), made(IMAGES))


def test_the_same_layers_run_in_training_and_evaluation():
    class Auxiliary(Written):
        def forward(self, images):
            maps = super().forward(images)
            return maps + maps.relu() if self.training else maps

    made = convert(Auxiliary().double(), activation="poly2", example_input=IMAGES)
    kept = [p for name, p in made.named_parameters() if "policy_layers" in name]
    assert all(p.shape == (3, 4) and p.dtype == torch.double for p in kept)
    assert len(kept) == 6
    for mode, used in ((False, 5), (True, 6)):
        made.zero_grad()
        made.train(mode)(IMAGES).square().sum().backward()
        assert sum(p.grad is not None for p in kept) == used
    assert any("its weight is kept, and not used" in note.text for note in made.conversion.changed)


@pytest.mark.parametrize("activation", ["up2", "poly2"])
@pytest.mark.parametrize(
    "build",
    [
        lambda: timm.create_model("resnet18", num_classes=3),
        lambda: timm.create_model("convnext_atto", num_classes=3),
        lambda: torchvision.models.mobilenet_v2(num_classes=3),
        lambda: torchvision.models.efficientnet_b0(num_classes=3),
        lambda: timm.create_model("mobilenetv3_small_050", num_classes=3),
    ],
    ids=["resnet18", "convnext_atto", "mobilenet_v2", "efficientnet_b0", "mobilenetv3"],
)
def test_networks_learn_and_keep_their_names(build, activation):
    original, images = build(), torch.randn(2, 3, 40, 40)
    made = convert(original, activation=activation, example_input=images).train()
    names = list(original.state_dict())
    assert list(made.state_dict())[: len(names)] == names
    assert (len(made.state_dict()) == len(names)) == (activation == "up2")
    assert all(name.startswith("policy_layers.") for name in list(made.state_dict())[len(names) :])
    optimizer = torch.optim.SGD(made.parameters(), 1e-3)
    made(images).square().mean().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in made.parameters())
    # of two small images, whose norms divide by hardly anything, gradients are large: 1e3 with SiLU, 1e8 with poly2
    nn.utils.clip_grad_norm_(made.parameters(), 1.0)
    optimizer.step()
    # another size, and the weights back again
    assert made(torch.randn(2, 3, 48, 36)).isfinite().all()
    original.load_state_dict({name: made.state_dict()[name] for name in names})


def gratings(count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Noisy waves of three directions, and which direction each has."""
    classes = torch.arange(count) % 3
    angles, phases = classes * (torch.pi / 3), 6.3 * torch.rand(count)
    rows, columns = torch.meshgrid(torch.arange(16.0), torch.arange(16.0), indexing="ij")
    turns = angles.cos().view(-1, 1, 1) * rows + angles.sin().view(-1, 1, 1) * columns
    return torch.sin(turns + phases.view(-1, 1, 1))[:, None] + 0.7 * torch.randn(count, 1, 16, 16), classes


def test_trained_weights_keep_their_meaning_under_up2_alone():
    torch.manual_seed(0)
    layers = [nn.Conv2d(1, 8, 3, padding=1), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, 2, 1), nn.BatchNorm2d(8)]
    model = nn.Sequential(*layers, nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3))
    optimizer = torch.optim.Adam(model.parameters(), 0.02)
    for _ in range(60):
        images, classes = gratings(96)
        optimizer.zero_grad()
        F.cross_entropy(model(images), classes).backward()
        optimizer.step()
    images, classes = gratings(300)
    with torch.no_grad():
        plain = model.eval()(images)
        up2, poly2 = (convert(model, activation=a, example_input=images)(images) for a in ("up2", "poly2"))
    assert (plain.argmax(1) == classes).float().mean() > 0.9
    assert (plain.argmax(1) == up2.argmax(1)).float().mean() > 0.95
    assert (plain - up2).abs().mean() < 0.2 * plain.std()
    assert (plain - poly2).abs().mean() > 2 * (plain - up2).abs().mean()


def test_norms_that_run_an_activation_give_it_up():
    model = timm.create_model("mobilenetv3_small_050", num_classes=3).eval()
    made = convert(model, activation="up2", example_input=torch.randn(1, 3, 64, 64))
    assert isinstance(made.bn1.act, nn.Identity)
    assert isinstance(model.bn1.act, nn.Hardswish)
    found = {note.layer for note in made.conversion.changed}
    assert "bn1.act" in found
    assert any(note.layer.endswith("se.gate") for note in made.conversion.skipped)


def test_layouts_clips_and_own_networks():
    last = convert(
        torchvision.models.convnext_tiny(num_classes=2), activation="poly2", example_input=torch.zeros(1, 3, 64, 64)
    )
    [layer, *_] = [m for m in last.modules() if isinstance(m, PolynomialActivation)]
    assert (layer.axes, layer.channel_axis, layer.channels) == ((1, 2), 3, 384)
    clips = torch.randn(1, 3, 4, 8, 8)
    for axes, treated in (("space", (3, 4)), ("space+time", (2, 3, 4))):
        made = convert(nn.Sequential(nn.Conv3d(3, 4, 1), nn.ReLU()), activation="up2", axes=axes, example_input=clips)
        assert {m.axes for m in made.modules() if isinstance(m, UpsampledActivation)} == {treated}
    own = create_backbone("pooling_cnn", num_classes=3, padding="same_circular", activation="poly2")
    assert own(torch.randn(2, 3, 32, 32)).isfinite().all()


def test_a_blank_canvas_stays_blank_under_background_padding():
    layers = nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1), nn.PReLU(4), nn.Conv2d(4, 4, 3, padding=1), nn.GELU()
    ).double()
    for activation in ("up2", "poly2"):
        made = convert(layers, "same_background", activation=activation, example_input=IMAGES)
        answer = made(torch.zeros_like(IMAGES)).detach()
        torch.testing.assert_close(answer, answer[..., :1, :1].expand_as(answer))
        assert answer.abs().min() > 1e-6


class Gated(nn.Module):
    def __init__(self, function) -> None:
        super().__init__()
        self.conv, self.function = nn.Conv2d(3, 4, 3, padding=1), function

    def forward(self, images):
        return self.function(self.conv(images))


@pytest.mark.parametrize(
    ("model", "activation", "message"),
    [
        (lambda: Gated(lambda x: F.glu(x, 1)), "up2", "glu is no function of one value"),
        (lambda: Gated(lambda x: x * x.sigmoid()), "poly2", "sigmoid gives numbers from 0 to 1"),
        (lambda: Gated(lambda x: x.flatten(2).relu()), "up2", "not along axes of their own"),
    ],
)
def test_what_cannot_be_replaced_is_refused_by_name(model, activation, message):
    images = torch.zeros(1, 3, 8, 8)
    with pytest.raises(LayerError, match=message):
        convert(model(), activation=activation, example_input=images)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        left = convert(model(), activation=activation, partial=True, example_input=images)
    assert message in left.conversion.partial[0].text


def test_names_cards_and_bad_input():
    assert set(ACTIVATION_CARDS) == set(ACTIVATIONS)
    for name in ACTIVATIONS:
        assert activation_policy(name).name == name
        assert activation_policy(name).card == ACTIVATION_CARDS[name]
    assert activation_policy("up2") == Upsampled(2) != Upsampled(4)
    plain = nn.Sequential(nn.Conv2d(3, 3, 3))
    with pytest.raises(TinvError, match="unknown activation 'poly'; did you mean poly2"):
        convert(plain, activation="poly", example_input=IMAGES.float())
    with pytest.warns(UserWarning, match="activation=poly2 changed nothing in Sequential"):
        convert(plain, activation="poly2", example_input=IMAGES.float())


class Halved(ActivationPolicy):
    """A policy of the user's own."""

    def layer(self, activation, what, axes, channels):
        return nn.Sequential(activation, nn.AvgPool2d(3, 1, 1))


def test_a_policy_of_ones_own():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True))
    made = convert(model, activation=f"{__name__}.Halved", example_input=IMAGES.float())
    assert str(made.conversion.policy) == "activation=Halved"
    expected = F.avg_pool2d(model(IMAGES.float()), 3, 1, 1)
    torch.testing.assert_close(made(IMAGES.float()), expected)
