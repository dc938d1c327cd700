"""The Lie derivative against finite differences, where theory says it is zero, and what cannot be differentiated."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import tinv
from tinv.errors import TinvError
from tinv.graph.moved_maps import fourier_shift
from tinv.metrics import LieDerivative
from tinv.metrics.lie_derivative import output_velocity
from tinv.translation import velocity

IMAGES = torch.randn(6, 2, 8, 9, generator=torch.Generator().manual_seed(0), dtype=torch.double)


def network() -> nn.Sequential:
    torch.manual_seed(0)
    layers = [nn.Conv2d(2, 6, 3, padding=1), nn.BatchNorm2d(6), nn.GELU(), nn.AvgPool2d(2), nn.Flatten()]
    return nn.Sequential(*layers, nn.LazyLinear(4)).double().eval()


def measured(metric: LieDerivative, net, images=IMAGES, size=4) -> dict[str, float]:
    for index in torch.arange(len(images)).split(size):
        metric.update(net, images[index], net(images[index]), torch.zeros_like(index), index)
    return {key: float(value) for key, value in metric.compute().items()}


def slow(net, images, move, step) -> tuple[np.ndarray, np.ndarray]:
    """Squared rates of softmax and logits of each image, by central differences over a small step."""
    of_softmax, of_logits = [], []
    for image in images.split(1):
        for axis in (3, 2):
            with torch.no_grad():
                after, before = (net(move(image, axis, t)) for t in (step, -step))
            of_logits.append(float(((after - before) / (2 * step)).square().sum()))
            of_softmax.append(float(((after.softmax(1) - before.softmax(1)) / (2 * step)).square().sum()))
    return tuple(np.array(rates).reshape(-1, 2).mean(axis=1) for rates in (of_softmax, of_logits))


def test_it_is_the_limit_of_small_shifts():
    net = network()
    net(IMAGES)
    found = measured(LieDerivative(), net)
    of_softmax, of_logits = slow(net, IMAGES, lambda x, axis, t: fourier_shift(x, axis, t), 1e-4)
    assert found["lie"] == pytest.approx(of_softmax.mean(), rel=1e-6)
    assert found["lie_median"] == pytest.approx(np.median(of_softmax), rel=1e-6)
    assert found["lie_logits"] == pytest.approx(of_logits.mean(), rel=1e-6)
    assert found["lie_logits_median"] == pytest.approx(np.median(of_logits), rel=1e-6)
    for key in ("lie", "lie_median", "lie_logits", "lie_logits_median"):
        assert found[f"{key}_low"] <= found[key] <= found[f"{key}_high"]


@pytest.mark.parametrize("generator", ["central", "forward"])
def test_differences_of_whole_pixels_take_the_place_of_the_derivative_of_the_image(generator):
    net = network()
    net(IMAGES)

    def move(image, axis, t):
        before = image.roll(-1, axis) if generator == "central" else image
        return image + t * (image.roll(1, axis) - before) / (2 if generator == "central" else 1)

    of_softmax, of_logits = slow(net, IMAGES, move, 1e-4)
    found = measured(LieDerivative(generator), net)
    assert found["lie"] == pytest.approx(of_softmax.mean(), rel=1e-6)
    assert found["lie_logits"] == pytest.approx(of_logits.mean(), rel=1e-6)


@pytest.mark.parametrize("size", [8, 9])
def test_the_velocity_is_the_derivative_of_the_shift_and_nothing_at_the_nyquist_frequency(size):
    images = torch.randn(2, 1, size, 5, dtype=torch.double)
    step = 1e-5
    slope = (fourier_shift(images, 2, step) - fourier_shift(images, 2, -step)) / (2 * step)
    torch.testing.assert_close(velocity(images, 2), slope, rtol=0, atol=1e-8)
    alternating = torch.tensor([1.0, -1.0]).repeat(4).view(1, 1, 8, 1)
    assert not velocity(alternating, 2).any()
    assert velocity(images.float(), 2).dtype == torch.float32


def test_what_follows_every_fraction_has_none():
    torch.manual_seed(0)
    plain = nn.Sequential(nn.Conv2d(2, 6, 3, padding=1), nn.GELU(), nn.Conv2d(6, 4, 3, stride=2, padding=1))
    plain = nn.Sequential(*plain, nn.AdaptiveAvgPool2d(1), nn.Flatten()).double().eval()
    images = IMAGES[..., :8]
    exact = tinv.convert(plain, "same_circular", "ideal", activation="poly2", stem="convert", example_input=images)
    assert measured(LieDerivative(), exact, images)["lie_logits"] < 1e-20
    other = tinv.convert(plain, "same_circular", "aps", stem="convert", example_input=images)
    assert measured(LieDerivative(), other, images)["lie_logits"] > 1e-6


def test_batches_order_and_inference_mode_change_nothing():
    net = network()
    net(IMAGES)
    whole = measured(LieDerivative(), net, size=6)
    metric = LieDerivative()
    with torch.inference_mode():
        for number in (3, 0, 5, 1, 4, 2):
            index = torch.tensor([number])
            metric.update(net, IMAGES[index], torch.zeros(1, 4), index, index)
    found = {key: float(value) for key, value in metric.compute().items()}
    assert found == pytest.approx(whole, rel=1e-12)
    some = measured(LieDerivative(max_images=2), net)
    assert some == pytest.approx(measured(LieDerivative(), net, IMAGES[:2]), rel=1e-12)


def test_answers_that_are_not_finite_are_not_defined():
    found = measured(LieDerivative(), lambda images: images.mean((2, 3)) * torch.nan)
    assert all(np.isnan(value) for value in found.values())
    assert LieDerivative().compute() == {}


class NoForwardMode(torch.autograd.Function):
    @staticmethod
    def forward(ctx, images):
        return images * 2

    @staticmethod
    def backward(ctx, gradient):
        return gradient * 2


def test_an_operation_without_a_derivative_in_forward_mode_is_named():
    class Doubled(nn.Module):
        def forward(self, images):
            return NoForwardMode.apply(images.requires_grad_()).mean((2, 3))

    with pytest.raises(TinvError, match=r"derivatives in forward mode, which layer 1 lacks: .*jvp"):
        output_velocity(nn.Sequential(nn.Identity(), Doubled()), IMAGES, IMAGES)
    with pytest.raises(TinvError, match="unknown generator 'fourrier'; did you mean fourier"):
        LieDerivative("fourrier")


def test_measure_has_it_on_request():
    Path("photographs").mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (3, 20, 20, 3), dtype=np.uint8)
    for number, image in enumerate(pixels):
        Image.fromarray(image).save(f"photographs/{number}.png")
    torch.manual_seed(0)
    net = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.LazyLinear(3)).eval()
    net(torch.zeros(1, 3, 8, 8))
    options = {"num_classes": 3, "input_size": 8, "offset_range": 4, "mean": (0.5,) * 3, "std": (0.5,) * 3}
    report = tinv.measure(net, "photographs", metrics=["lie"], **options)
    assert report.metrics["lie"] > 0
    assert set(report.measured) == {"acc", "lie"}
