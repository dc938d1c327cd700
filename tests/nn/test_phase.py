import pytest
import torch

from tinv.nn import AdaptivePolyphaseSampling
from tinv.nn.phase import take_phase


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_values_and_gradients_are_those_of_slices(memory_format):
    images = torch.randn(4, 3, 6, 6, dtype=torch.double).contiguous(memory_format=memory_format)
    ours, theirs = (images.clone().requires_grad_() for _ in range(2))
    choice = torch.tensor([0, 3, 5, 2])
    found = take_phase(ours, (2, 3), choice)
    wanted = torch.stack([x[:, k // 3 :: 2, k % 3 :: 3] for x, k in zip(theirs, choice.tolist(), strict=True)])
    assert torch.equal(found, wanted)
    found.pow(3).sum().backward()
    wanted.pow(3).sum().backward()
    assert torch.equal(ours.grad, theirs.grad)


def test_second_and_forward_mode_derivatives_are_right():
    images = torch.randn(2, 2, 4, 4, dtype=torch.double, requires_grad=True)
    choice = torch.tensor([1, 2])
    assert torch.autograd.gradgradcheck(lambda x: take_phase(x, 2, choice).pow(3), images)
    assert torch.autograd.gradcheck(lambda x: take_phase(x, 2, choice), images, check_forward_ad=True)


def test_a_gradient_for_each_image_is_that_of_the_batch():
    layer, images = AdaptivePolyphaseSampling(2), torch.randn(3, 2, 4, 4)
    each = torch.func.vmap(torch.func.grad(lambda x: layer(x[None]).square().sum()))(images)
    whole = images.clone().requires_grad_()
    layer(whole).square().sum().backward()
    assert torch.equal(each, whole.grad)
    torch.testing.assert_close(torch.func.vmap(lambda x: layer(x[None])[0])(images), layer(images))
