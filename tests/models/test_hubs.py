"""Networks by timm's `hf-hub:` and `local-dir:` names, and torchvision's weights by theirs."""

import json
import time
from pathlib import Path
from urllib.error import URLError

import pytest
import timm
import torch
from safetensors.torch import save_file
from tiny_run import fit

from tinv.cli import main
from tinv.errors import TinvError, TinvWarning
from tinv.evaluation.networks import NetworkSpec, normalization_of
from tinv.models import create_backbone
from tinv.models.published import published_config, published_size, weights_name

SIZE = {"input_size": (64, 64)}


def write_folder(name: str, safe: bool = True) -> dict[str, torch.Tensor]:
    """Writes a network of timm for three classes as `timm.models.save_for_hf` does, and returns its weights."""
    torch.manual_seed(3)
    network = timm.create_model("resnet10t", num_classes=3)
    keys = ("input_size", "std", "first_conv", "classifier")
    own = {key: network.pretrained_cfg[key] for key in keys} | {"num_classes": 3, "mean": [0.4, 0.5, 0.6]}
    Path(name).mkdir()
    config = {"architecture": "resnet10t", "num_classes": 3, "pretrained_cfg": own}
    Path(name, "config.json").write_text(json.dumps(config))
    weights = network.state_dict()
    if safe:
        save_file(weights, f"{name}/model.safetensors")
    else:
        torch.save(weights, f"{name}/pytorch_model.bin")
    return weights


@pytest.mark.parametrize("safe", [True, False])
def test_a_folder_holds_a_network(safe):
    wanted = write_folder("net", safe)
    network = create_backbone("local-dir:net", "timm", num_classes=3, pretrained=True, **SIZE)
    assert network.state_dict().keys() == wanted.keys()
    assert all(torch.equal(value, wanted[key]) for key, value in network.state_dict().items())
    assert normalization_of(network, None, None)[0] == (0.4, 0.5, 0.6)
    assert "state_dict" not in network.pretrained_cfg
    random = create_backbone("local-dir:net", "timm", num_classes=3, **SIZE)
    assert not torch.equal(random.state_dict()["fc.weight"], wanted["fc.weight"])
    converted = create_backbone(
        "local-dir:net", "timm", num_classes=3, pretrained=True, padding="same_circular", **SIZE
    )
    assert converted.conversion.policy.padding.name == "same_circular"


def test_another_number_of_classes_replaces_the_last_layer_and_says_so():
    wanted = write_folder("net")
    with pytest.warns(TinvWarning, match="local-dir:net is for 3 classes, here are 5: its last layer is replaced"):
        network = create_backbone("local-dir:net", "timm", num_classes=5, pretrained=True, **SIZE)
    assert network(torch.zeros(1, 3, 64, 64)).shape == (1, 5)
    assert torch.equal(network.state_dict()["conv1.0.weight"], wanted["conv1.0.weight"])
    save_file({"other": torch.zeros(2)}, "net/model.safetensors")
    with pytest.raises(TinvError, match=r"local-dir:net cannot be built .*Missing key"):
        create_backbone("local-dir:net", "timm", num_classes=5, pretrained=True, **SIZE)


def test_no_code_in_a_folder_is_run():
    class Code:
        def __reduce__(self):
            return Path.touch, (Path("was run"),)

    write_folder("net", safe=False)
    torch.save({"fc.weight": Code()}, "net/pytorch_model.bin")
    with pytest.raises(TinvError, match=r"net/pytorch_model\.bin cannot be read as weights .*never run"):
        create_backbone("local-dir:net", "timm", num_classes=3, pretrained=True, **SIZE)
    assert not Path("was run").exists()


def test_damaged_folders_are_one_line():
    write_folder("net")
    Path("empty").mkdir()
    Path("other").mkdir()
    Path("other/config.json").write_text('{"architecture": "resnet10x"}')
    Path("list").mkdir()
    Path("list/config.json").write_text("[]")
    Path("net/model.safetensors").write_bytes(b"noise")
    for name, message in (
        ("local-dir:absent", "local-dir:absent: there is no folder absent"),
        ("local-dir:empty", "there is no file empty/config.json"),
        ("local-dir:other", "unknown architecture of local-dir:other: 'resnet10x'; did you mean resnet10t"),
        ("local-dir:list", "list/config.json names no architecture"),
        ("local-dir:net", "net/model.safetensors cannot be read as weights"),
        ("hf-hub:a/b/c", "hf-hub:a/b/c is no network of timm on the Hugging Face hub"),
    ):
        with pytest.raises(TinvError, match=message) as caught:
            create_backbone(name, "timm", num_classes=3, pretrained=True, **SIZE)
        assert "\n" not in str(caught.value)


