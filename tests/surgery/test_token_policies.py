"""Vision transformers under token policies: exact for every circular shift, before any training."""

import copy
import itertools
import warnings

import pytest
import timm
import torch
from small_transformers import ABSOLUTE, SWINS, VITS, converted, images, made
from torch import nn
from torchvision.models import resnet18, swin_t, swin_v2_t

import tinv
from tinv.errors import LayerError, TinvError
from tinv.nn import AdaptiveWindowAttention

STEPS = [(0, 1), (1, 0), (2, 2), (5, 3), (8, 4), (15, 9)]
"""Shifts along both axes, up to the total stride of the smallest of the networks, 16 pixels."""


@torch.no_grad()
def error(network: nn.Module, batch: torch.Tensor) -> float:
    """Returns the largest change of the logits under the shifts, as a part of their spread over images."""
    network.eval()
    logits = network(batch)
    moved = [float((network(batch.roll(by, (2, 3))) - logits).abs().max()) for by in STEPS]
    return max(moved) / float((logits[0] - logits[1]).abs().max())


@pytest.mark.parametrize("name", SWINS)
def test_swin_under_a_token_is_exact_where_the_plain_network_is_not(name):
    network, batch = converted(name, "a_token"), images(name)
    assert error(made(name), batch) > 1e-2
    assert error(network, batch) < 1e-10
    # each image chooses for itself
    assert torch.allclose(network(batch)[1:], network(batch[1:]), rtol=0, atol=1e-12)


@pytest.mark.parametrize("name", ["torchvision v1", "timm v2", *ABSOLUTE])
def test_any_network_under_anchor_gives_the_same_bits(name):
    batch = images(name)
    assert error(made(name), batch) > 1e-2
    assert error(converted(name, "anchor"), batch) == 0


@pytest.mark.parametrize("name", VITS)
def test_a_vit_under_a_token_is_exact_unless_it_has_absolute_positions(name):
    network = converted(name, "a_token")
    found = error(network, images(name))
    assert found > 1e-3 if name in ABSOLUTE else found < 1e-10
    skipped = [note.layer.rpartition(".")[2] for note in network.conversion.skipped]
    assert skipped == ([] if name not in ABSOLUTE else ["pos_embedding" if name == "torchvision" else "pos_embed"])


@pytest.mark.parametrize(
    ("name", "tokens"),
    [
        ("torchvision v1", "a_token"),
        ("torchvision v2", "a_token"),
        ("timm v2", "a_token"),
        ("relative", "a_token"),
        ("absolute", "anchor"),
    ],
)
def test_weights_keep_their_names_and_those_of_the_plain_network_load(name, tokens):
    network, plain, batch = converted(name, tokens), made(name), images(name)
    assert list(network.state_dict()) == list(plain.state_dict())
    assert all(torch.equal(value, plain.state_dict()[key]) for key, value in network.state_dict().items())
    assert [key for key, _ in network.named_parameters()] == [key for key, _ in plain.named_parameters()]
    nn.init.normal_(next(plain.parameters()))
    network = copy.deepcopy(network)
    network.load_state_dict(plain.state_dict())
    assert torch.equal(network(batch), tinv.convert(plain, tokens=tokens, example_input=batch)(batch))
    # buffers of a checkpoint do not undo the ring of relative positions
    assert error(network, batch) < 1e-10


def test_a_published_network_takes_its_state_dict_and_is_exact_at_its_own_size():
    network = swin_t().double().eval()
    batch = torch.randn(1, 3, 224, 224, dtype=torch.double)
    converted = tinv.convert(network, tokens="a_token", example_input=batch).eval()
    assert converted.conversion.counts == {"patch grids chosen": 1, "window grids chosen": 12, "merges chosen": 3}
    random = {key: 0.1 * torch.randn_like(v) if v.is_floating_point() else v for key, v in network.state_dict().items()}
    assert not any(converted.load_state_dict(random))
    with torch.no_grad():
        logits = converted(batch)
        assert float((converted(batch.roll((5, 50), (2, 3))) - logits).abs().max() / logits.abs().max()) < 1e-10


def test_the_published_networks_of_timm_convert():
    network = timm.create_model("swinv2_tiny_window8_256")
    converted = tinv.convert(network, tokens="a_token", example_input=torch.zeros(1, 3, 256, 256))
    assert list(converted.state_dict()) == list(network.state_dict())
    assert converted.conversion.counts["window grids chosen"] == 12


