"""`tinv inspect`: the table, the JSON, and bad input."""

import json
import time

import pytest

from tinv.cli import main
from tinv.cli.inspect import inspect
from tinv.errors import TinvError


def test_the_table_names_costs_and_verdict(capsys):
    assert main(["inspect", "resnet18", "--padding", "full_zero", "--subsampling", "blur3", "--input-size", "96"]) == 0
    said = " ".join(capsys.readouterr().out.split())
    assert "resnet18 (timm), padding=full_zero, subsampling=blur3, on 96x96 images" in said
    assert "layer2.0.conv1 + blur3" in said
    assert "the unconverted network" in said
    assert "skipped: conv1: the stride of the first convolution, by stem=keep" in said
    assert "circular shifts: none (conv1: pads with zeros)" in said


def test_json_holds_everything(capsys):
    words = [
        "resnet18",
        "--source",
        "torchvision",
        "--padding",
        "full_background",
        "--subsampling",
        "aps",
        "--json",
        "--all",
    ]
    assert inspect([*words, "--pool", "full", "--stem", "convert", "--input-size", "64x96"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["input_shape"] == [1, 3, 64, 96]
    assert [standing["unit"] for standing in found["verdict"]["zero_canvas"]] == [1, 1]
    assert [standing["unit"] for standing in found["verdict"]["circular"]] == [None, None]
    assert found["cost"]["flops"] > 3 * found["cost_unconverted"]["flops"]
    conv1 = next(layer for layer in found["layers"] if layer["name"] == "conv1")
    assert [axis["offset"] for axis in conv1["axes"]] == [-3, -3]
    assert len(found["changed"]) > 17


def test_own_networks_and_clips(capsys):
    assert inspect(["red_green_net", "--source", "tinv", "--padding", "full_zero", "--num-classes", "2"]) == 0
    assert "multiples of 8 pixels (features.conv2: stride 2)" in " ".join(capsys.readouterr().out.split())
    assert inspect(["r3d_18", "--source", "torchvision", "--padding", "full_zero", "--input-size", "4x32x32"]) == 0
    assert "along height and width: multiples of 16 pixels" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["resnet19"], "unknown backbone of source timm 'resnet19'; did you mean"),
        (["resnet18", "--input-size", "big"], "--input-size big is not a size in pixels"),
        (["resnet18", "--padding.init_args", "{mode: zeros}"], "--padding: init_args are given without the class"),
        (["resnet18", "--padding.init_args.mode=zeros"], "a part of an object needs its class_path"),
        (
            ["rook_net", "--source", "tinv", "--input-size", "1x2x3"],
            "input_size must be two numbers, H and W, for rook_net",
        ),
        (["resnet18", "--padding", "valid", "--input-size", "64"], "the least input that works is 431x431"),
        (["resnet18", "--backbone-args", "drop"], "--backbone-args 'drop': write KEY=VALUE"),
    ],
)
def test_bad_input_is_one_clear_line(words, message):
    with pytest.raises(TinvError, match=message) as error:
        inspect(words)
    assert "\n" not in str(error.value)


def test_it_is_quick(capsys):
    started = time.perf_counter()
    inspect(["resnet50", "--padding", "full_zero", "--subsampling", "blur3"])
    assert time.perf_counter() - started < 10


def test_a_policy_is_written_out_as_an_object(capsys):
    words = ["--padding.class_path=tinv.PaddingPolicy", "--padding.init_args.amount=same"]
    assert main(["inspect", "resnet10t", "--input-size=32", *words, "--padding.init_args.mode=[zeros,circular]"]) == 0
    said = capsys.readouterr().out
    assert "padding=same_circular_width" in said
    assert main(["inspect", "resnet10t", "--input-size=32", "--padding.class_path=tinv.Nothing"]) == 2
    assert "--padding: there is no 'Nothing' in tinv" in capsys.readouterr().err
