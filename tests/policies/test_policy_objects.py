"""Policies as objects: names and objects are the same, and one of a user's own works wherever a name does."""

from dataclasses import replace
from importlib import import_module
from typing import get_args

import pytest

from tinv.errors import TinvError
from tinv.nn.subsampling import AdaptivePolyphaseSampling, BlurPool
from tinv.policies.cards import PADDING_CARDS, PADDINGS, SUBSAMPLING_CARDS, SUBSAMPLINGS
from tinv.policies.conversion import ConversionPolicy
from tinv.policies.padding import Amount, PaddingPolicy, padding_policy
from tinv.policies.subsampling import APS, Blur, SubsamplingPolicy, subsampling_policy


def test_every_name_is_an_object_with_a_card():
    assert set(PADDING_CARDS) == set(PADDINGS)
    assert set(SUBSAMPLING_CARDS) == set(SUBSAMPLINGS)
    for name in PADDINGS:
        assert padding_policy(name).name == str(padding_policy(name)) == name
        assert padding_policy(name).card == PADDING_CARDS[name]
    for name in SUBSAMPLINGS:
        assert subsampling_policy(name).name == str(subsampling_policy(name)) == name
        assert subsampling_policy(name).card == SUBSAMPLING_CARDS[name]
    assert {padding_policy(name).amount for name in PADDINGS} == set(get_args(Amount))


def test_objects_names_and_mappings_are_the_same():
    assert padding_policy("full_background") == PaddingPolicy("full", "background")
    assert padding_policy({"class_path": "tinv.policies.padding.PaddingPolicy", "init_args": {"amount": "valid"}}) == (
        PaddingPolicy("valid")
    )
    assert subsampling_policy("aps_blur3") == APS(3)
    assert subsampling_policy(Blur(5)) == subsampling_policy("blur5") != subsampling_policy("blur3")
    assert subsampling_policy("aps_linf") == APS(norm="inf")
    assert APS(3, norm=1).name == "aps_blur3_l1"
    assert "sum of magnitudes" in APS(3, norm=1).card.what
    assert hash(Blur(5)) == hash(subsampling_policy("blur5"))


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("same_zeros", "unknown padding 'same_zeros'; did you mean same_zero"),
        ("no_such_module.Policy", r"padding: no_such_module.Policy cannot be made \(No module named"),
        ("tinv.policies.subsampling.Blur", "padding: tinv.policies.subsampling.Blur is no PaddingPolicy"),
        ({"class_path": "tinv.policies.padding.PaddingPolicy", "init_args": {"ammount": 1}}, "cannot be made"),
        (3, "unknown padding '3'"),
    ],
)
def test_what_is_no_policy_is_said_in_one_line(given, message):
    with pytest.raises(TinvError, match=message):
        padding_policy(given)


def test_policies_give_their_layers():
    full = PaddingPolicy("full", "circular")
    assert subsampling_policy("keep").layer((2, 2), 3, full) is None
    assert subsampling_policy("dilated").layer((2, 2), 3, full) is None
    blur = subsampling_policy("blur4").layer((2, 1), 3, full)
    assert isinstance(blur, BlurPool)
    assert (blur.size, blur.stride, blur.padding_mode, blur.full) == ([4, 1], (2, 1), "circular", True)
    plain, both = (subsampling_policy(name).layer((2, 2), 3, PaddingPolicy("same")) for name in ("aps", "aps_blur5"))
    assert isinstance(plain, AdaptivePolyphaseSampling)
    assert (plain.blur.size, plain.stride, plain.blur.full) == ([1, 1], (2, 2), False)
    assert subsampling_policy("aps_l1").layer((2, 2), 3, full).norm == 1
    assert (both.blur.size, both.blur.stride, both.stride) == ([5, 5], 1, (2, 2))


def test_a_conversion_policy_checks_prints_and_compares_all_options():
    policy = ConversionPolicy("full_zero", "blur3", pool="full", partial=True)
    assert str(policy) == "padding=full_zero, subsampling=blur3, pool=full, partial=True"
    assert str(ConversionPolicy()) == "padding=keep, subsampling=keep"
    assert policy == ConversionPolicy(PaddingPolicy("full"), Blur(3), pool="full", partial=True)
    assert replace(policy, padding=PaddingPolicy("valid")) == ConversionPolicy("valid", "blur3", "full", partial=True)
    assert ConversionPolicy().keeps_all
    assert not ConversionPolicy(pool="same").keeps_all
    assert not ConversionPolicy(subsampling="dilated").keeps_all
    assert policy.to_dict()["activation"] == "keep"
    for option, value in {"pool": "fulll", "stem": "no", "axes": "time", "blur_padding": "zeros"}.items():
        with pytest.raises(TinvError, match=f"unknown {option} '{value}'"):
            ConversionPolicy(**{option: value})


def test_an_unknown_norm_of_a_policy_is_one_clear_line():
    given = {"class_path": "tinv.policies.subsampling.APS", "init_args": {"norm": 3}}
    with pytest.raises(TinvError, match="the norm of adaptive subsampling is 1, 2 or inf, not 3"):
        subsampling_policy(given)


class Own(SubsamplingPolicy):
    """A policy with a parameter."""

    def __init__(self, power: int = 2) -> None:
        self.power = power

    def layer(self, stride, channels, padding):
        return None


class WithoutLayer(SubsamplingPolicy):
    """A policy whose author forgot the one method that it needs."""


def test_own_policies_compare_by_their_parameters():
    assert Own(2) == Own(2) != Own(3)
    assert str(Own()) == "Own"
    assert subsampling_policy(f"{__name__}.Own") == Own(2)
    with pytest.raises(TinvError, match=r"WithoutLayer cannot be made \(Can't instantiate abstract class .*layer"):
        subsampling_policy(f"{__name__}.WithoutLayer")


OLD = {
    "padding": ("PaddedConv2d", "pad", "padding_amounts", "check_padding"),
    "pooling": ("Pool",),
    "subsampling": ("BlurPool", "AdaptivePolyphase", "subsampler", "check_subsampling"),
    "convert": ("convert", "ConvertedNetwork"),
    "analysis": ("analyse",),
}


@pytest.mark.parametrize(("module", "name"), [(module, name) for module, names in OLD.items() for name in names])
def test_old_homes_of_names_still_have_them_and_say_where_they_are_now(module, name):
    with pytest.warns(DeprecationWarning, match=f"tinv.policies.{module}.{name} is now"):
        assert callable(getattr(import_module(f"tinv.policies.{module}"), name))
    with pytest.raises(AttributeError):
        getattr(import_module(f"tinv.policies.{module}"), "nothing")  # noqa: B009


def test_old_functions_on_names_give_what_they_gave():
    from tinv.policies.settings import Settings

    with pytest.warns(DeprecationWarning, match="padding_amounts"):
        from tinv.policies.padding import padding_amounts
    with pytest.warns(DeprecationWarning, match="subsampler"):
        from tinv.policies.subsampling import subsampler
    assert padding_amounts("same_zero", [4], [1]) == [(1, 2)]
    assert subsampler("blur3", 2).size == [3, 3]
    assert Settings is ConversionPolicy
