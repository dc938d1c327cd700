"""The library under the commands: each call gives what its command prints or writes."""

import json
from pathlib import Path

import pytest
import torch
from PIL import Image
from tiny_run import fit

import tinv
from tinv.cli import main


@pytest.fixture
def photos() -> Path:
    for number in range(6):
        path = Path(f"photos/{number % 3}/{number}.png")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.effect_noise((72, 64), 40 + 10 * number).convert("RGB").save(path)
    return Path("photos")


def test_everything_offered_is_there():
    for name in tinv.__all__:
        assert getattr(tinv, name) is not None
    with pytest.raises(AttributeError, match="has no attribute 'nothing'; it has ActivationPolicy"):
        tinv.nothing  # noqa: B018


def test_summary_is_what_inspect_prints(capsys, monkeypatch):
    network = tinv.create_backbone("resnet10t", "timm", num_classes=7, input_size=(64, 64), padding="same_circular")
    found = tinv.summary(network, torch.zeros(3, 3, 64, 64), "resnet10t (timm)")
    assert main(["inspect", "resnet10t", "--num-classes=7", "--input-size=64", "--padding=same_circular"]) == 0
    printed = capsys.readouterr().out
    assert found.title in printed.replace("\n", " ")
    assert all(line.strip() in " ".join(printed.split()) for line in found.verdict.lines())
    assert "exactly invariant" in str(found)
    assert json.loads(json.dumps(found.to_dict()))["verdict"]["circular"][0]["unit"] == 32
    monkeypatch.setenv("FORCE_COLOR", "1")  # as in a notebook
    monkeypatch.setenv("TERM", "xterm-color")
    assert "\x1b" not in str(found)
    plain = tinv.summary(torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3)), torch.zeros(1, 3, 8, 8))
    assert plain.title == "Sequential, unconverted, on 8x8 images"
    assert tinv.summary(network, torch.zeros(1, 3, 64, 64)).title.startswith("ResNet, padding=same_circular")


def test_measure_gives_the_numbers_of_the_command(photos):
    options = ["--num-classes=3", "--input-size=48", "--offset-range=8", "--passes=2", "--images=photos", "--out=out"]
    assert main(["measure", "--backbone=resnet10t", *options]) == 0
    written = json.loads(Path("out/measure.json").read_text())
    torch.manual_seed(0)
    network = tinv.create_backbone("resnet10t", "timm", num_classes=3, input_size=(48, 48))
    found = tinv.measure(network, photos, num_classes=3, input_size=48, offset_range=8, passes=2)
    assert found.metrics == written["metrics"]
    assert found.to_dict()["attribution"] == written["attribution"]
    assert "consistency" in str(found)
    # the old name of the option
    assert main(["measure", "--backbone=resnet10t", *options[:1], "--size=48", *options[2:]]) == 0
    assert json.loads(Path("out/measure.json").read_text())["metrics"] == written["metrics"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"offset_range": 6}, "offset_range must be a multiple of 4 pixels, not 6"),
        ({"metrics": ["consistent"]}, r"metrics\[0\]: unknown metrics 'consistent'; did you mean consistency"),
        ({"mode": "zero", "input_size": 32}, "offset_range 32 leaves no room"),
        ({"max_images": 0}, "max_images must be 1 or more, not 0"),
        ({"device": "nowhere"}, "device nowhere: "),
    ],
)
def test_measure_refuses_what_makes_no_sense(photos, options, message):
    network = tinv.create_backbone("resnet10t", "timm", num_classes=3)
    with pytest.raises(tinv.TinvError, match=message):
        tinv.measure(network, photos, num_classes=3, **options)


def test_the_location_probe_gives_the_numbers_of_the_command(photos):
    options = ["--padding=keep", "--input-size=32", "--distances", "0", "16", "--images=photos", "--out=out"]
    assert main(["probe", "--backbone=resnet10t", "--num-classes=3", *options]) == 0
    written = json.loads(Path("out/location.json").read_text())["location"]["keep"]
    torch.manual_seed(0)
    network = tinv.create_backbone("resnet10t", "timm", num_classes=3, input_size=(128, 128))
    found = tinv.probe_location(network, photos, distances=(0, 16), input_size=32)
    assert [vars(readout) for readout in found.readouts] == written
    assert found.images == 6
    assert "0 pixels from the border" in str(found)


def test_runs_are_a_table(capsys):
    for seed in (1, 2):
        fit(f"--seed_everything={seed}", "--trainer.max_epochs=1", "--data.init_args.num_workers=0")
    fit("--seed_everything=3", "--model.init_args.padding=valid", "--trainer.max_epochs=1", "--wandb=off")
    frame = tinv.load_runs("runs")
    assert len(frame) == 3
    assert sorted(frame["seed"]) == [1, 2, 3]
    assert (frame["model.init_args.padding"] == "valid").tolist() == (frame["seed"] == 3).tolist()
    assert frame["test/acc/similar"].between(0, 100).all()
    assert not any(key.startswith(("trainer.devices", "data.init_args.num_workers")) for key in frame.columns)
    with pytest.raises(tinv.TinvError, match="no folder elsewhere"):
        tinv.load_runs("elsewhere")


def test_backbones_are_listed():
    assert "red_green_net" in tinv.list_backbones()
    assert tinv.list_backbones("timm", "resnet10*")
    with pytest.raises(tinv.TinvError, match="unknown source 'tim'; did you mean timm"):
        tinv.list_backbones("tim")
