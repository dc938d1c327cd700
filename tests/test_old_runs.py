"""A run folder that version 0.1 wrote, before policies were objects, still tests, measures, reports and loads."""

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

import tinv
from tinv.cli import main

OLD = Path(__file__).parent / "old_run"


@pytest.fixture(autouse=True)
def old_run():
    shutil.copytree(OLD, "runs/rook/old")


def test_it_tests_to_the_numbers_it_had():
    assert main(["test", "--ckpt_path=runs/rook/old/checkpoints/best.ckpt", "--run_dir=tested"]) == 0
    before, after = (json.loads(Path(folder, "results.json").read_text()) for folder in ("runs/rook/old", "tested"))
    assert after["metrics"] == pytest.approx({k: v for k, v in before["metrics"].items() if k in after["metrics"]})
    assert after["metrics"]


def test_it_is_reported_and_loaded(capsys):
    assert main(["report", "runs/rook"]) == 0
    assert "rook" in capsys.readouterr().out
    frame = tinv.load_runs("runs")
    assert frame["experiment"].tolist() == ["rook"]
    assert "test/acc" in frame.columns


def test_it_is_measured(capsys):
    Path("photos").mkdir()
    for number in range(2):
        Image.effect_noise((48, 48), 50 + number).save(f"photos/{number}.png")
    options = ["--images=photos", "--max-shift=4", "--metrics", "consistency", "--out=out"]
    assert main(["measure", "--run=runs/rook/old", *options]) == 0
    assert "rook_net (tinv), same_circular, keep" in " ".join(capsys.readouterr().out.split())


def test_a_pair_of_names_still_makes_the_same_network():
    """State dicts of tinv's own networks keep their names, whatever the policies add."""
    names = json.loads((OLD / "state_names.json").read_text())
    for key, wanted in names.items():
        backbone, padding, subsampling = key.split(" ")
        options = {"in_channels": 1} if backbone in ("hardnet", "rook_net") else {}
        size = (64, 64) if backbone in ("resnet", "bagnet33") else (32, 32)
        network = tinv.create_backbone(
            backbone, num_classes=3, input_size=size, padding=padding, subsampling=subsampling, **options
        )
        assert {name: list(value.shape) for name, value in network.state_dict().items()} == wanted, key
