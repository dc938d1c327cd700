"""Networks in files of other programs: what they give is what they gave before, and nothing untrusted is unpickled."""

import io
import json
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from test_measure import write_images
from torch import nn

from tinv.cli import main
from tinv.errors import TinvError
from tinv.evaluation.model_files import load_model_file

WEIGHT = np.random.default_rng(0).normal(size=(4, 3, 3, 3)).astype("float32")


def network() -> nn.Sequential:
    made = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1, bias=False), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    made[0].weight.data = torch.from_numpy(WEIGHT)
    return made.eval()


def write_onnx(path: str, batch: str | int = "n", size: tuple = (32, 32), channels: int = 3, **more: object) -> str:
    """Writes the network as an ONNX file; a name instead of a number leaves an axis open."""
    pytest.importorskip("onnxruntime", reason="the extra `onnx` has onnxruntime")
    onnx = pytest.importorskip("onnx", reason="the extra `dev` has onnx")
    helper, floats = onnx.helper, onnx.TensorProto.FLOAT
    given = more.get("type", floats)
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["maps"], pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Relu", ["maps"], ["positive"]),
        helper.make_node("GlobalAveragePool", ["positive"], ["means"]),
        helper.make_node("Flatten", ["means"], ["y"]),
    ]
    outputs = [helper.make_tensor_value_info("y", given, [batch, 4])]
    if more.get("maps"):
        outputs.append(helper.make_tensor_value_info("maps", given, None))
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info("x", given, more.get("shape", [batch, channels, *size]))],
        outputs,
        [onnx.numpy_helper.from_array(WEIGHT.astype(more.get("dtype", "float32")), "w")],
    )
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9), path)
    return path


def write_pt2(path: str, batch: int | None = 4) -> str:
    dynamic = None if batch else ({0: torch.export.Dim("n")},)
    program = torch.export.export(network(), (torch.zeros(batch or 2, 3, 32, 32),), dynamic_shapes=dynamic)
    torch.export.save(program, path)
    return path


@pytest.mark.parametrize("batch", ["n", 1, 4])
def test_onnx_gives_what_the_network_gives(batch):
    file, images = load_model_file(write_onnx("net.onnx", batch)), torch.randn(6, 3, 32, 32)
    assert file.shape == (batch if isinstance(batch, int) else None, 3, 32, 32)
    assert file.input_size == (32, 32)
    torch.testing.assert_close(file(images), network()(images).detach(), atol=1e-5, rtol=1e-4)
    with pytest.raises(TinvError, match=r"net\.onnx takes images of 32x32 pixels, not 40x32"):
        file(torch.zeros(1, 3, 40, 32))


def test_open_sizes_take_any_images():
    file = load_model_file(write_onnx("net.onnx", size=("h", "w")))
    assert file.input_size is None
    assert file(torch.zeros(2, 3, 20, 24)).shape == (2, 4)


@pytest.mark.parametrize("batch", [None, 1, 4])
def test_torch_export_gives_what_the_network_gives(batch):
    file, images = load_model_file(write_pt2("net.pt2", batch), trust=True), torch.randn(6, 3, 32, 32)
    assert file.shape == (batch, 3, 32, 32)
    torch.testing.assert_close(file(images), network()(images).detach())
    assert not file(images).requires_grad


def test_code_in_a_file_of_torch_export_is_not_run_unless_it_is_trusted():
    """If torch ever stops running it, the flag may go."""

    class Code:
        def __reduce__(self):
            return Path.touch, (Path("was run"),)

    code = io.BytesIO()
    torch.save(Code(), code)
    with zipfile.ZipFile(write_pt2("net.pt2")) as sound, zipfile.ZipFile("evil.pt2", "w") as evil:
        for name in sound.namelist():
            evil.writestr(name, code.getvalue() if "inputs" in name else sound.read(name))
    with pytest.raises(TinvError, match=r"evil\.pt2: torch reads \.pt2 files with pickle.*--trust-model"):
        load_model_file("evil.pt2")
    assert not Path("was run").exists()
    with pytest.raises(TinvError, match=r"evil\.pt2 cannot be read"):
        load_model_file("evil.pt2", trust=True)
    assert Path("was run").exists()