@pytest.mark.parametrize(
    ("name", "tokens"),
    [
        ("torchvision v2", "a_token"),
        ("timm v1", "a_token"),
        ("relative, by a network", "a_token"),
        ("absolute", "anchor"),
    ],
)
def test_a_training_step_reaches_every_weight(name, tokens):
    network, batch = copy.deepcopy(converted(name, tokens)).train(), images(name)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1)
    loss = nn.functional.cross_entropy(network(batch), torch.tensor([0, 1]))
    loss.backward()
    assert all(p.grad is not None and bool(p.grad.isfinite().all() and p.grad.any()) for p in network.parameters())
    optimizer.step()
    assert float(nn.functional.cross_entropy(network(batch), torch.tensor([0, 1])).detach()) != float(loss.detach())
    assert error(network, batch) < 1e-10


def test_the_gradient_of_the_image_moves_with_it():
    batch = images("timm v1").requires_grad_()
    network = converted("timm v1", "a_token")
    [still] = torch.autograd.grad(network(batch)[:, 0].sum(), batch)
    [moved] = torch.autograd.grad(network(batch.roll((3, 6), (2, 3)))[:, 0].sum(), batch)
    torch.testing.assert_close(moved, still, rtol=0, atol=1e-10)
    assert bool(still.any())


def test_where_the_content_begins_at_the_origin_an_anchored_network_is_the_plain_one():
    plain, network, batch = made("absolute"), converted("absolute", "anchor"), images("absolute")
    anchored = network.policy_layers.anchor(batch)
    assert torch.equal(network(batch), plain(anchored))
    assert torch.equal(network(anchored), plain(anchored))


def test_ties_are_broken_by_the_first_and_a_blank_image_has_an_answer():
    batch = torch.ones(1, 3, 16, 16, dtype=torch.double)
    assert bool(converted("timm v1", "a_token")(batch).isfinite().all())
    # two equal spots: the phase (0, 2) of the second comes first by rows
    two = torch.zeros(1, 3, 16, 16, dtype=torch.double)
    two[..., 1, 1] = two[..., 4, 6] = 1.0
    anchor = converted("absolute", "anchor").policy_layers.anchor
    assert (anchor.origin(two) % 4).tolist() == [[0, 2]]


@pytest.mark.parametrize(
    ("make", "size", "tokens", "text"),
    [
        (
            swin_t,
            (224, 230),
            "a_token",
            "divisible by 224x224 .patch x window x merges.*next size that works is 224x448",
        ),
        (swin_v2_t, (224, 224), "a_token", "divisible by 256x256 .*next size that works is 256x256"),
        (swin_t, (226, 224), "anchor", "divisible by 4x4 .the patch.* next size that works is 228x224"),
        (lambda: made("relative").float(), (18, 16), "a_token", "next size that works is 20x16"),
    ],
)
def test_sizes_that_are_not_divisible_are_refused_with_the_next_that_works(make, size, tokens, text):
    with pytest.raises(TinvError, match=text) as raised:
        tinv.convert(make(), tokens=tokens, example_input=torch.zeros(1, 3, *size))
    assert "\n" not in str(raised.value)


def test_a_converted_swin_takes_other_sizes_or_names_the_layer_that_cannot():
    network = converted("torchvision v1", "a_token")
    batch = torch.randn(2, 3, 16, 48, dtype=torch.double)
    assert error(network, batch) < 1e-10
    with pytest.raises(TinvError, match=r"10x12 tokens are no whole number of windows of 4x4; .* is 12x12"):
        network(torch.zeros(1, 3, 20, 24, dtype=torch.double))


def test_networks_without_patches_are_refused():
    with pytest.raises(TinvError, match=r"tokens=anchor is for networks of patches.*ResNet has none"):
        tinv.convert(resnet18(), tokens="anchor", example_input=torch.zeros(1, 3, 32, 32))


def test_a_patch_embedding_whose_weights_are_computed_is_refused_not_changed():
    batch, network = images("absolute"), made("absolute")
    torch.nn.utils.parametrizations.weight_norm(network.patch_embed.proj)
    with pytest.raises(LayerError, match=r"layer patch_embed.proj .*takes plain convolutions"):
        tinv.convert(network, tokens="a_token", example_input=batch)
    assert error(tinv.convert(network, tokens="anchor", example_input=batch), batch) == 0