def test_a_hub_out_of_reach_is_one_line_at_once(monkeypatch):
    class Session:
        def head(self, *args, **kwargs):
            raise URLError("Name or service not known")

    monkeypatch.setattr("huggingface_hub.get_session", Session)
    monkeypatch.setenv("HF_HUB_CACHE", "empty")
    begin = time.monotonic()
    for pretrained in (True, False):
        with pytest.raises(TinvError, match=r"hf-hub:tinv/no\.such cannot be fetched \(.*is out of reach"):
            create_backbone("hf-hub:tinv/no.such", "timm", num_classes=3, pretrained=pretrained, **SIZE)
    assert time.monotonic() - begin < 10


def test_fit_and_measure_take_a_folder(capsys):
    write_folder("net")
    options = ["--model.init_args.backbone=local-dir:net", "--model.init_args.source=timm"]
    fit(*options, "--model.init_args.pretrained=true", "--trainer.max_epochs=1")
    assert "local-dir:net is for 3 classes, here are 2: its last layer is replaced" in capsys.readouterr().err
    assert main(["inspect", "local-dir:net", "--num-classes=3", "--input-size=64"]) == 0
    assert "local-dir:net (timm)" in capsys.readouterr().out


@pytest.fixture
def published(monkeypatch, tmp_path):
    """The folder of torch.hub's downloads, with weights of resnet18's first version, and nothing to download from."""

    def out_of_reach(*args, **kwargs):
        raise URLError("Name or service not known")

    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr(torch.hub, "download_url_to_file", out_of_reach)
    folder = tmp_path / "hub" / "checkpoints"
    folder.mkdir(parents=True)
    weights = create_backbone("squeezenet1_0", "torchvision", num_classes=1000, **SIZE).state_dict()
    torch.save(weights, folder / "squeezenet1_0-b66bff10.pth")
    return weights


@pytest.mark.parametrize("name", ["IMAGENET1K_V1", "SqueezeNet1_0_Weights.IMAGENET1K_V1", "DEFAULT"])
def test_weights_of_torchvision_by_name(published, name):
    network = create_backbone("squeezenet1_0", "torchvision", num_classes=1000, pretrained=True, weights=name, **SIZE)
    assert all(torch.equal(value, published[key]) for key, value in network.state_dict().items())
    assert network.pretrained_cfg["input_size"] == (3, 224, 224)
    assert normalization_of(network, None, None)[0] == (0.485, 0.456, 0.406)
    spec = NetworkSpec("squeezenet1_0", "torchvision", weights=Path(name))
    assert torch.equal(next(iter(spec.plain((64, 64)).state_dict().values())), next(iter(published.values())))


def test_sizes_of_named_weights_are_those_they_were_evaluated_on():
    assert published_size("torchvision", "efficientnet_b3", "IMAGENET1K_V1") == (300, 300)
    assert published_size("torchvision", "resnet50", None) is None
    assert published_config("fasterrcnn_resnet50_fpn", "COCO_V1") == {}


def test_names_and_files_are_told_apart():
    with pytest.raises(TinvError, match=r"resnet50 has no weights IMAGENET1K_V9.* it has IMAGENET1K_V1, IMAGENET1K_V2"):
        create_backbone("resnet50", "torchvision", num_classes=3, pretrained=True, weights="IMAGENET1K_V9")
    with pytest.raises(TinvError, match="set pretrained: true with it"):
        create_backbone("resnet50", "torchvision", num_classes=3, weights="IMAGENET1K_V2")
    assert weights_name("timm", "resnet50", "IMAGENET1K_V2") is None
    assert weights_name("torchvision", "resnet50", "runs/IMAGENET1K_V2") is None
    Path("IMAGENET1K_V2").touch()
    assert weights_name("torchvision", "resnet50", "IMAGENET1K_V2") is None


def test_fit_takes_named_weights(published, capsys):
    options = {"backbone": "squeezenet1_0", "source": "torchvision", "pretrained": "true"}
    words = ["--trainer.max_epochs=1", *(f"--model.init_args.{key}={value}" for key, value in options.items())]
    fit(*words, "--model.init_args.weights=IMAGENET1K_V1")
    wrong = "--model.init_args.weights=IMAGENET1K_V7"
    assert main(["fit", "--config=configs/red_green.yaml", *words, wrong]) == 2
    assert "squeezenet1_0 has no weights IMAGENET1K_V7" in capsys.readouterr().err
