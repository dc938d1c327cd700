"""Options of a network: those that tinv sets are refused among the network's own, and all policies are reachable."""

import inspect as python_inspect
import json
import subprocess
import sys

import pytest
import torch

import tinv
from tinv.cli.inspect import inspect
from tinv.cli.inspect import make_parser as inspect_parser
from tinv.cli.measure import make_parser as measure_parser
from tinv.cli.probe import make_parser as probe_parser
from tinv.errors import LayerError, TinvError
from tinv.models import backbone_options, create_backbone
from tinv.policies.conversion import ConversionPolicy
from tinv.tasks import Classification
from tinv.tasks.base import BaseTask
from tinv.tasks.descriptors import Descriptors


@pytest.mark.parametrize(
    "key",
    ["padding", "name", "num_classes", "in_chans", "partial", "input_size", "features_only", "checkpoint_path"],
)
@pytest.mark.parametrize("task", [Classification, Descriptors])
def test_a_key_that_tinv_sets_is_refused_among_the_networks_own(task, key):
    with pytest.raises(TinvError, match=rf"backbone_args\.{key}: it is not an option of the network itself"):
        task("resnet18", source="timm", padding="same_circular", backbone_args={key: "full_zero"})


def test_the_networks_own_options_pass():
    assert backbone_options({"drop_rate": 0.1}, padding="valid") == {"padding": "valid", "drop_rate": 0.1}


def test_inspect_refuses_them_too():
    with pytest.raises(TinvError, match=r"backbone_args\.num_classes"):
        inspect(["resnet18", "--backbone-args", "num_classes=5"])


@pytest.mark.parametrize("option", ConversionPolicy.__dataclass_fields__)
def test_every_policy_option_is_reachable_everywhere(option):
    """From Python, from configurations and from the three commands that take a network."""
    for function in (tinv.convert, create_backbone, BaseTask.__init__):
        assert option in python_inspect.signature(function).parameters
    for parser in (inspect_parser(), measure_parser(), probe_parser()):
        assert option in parser.hints


def test_an_own_network_under_a_policy_is_titled_so(capsys):
    assert inspect(["pooling_cnn", "--source", "tinv", "--padding", "same_circular", "--num-classes", "10"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert said.startswith("pooling_cnn (tinv), padding=same_circular, on 32x32 images")
    assert "the unconverted network" in said
    assert "changed: 3 convolutions padded" in said
    assert inspect(["pooling_cnn", "--source", "tinv"]) == 0
    assert "pooling_cnn (tinv), unconverted" in " ".join(capsys.readouterr().out.split())


def test_a_partial_conversion_says_so_in_inspect(capsys):
    words = [
        "hrnet_w18_small",
        "--padding",
        "same_circular",
        "--subsampling",
        "keep",
        "--partial",
        "--input-size",
        "64",
    ]
    assert inspect([*words, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["policies"]["partial"] is True
    assert isinstance(found["partial"], list)


def test_public_names_are_where_the_documentation_has_them():
    from tinv.policies import AdaptivePolyphase, BlurPool, PaddedConv2d, Pool, analyse, pad  # noqa: F401

    assert tinv.TinvError is TinvError
    assert tinv.LayerError is LayerError
    script = "import sys, tinv, tinv.policies; dir(tinv.policies); print('torch' in sys.modules)"
    assert (
        subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout == "False\n"
    )
    assert isinstance(PaddedConv2d(1, 1, 3)(torch.zeros(1, 1, 4, 4)), torch.Tensor)