def test_windows_that_are_not_known_are_refused_by_name():
    class OtherWindowAttention(nn.Identity):
        pass

    network = nn.Sequential(nn.Conv2d(3, 4, 2, 2), OtherWindowAttention(), nn.Flatten())
    batch = torch.zeros(1, 3, 8, 8)
    with pytest.raises(LayerError, match="layer 1: OtherWindowAttention, which tinv does not know, cuts tokens"):
        tinv.convert(network, tokens="a_token", example_input=batch)
    partial = tinv.convert(network, tokens="a_token", partial=True, example_input=batch)
    assert [note.layer for note in partial.conversion.partial] == ["1"]


def test_relative_positions_that_are_not_known_are_refused_though_they_are_zero_before_training():
    options = {"img_size": 16, "patch_size": 4, "embed_dim": 16, "depth": 1, "num_heads": 2, "num_classes": 3}
    network = timm.create_model("beit_base_patch16_224", **options)
    with pytest.raises(LayerError, match=r"layer blocks.0.attn: Attention holds relative positions that tinv does not"):
        tinv.convert(network, tokens="a_token", example_input=torch.zeros(1, 3, 16, 16))


def test_vits_stay_refused_under_full_padding_and_the_message_names_tokens():
    with pytest.raises(LayerError, match=r"full_zero changes the size of maps.*tokens=anchor and tokens=a_token"):
        tinv.convert(made("absolute"), "full_zero", example_input=images("absolute"))


def test_other_policies_go_with_it():
    batch = images("timm v1")
    network = tinv.convert(made("timm v1"), activation="up2", tokens="a_token", example_input=batch)
    assert network.conversion.counts["activations replaced"] == 4
    assert error(network, batch) < 1e-10


def test_copies_files_and_a_second_conversion_keep_the_policy(tmp_path):
    batch = images("timm v2")
    network = converted("timm v2", "a_token")
    torch.save(network, tmp_path / "network.pt")
    loaded = torch.load(tmp_path / "network.pt", weights_only=False)
    for other in (copy.deepcopy(network), loaded, tinv.convert(network, tokens="a_token", example_input=batch)):
        assert torch.equal(other(batch), network(batch))
    with pytest.raises(TinvError, match=r"already converted \(tokens=a_token\)"):
        tinv.convert(network, tokens="anchor", example_input=batch)


def test_the_network_that_is_given_is_left_as_it_was():
    network, batch = made("timm v1"), images("timm v1")
    before = network(batch)
    tinv.convert(network, tokens="a_token", example_input=batch)
    assert torch.equal(network(batch), before)
    assert not any(isinstance(module, AdaptiveWindowAttention) for module in network.modules())


def test_forward_derivatives_are_those_of_differences():
    batch = images("timm v1")
    network = converted("timm v1", "a_token")
    tangent = torch.randn(batch.shape, dtype=torch.double, generator=torch.Generator().manual_seed(3))
    _, slope = torch.func.jvp(network, (batch,), (tangent,))
    step = 1e-6
    with torch.no_grad():
        expected = (network(batch + step * tangent) - network(batch - step * tangent)) / (2 * step)
    torch.testing.assert_close(slope, expected, rtol=1e-5, atol=1e-6)


def test_an_exported_program_and_a_mapped_function_give_the_same():
    batch, network = images("timm v1"), converted("timm v1", "a_token")
    with torch.no_grad():
        logits = network(batch)
        assert torch.equal(torch.export.export(network, (batch,)).module()(batch), logits)
        mapped = torch.vmap(lambda image: network(image[None])[0])(batch)
    torch.testing.assert_close(mapped, logits, rtol=0, atol=1e-12)


def test_costs_count_the_choice_and_what_is_inside_of_layers():
    conversion = converted("timm v1", "a_token").conversion
    flops, memory = conversion.after.times(conversion.before)
    assert 1.0 < flops < 2.0
    assert 0.7 < memory < 1.5
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made_anew = tinv.convert(made("timm v1"), tokens="anchor", example_input=images("timm v1"))
    assert made_anew.conversion.counts == {"inputs anchored": 1}


def test_every_shift_of_the_total_stride_along_both_axes():
    batch = images("timm v1", 1)
    network = converted("timm v1", "a_token")
    shifts = list(itertools.product(range(16), repeat=2))
    with torch.no_grad():
        logits = network(torch.cat([batch.roll(by, (2, 3)) for by in shifts]))
    assert float((logits - logits[0]).abs().max()) < 1e-10 * float(logits.abs().max())
