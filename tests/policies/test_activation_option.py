"""The activation policy in configurations, commands, files of weights, and beside results that lack the key."""

import json
from pathlib import Path

import pytest
import torch
from tiny_run import TINY, results

from tinv import create_backbone
from tinv.cli import main
from tinv.config.identity import with_later_keys
from tinv.evaluation.networks import NetworkSpec
from tinv.models.weights import load_file
from tinv.policies.conversion import ConversionPolicy
from tinv.runs.folder import differences


def test_in_a_configuration_a_checkpoint_and_the_list(capsys):
    options = [*TINY, "--trainer.max_epochs=1", "--model.init_args.activation=poly2", "--run_dir=run"]
    assert main(["fit", *options]) == 0
    assert results(Path("run"))["config"]["model"]["init_args"]["activation"] == "poly2"
    state = torch.load("run/checkpoints/best.ckpt", weights_only=True)["state_dict"]
    assert any("policy_layers" in key and key.endswith("coefficients") for key in state)
    assert main(["test", "--ckpt_path=run/checkpoints/best.ckpt"]) == 0
    assert main(["list", "activation"]) == 0
    assert "poly2" in capsys.readouterr().out
    assert main(["fit", *TINY, "--model.init_args.activation=poly"]) == 2
    assert "did you mean poly2" in capsys.readouterr().err


def test_in_inspect(capsys):
    words = ["inspect", "resnet10t", "--input-size=32", "--padding=same_circular", "--subsampling=ideal"]
    assert main([*words, "--stem=convert", "--activation=poly2", "--pool=keep", "--json", "--all"]) == 0
    found = json.loads(capsys.readouterr().out)
    # its stem has a max pool, which no filter follows
    assert [(axis["exact"], axis["layer"]) for axis in found["verdict"]["fractional"]] == [(False, "maxpool")] * 2
    assert {layer["statistics"] for layer in found["layers"]} == {None, "constant"}
    assert found["policies"]["activation"] == "poly2"


@pytest.mark.parametrize("source", ["tinv", "timm"])
def test_weights_of_the_plain_network_are_taken(source):
    name, size = ("rook_net", (16, 16)) if source == "tinv" else ("resnet10t", (32, 32))
    spec = NetworkSpec(name, source, num_classes=3)
    plain = spec.plain(size)
    made = spec.under(ConversionPolicy(activation="poly2"), plain, size)
    for key, value in plain.state_dict().items():
        assert torch.equal(made.state_dict()[key], value)
    torch.save(plain.state_dict(), "weights.pt")
    other = create_backbone(name, source, num_classes=3, input_size=size, activation="poly2")
    load_file(other, Path("weights.pt"))
    assert torch.equal(other.state_dict()[key], value)
    # and of the network under the policy itself
    torch.save(other.state_dict(), "converted.pt")
    load_file(other, Path("converted.pt"))


def test_results_without_the_key_read_keep():
    old = {"model": {"init_args": {"padding": "keep"}}}
    new = {"model": {"init_args": {"padding": "keep", "activation": "keep"}}}
    assert differences(old, new) == []
    assert differences(old, {"model": {"init_args": {"padding": "keep", "activation": "up2"}}}) == [
        "model.init_args.activation"
    ]
    own = {"model.init_args.activation.class_path": "own.Policy", "model.init_args.padding": "keep"}
    assert with_later_keys(own) == {**own, "model.init_args.tokens": "keep"}
    assert with_later_keys({"model.init_args.width": 3}) == {"model.init_args.width": 3}
