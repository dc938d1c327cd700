"""What the verdict says of vision transformers under token policies, against what their outputs do."""

import pytest
import torch
from small_transformers import ABSOLUTE, SWINS, VITS, converted, images, made
from torch import Tensor, nn

import tinv
from tinv.graph.patches import patch_grid

NAMES = ("torchvision v2", "timm v1", "torchvision", "no positions, class token", "relative")


@pytest.mark.parametrize("tokens", ["keep", "anchor", "a_token"])
@pytest.mark.parametrize("name", NAMES)
def test_every_claim_holds_and_none_is_missed(name, tokens):
    batch = images(name, 1)
    found = tinv.verify(converted(name, tokens), batch)
    assert found.holds
    exact = tokens == "anchor" or (tokens == "a_token" and name not in ABSOLUTE)
    # without positions a ViT follows shifts by whole patches anyway
    unit = 1 if exact else 4 if name == "no positions, class token" else None
    for axis in found.sizes[0].of("circular"):
        assert axis.claim.unit == axis.unit == unit
        assert axis.error > 1e-3 or exact


@pytest.mark.parametrize("name", [name for name in (*SWINS, *VITS) if name not in NAMES])
def test_the_verdict_of_the_other_networks_under_a_token(name):
    batch = images(name, 1)
    verdict = tinv.summary(converted(name, "a_token"), batch).verdict
    units = {shifts.unit for shifts in (*verdict.circular, *verdict.zero_canvas)}
    assert units == ({None} if name in ABSOLUTE else {1})
    assert not any(parts.exact for parts in verdict.fractional)


@pytest.mark.parametrize(
    ("name", "layer", "reason"),
    [
        ("absolute", "add", "differ from position to position (pos_embed)"),
        ("torchvision", "encoder.add", "differ from position to position (encoder.pos_embedding)"),
        ("relative", "blocks.0.attn.scaled_dot_product_attention", "do not depend on their distance alone"),
    ],
)
def test_what_breaks_a_plain_vit_is_named(name, layer, reason):
    [shifts, _] = tinv.summary(made(name), images(name, 1)).verdict.circular
    assert shifts.layer == layer
    assert reason in shifts.reason


def test_the_patch_grid_is_shown_with_what_chooses_it():
    batch = images("timm v1", 1)
    begins = {}
    for tokens in ("keep", "anchor", "a_token"):
        found = tinv.summary(converted("timm v1", tokens), batch)
        begins[tokens] = found.patches.begins
        assert (found.patches.patch, found.patches.grid) == ((2, 2), (8, 8))
        assert str(found.patches) in found.lines()
        assert found.to_dict()["patches"]["layer"] == "patch_embed.proj"
    assert begins == {
        "keep": "at the border",
        "anchor": "at the border of the anchored image",
        "a_token": "where their tokens are strongest",
    }
    assert patch_grid(nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.Conv2d(4, 4, 2, 2)), (8, 8)) is None


class Tokens(nn.Module):
    """Tokens behind a class token, of which a step makes a vector."""

    def __init__(self, step) -> None:
        super().__init__()
        self.embed, self.mix = nn.Conv2d(3, 4, 2, 2), nn.MultiheadAttention(4, 2, batch_first=True)
        self.token, self.step = nn.Parameter(torch.randn(1, 1, 4)), step

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.embed(images).flatten(2).transpose(1, 2)
        tokens = torch.cat([self.token.expand(images.shape[0], -1, -1), tokens], dim=1)
        return self.step(self.mix(tokens, tokens, tokens)[0])


def _behind_positions(tokens: Tensor) -> Tensor:
    return torch.cat([tokens[:, 1:], tokens[:, :1]], dim=1)[:, 3]


@pytest.mark.parametrize(
    ("step", "unit"),
    [
        (lambda tokens: tokens[:, 0], 2),
        (lambda tokens: tokens[:, 1:].mean(dim=1), 2),
        (lambda tokens: tokens.mean(dim=1), 2),
        (lambda tokens: tokens[:, :1].flatten(1), 2),
        (lambda tokens: tokens[:, 1], None),
        (lambda tokens: tokens[:, -1], None),
        (lambda tokens: tokens[:, 2:].mean(dim=1), None),
        (lambda tokens: tokens[:, ::3].mean(dim=1), None),
        (lambda tokens: tokens[:, :6].mean(dim=1), None),
        (lambda tokens: tokens.flip(1)[:, 0], None),
        (lambda tokens: tokens.roll(1, 1)[:, 0], None),
        (lambda tokens: tokens.flatten(1), None),
        (_behind_positions, None),
    ],
)
def test_positions_behind_a_class_token_are_followed(step, unit):
    torch.manual_seed(0)
    network, batch = Tokens(step).double(), torch.randn(1, 3, 8, 8, dtype=torch.double)
    found = tinv.verify(network, batch)
    assert found.holds
    assert [axis.claim.unit for axis in found.sizes[0].of("circular")] == [unit, unit]
    assert [axis.unit for axis in found.sizes[0].of("circular")] == [unit, unit]


class Biased(nn.Module):
    """Attention between all tokens with numbers for each pair, in torch's function or step by step."""

    def __init__(self, bias: Tensor, fused: bool) -> None:
        super().__init__()
        self.embed, self.bias, self.fused = nn.Conv2d(3, 4, 2, 2), nn.Parameter(bias), fused

    def forward(self, images: Tensor) -> Tensor:
        tokens = self.embed(images).flatten(2).transpose(1, 2)
        if self.fused:
            return nn.functional.scaled_dot_product_attention(tokens, tokens, tokens, attn_mask=self.bias).mean(dim=1)
        return ((tokens @ tokens.transpose(1, 2) + self.bias).softmax(dim=-1) @ tokens).mean(dim=1)


@pytest.mark.parametrize("fused", [True, False])
@pytest.mark.parametrize("ring", [True, False])
def test_numbers_for_pairs_follow_where_they_depend_on_the_distance_on_a_ring(fused, ring):
    torch.manual_seed(0)
    row, column = torch.randn(2, 4).double()
    places = torch.arange(4)
    distance = (places[:, None] - places) % 4 if ring else (places[:, None] - places).abs()
    bias = (row[distance][:, None, :, None] + column[distance][None, :, None, :]).reshape(16, 16)
    found = tinv.verify(Biased(bias, fused).double(), torch.randn(1, 3, 8, 8, dtype=torch.double))
    assert found.holds
    assert [axis.claim.unit for axis in found.sizes[0].of("circular")] == [2 if ring else None] * 2
    assert [axis.unit for axis in found.sizes[0].of("circular")] == [2 if ring else None] * 2


def test_a_causal_mask_is_not_followed():
    class Causal(Biased):
        def forward(self, images: Tensor) -> Tensor:
            tokens = self.embed(images).flatten(2).transpose(1, 2)
            mixed = nn.functional.scaled_dot_product_attention(tokens, tokens, tokens, is_causal=True)
            return mixed.mean(dim=1)

    verdict = tinv.summary(Causal(torch.zeros(16, 16), True), torch.zeros(1, 3, 8, 8)).verdict
    assert {shifts.unit for shifts in verdict.circular} == {None}
