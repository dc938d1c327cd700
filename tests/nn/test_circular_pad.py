import pytest
import torch
from torch.nn import functional as F

from tinv.nn import PaddedConv2d
from tinv.nn.circular_pad import circular_pad


def pad_2d(images: torch.Tensor, height: tuple[int, int], width: tuple[int, int]) -> torch.Tensor:
    return circular_pad(circular_pad(images, 2, *height), 3, *width)


@pytest.mark.parametrize(("height", "width"), [((1, 1), (1, 1)), ((0, 2), (3, 0)), ((4, 4), (5, 5)), ((0, 0), (2, 1))])
@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_values_and_gradients_are_those_of_torch(height, width, memory_format):
    torch.manual_seed(0)
    images = torch.randn(2, 3, 4, 5, dtype=torch.double).contiguous(memory_format=memory_format)
    ours, theirs = (images.clone().requires_grad_() for _ in range(2))
    found, wanted = pad_2d(ours, height, width), F.pad(theirs, (*width, *height), mode="circular")
    assert torch.equal(found, wanted)
    weight = torch.randn_like(found)
    (found * weight).sum().backward()
    (wanted * weight).sum().backward()
    torch.testing.assert_close(ours.grad, theirs.grad, rtol=0, atol=1e-14)


def test_second_and_forward_mode_derivatives_are_right():
    images = torch.randn(1, 2, 3, 4, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradgradcheck(lambda x: pad_2d(x, (1, 2), (2, 1)).pow(3), images)
    assert torch.autograd.gradcheck(lambda x: pad_2d(x, (1, 2), (2, 1)), images, check_forward_ad=True)


def test_it_runs_under_the_transforms_of_torch():
    images, tangent = torch.randn(2, 3, 2, 4, 4)
    pad = lambda x: pad_2d(x, (1, 1), (1, 1))  # noqa: E731
    torch.testing.assert_close(torch.func.vmap(lambda x: pad(x[None])[0])(images), pad(images))
    _, moved = torch.func.jvp(pad, (images,), (tangent,))
    torch.testing.assert_close(moved, pad(tangent))
    each = torch.func.vmap(torch.func.grad(lambda x: pad(x[None]).square().sum()))(images)
    whole = images.clone().requires_grad_()
    pad(whole).square().sum().backward()
    torch.testing.assert_close(each, whole.grad)


def test_a_compiled_and_an_exported_layer_give_the_same():
    layer = PaddedConv2d(2, 3, 3, padding="same", padding_mode="circular")
    images = torch.randn(2, 2, 6, 6)
    wanted = layer(images)
    torch.testing.assert_close(torch.compile(layer, backend="aot_eager", fullgraph=True)(images), wanted)
    torch.testing.assert_close(torch.export.export(layer, (images,)).module()(images), wanted)