def test_what_is_no_network_of_images_is_refused_by_name():
    onnx = pytest.importorskip("onnx", reason="the extra `dev` has onnx")
    for name, more, message in (
        ("two.onnx", {"maps": True}, r"two\.onnx has 2 outputs \(y, maps\)"),
        ("last.onnx", {"shape": ["n", 32, 32, 3]}, "its channels come last"),
        ("integers.onnx", {"type": onnx.TensorProto.INT32, "dtype": "int32"}, r"integers\.onnx"),
    ):
        with pytest.raises(TinvError, match=message):
            load_model_file(write_onnx(name, **more))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent.onnx", "there is no file absent.onnx"),
        ("net.pth", r"net\.pth is no file of a network that tinv reads; .* \.onnx or \.pt2"),
        ("noise.pt2", r"noise\.pt2 cannot be read as a file of torch\.export"),
    ],
)
def test_damaged_files_are_one_line(name, message, caplog):
    Path("noise.pt2").write_bytes(b"noise")
    with pytest.raises(TinvError, match=message) as caught:
        load_model_file(name, trust=True)
    assert "\n" not in str(caught.value)
    assert not caplog.records


def test_a_damaged_onnx_file_is_one_line(capfd):
    pytest.importorskip("onnxruntime", reason="the extra `onnx` has onnxruntime")
    Path("noise.onnx").write_bytes(b"noise")
    with pytest.raises(TinvError, match=r"noise\.onnx cannot be read as an ONNX file") as caught:
        load_model_file("noise.onnx")
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""


def test_a_missing_package_says_what_to_install(monkeypatch):
    Path("net.onnx").write_bytes(b"")
    monkeypatch.setitem(__import__("sys").modules, "onnxruntime", None)
    with pytest.raises(TinvError, match=r"ONNX files need the package onnxruntime; pip install tinv\[onnx\]"):
        load_model_file("net.onnx")


def measure(*options: str) -> int:
    return main(["measure", "--images=photos", "--out=out", "--offset-range=8", "--passes=1", *options])


def test_the_command_measures_a_file_at_its_own_size(capsys):
    write_images(Path("photos"), 3)
    assert measure("--model", write_pt2("net.pt2"), "--trust-model") == 0
    found = json.loads(Path("out/measure.json").read_text())
    assert found["options"]["input_size"] == [32, 32]
    assert found["options"]["model"] == "net.pt2"
    assert {"consistency", "map/consistency"} <= found["metrics"].keys()
    assert "attribution" not in found
    said = capsys.readouterr()
    assert "note: net.pt2 does not say how its images are normalized" in said.out
    assert "measured without comb, layers, attribution" in said.err


def test_options_that_do_not_go_with_a_file_are_named(capsys):
    write_images(Path("photos"), 2)
    write_pt2("net.pt2")
    for options, message in (
        (["--model=net.pt2"], "--trust-model"),
        (["--model=net.pt2", "--trust-model", "--padding=valid"], "--model says which network, weights and classes"),
        (["--model=net.pt2", "--trust-model", "--backbone=resnet18"], "leave --backbone out"),
        (["--model=net.pt2", "--trust-model", "--input-size=40"], "takes images of 32x32 pixels, not 40x40"),
        (["--model=net.pt2", "--trust-model", "--precision=bf16"], "--precision bf16: net.pt2 runs on the CPU"),
        (["--model=net.pt2", "--trust-model", "--metrics", "lie"], "metrics: lie cannot be measured of a ModelFile"),
        (["--trust-model", "--backbone=resnet18"], "--trust-model is for the file of --model"),
        ([], "--backbone NAME, --run DIR or --model FILE is missing"),
    ):
        assert measure(*options) == 2, options
        error = capsys.readouterr().err
        assert message in error, options
        assert error.count("\n") == 1
