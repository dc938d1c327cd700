"""The token policy in configurations, commands, files of weights and the list."""

import json
from pathlib import Path

import pytest
import torch
from tiny_run import TINY, results

import tinv
from tinv import create_backbone
from tinv.cli import main
from tinv.config.identity import with_later_keys
from tinv.errors import TinvError
from tinv.evaluation.networks import NetworkSpec
from tinv.models.weights import load_file
from tinv.policies.conversion import ConversionPolicy
from tinv.runs.folder import differences

SMALL = {"img_size": 16, "patch_size": 4, "embed_dim": 12, "depth": 1, "num_heads": 2}
VIT = ["--backbone_args.img_size=32", "--backbone_args.depth=2", "--input-size=32", "--backbone_args.embed_dim=24"]


def test_in_the_list(capsys):
    assert main(["list", "tokens"]) == 0
    text = capsys.readouterr().out
    assert all(name in text for name in ("keep", "anchor", "a_token", "2305.16316", "2306.07470"))


def test_in_inspect(capsys):
    found = {}
    for tokens in ("keep", "anchor", "a_token"):
        assert main(["inspect", "vit_tiny_patch16_224", *VIT, "--tokens", tokens, "--json", "--verify"]) == 0
        found[tokens] = json.loads(capsys.readouterr().out)
        assert found[tokens]["policies"]["tokens"] == tokens
        assert found[tokens]["patches"]["grid"] == [2, 2]
    units = {tokens: found[tokens]["verdict"]["circular"][0]["unit"] for tokens in found}
    assert units == {"keep": None, "anchor": 1, "a_token": None}
    assert found["a_token"]["verdict"]["circular"][0]["reason"].endswith("(pos_embed)")
    assert [note["layer"] for note in found["a_token"]["skipped"]] == ["pos_embed"]


def test_inspect_prints_the_patch_grid_of_a_published_vit(capsys):
    assert main(["inspect", "vit_tiny_patch16_224", "--tokens", "anchor"]) == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "patch grid: 14x14 patches of 16x16 pixels (patch_embed.proj)" in text
    assert "changed: 1 inputs anchored" in text
    assert "circular shifts: every shift" in text


def test_mistakes_are_one_line(capsys):
    assert main(["inspect", "vit_tiny_patch16_224", *VIT, "--tokens=a_tokens"]) == 2
    assert "a_token" in capsys.readouterr().err
    assert main(["inspect", "resnet10t", "--input-size=32", "--tokens=anchor"]) == 2
    assert "tokens=anchor is for networks of patches" in capsys.readouterr().err
    with pytest.raises(TinvError, match="unknown tokens 'anchr'; did you mean anchor"):
        ConversionPolicy(tokens="anchr")
    with pytest.raises(TinvError, match="unknown tokens"):
        tinv.TokenPolicy("keeps")


def test_in_a_configuration_and_a_checkpoint(capsys):
    network = {
        "backbone": "vit_tiny_patch16_224",
        "source": "timm",
        "backbone_args": json.dumps({**SMALL, "img_size": 32}),
    }
    options = [*TINY, *(f"--model.init_args.{key}={value}" for key, value in network.items())]
    options += ["--trainer.max_epochs=1", "--model.init_args.tokens=anchor", "--run_dir=run"]
    assert main(["fit", *options]) == 0, capsys.readouterr().err
    assert results(Path("run"))["config"]["model"]["init_args"]["tokens"] == "anchor"
    assert main(["test", "--ckpt_path=run/checkpoints/best.ckpt"]) == 0


def test_weights_of_the_plain_network_are_taken():
    spec = NetworkSpec("vit_tiny_patch16_224", "timm", backbone_args=SMALL, num_classes=3)
    plain = spec.plain((16, 16))
    made = spec.under(ConversionPolicy(tokens="a_token"), plain, (16, 16))
    assert list(made.state_dict()) == list(plain.state_dict())
    torch.save(plain.state_dict(), "weights.pt")
    options = {"num_classes": 3, "input_size": (16, 16), "tokens": "a_token", **SMALL}
    other = create_backbone("vit_tiny_patch16_224", "timm", **options)
    load_file(other, Path("weights.pt"))
    assert all(torch.equal(other.state_dict()[key], value) for key, value in plain.state_dict().items())


def test_a_policy_is_a_name_an_object_or_a_class_path():
    given = (
        "a_token",
        tinv.TokenPolicy("a_token"),
        {"class_path": "tinv.TokenPolicy", "init_args": {"mode": "a_token"}},
    )
    assert len({ConversionPolicy(tokens=tokens) for tokens in given}) == 1
    assert str(ConversionPolicy("same_zero", tokens="anchor")) == "padding=same_zero, tokens=anchor"
    assert ConversionPolicy(tokens="keep").keeps_all
    assert not ConversionPolicy(tokens="anchor").keeps_all


def test_results_without_the_key_read_keep():
    old = {"model": {"init_args": {"padding": "keep", "activation": "up2"}}}
    new = {"model": {"init_args": {"padding": "keep", "activation": "up2", "tokens": "keep"}}}
    assert differences(old, new) == []
    new["model"]["init_args"]["tokens"] = "anchor"
    assert differences(old, new) == ["model.init_args.tokens"]
    assert with_later_keys({"model.init_args.padding": "keep"})["model.init_args.tokens"] == "keep"
