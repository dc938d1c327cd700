"""The answer to a blank image, beside the data."""

import copy

import pytest
import torch
from timm.layers import BatchNormAct2d
from torch import nn
from torchvision.models import resnet18

from tinv import convert
from tinv.nn.zero_response import norm_and_response, norm_response

NORMS = {
    "torch": lambda: nn.BatchNorm2d(5),
    "no affine": lambda: nn.BatchNorm2d(5, affine=False),
    "average of all batches": lambda: nn.BatchNorm2d(5, momentum=None),
    "no running statistics": lambda: nn.BatchNorm2d(5, track_running_stats=False),
    "timm, with its activation": lambda: BatchNormAct2d(5),
    "frozen": lambda: nn.BatchNorm2d(5).eval(),
}


@pytest.mark.parametrize("name", NORMS)
def test_one_pass_over_the_batch_equals_two(name):
    """Against the norm itself and its moments reckoned apart, differentiated by autograd."""
    torch.manual_seed(0)
    norm = NORMS[name]().double()
    for parameter in norm.parameters():
        nn.init.normal_(parameter)
    other = copy.deepcopy(norm)
    images = torch.randn(4, 5, 6, 7, dtype=torch.float64, requires_grad=True)
    blank = torch.randn(4, 5, 1, 1, dtype=torch.float64, requires_grad=True)
    weights = torch.randn_like(images), torch.randn_like(blank)
    answers, gradients = [], []
    for both, layer in ((norm_and_response, norm), (lambda n, x, b: (n(x), norm_response(n, b, x)), other)):
        for _ in range(2):  # the statistics of the second batch build on those of the first
            answer = both(layer, images, blank)
        loss = sum((a * w).sum() for a, w in zip(answer, weights, strict=True))
        answers.append(answer)
        gradients.append(torch.autograd.grad(loss, [images, blank, *layer.parameters()]))
    torch.testing.assert_close(answers[0], answers[1], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(gradients[0], gradients[1], rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(norm.state_dict(), other.state_dict(), rtol=1e-12, atol=1e-12)


def test_one_value_a_channel_is_refused_as_by_torch():
    with pytest.raises(ValueError, match="more than 1 value per channel"):
        norm_and_response(nn.BatchNorm2d(3), torch.zeros(1, 3, 1, 1), torch.zeros(1, 3, 1, 1))


def test_a_training_step_is_the_same_with_hooks_on_the_norms_and_the_hooks_run():
    """A hook wants the norm to be called by itself; its moments are then reckoned apart."""
    torch.manual_seed(0)
    images = torch.randn(4, 3, 32, 32, dtype=torch.float64)
    network = convert(resnet18().double(), "same_background", example_input=images)
    hooked = copy.deepcopy(network)
    seen = []
    norms = [m for m in hooked.modules() if isinstance(m, nn.BatchNorm2d)]
    for norm in norms:
        norm.register_forward_hook(lambda *_: seen.append(1))
    for net in (network, hooked):
        net.train()(images).square().sum().backward()
    assert len(seen) == len(norms)
    for (name, p), q in zip(network.named_parameters(), hooked.parameters(), strict=True):
        assert (p.grad - q.grad).abs().max() <= 1e-10 * q.grad.abs().max(), name
    torch.testing.assert_close(network.state_dict(), hooked.state_dict(), rtol=1e-10, atol=1e-10)


def test_autocast_and_channels_last_take_the_same_step():
    torch.manual_seed(0)
    images = torch.randn(8, 3, 32, 32)
    network = convert(resnet18(num_classes=4), "same_background", example_input=images).train()
    twin = copy.deepcopy(network).to(memory_format=torch.channels_last)
    plain = network(images)
    with torch.autocast("cpu", torch.bfloat16):
        cast = twin(images.to(memory_format=torch.channels_last))
    cast.float().square().sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in twin.parameters())
    assert cast.dtype == torch.bfloat16
    torch.testing.assert_close(cast.float(), plain, rtol=0.1, atol=0.1)
