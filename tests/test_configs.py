"""Every configuration that ships runs, from training to results, on tiny data in the official formats."""

import json
from pathlib import Path

import numpy as np
import pytest
import yaml
from official_formats import (
    write_brown,
    write_cifar_binary,
    write_image_folders,
    write_mnist,
    write_photographs,
    write_ucf101,
)

from tinv.cli import main
from tinv.config.files import shipped_files, shipped_folder
from tinv.report.published import tables

OVERLAYS = sorted((shipped_folder("configs") / "overlays").glob("*.yaml"))
EXPERIMENTS = [path for path in shipped_files("configs") if path not in OVERLAYS]
SMALL = {
    "Rook": [],
    "RedGreen": ["num_train=40", "num_val=20", "num_test=20", "batch_size=10"],
    "Digits": ["num_train=40", "num_val=20", "num_test=20"],
    "MNIST": ["num_train=40", "num_val=20", "num_test=20"],
    "CIFAR10": ["num_train=40", "num_val=20", "num_test=20"],
    "ImageNet": [
        "size=32",
        "test_resolution=96",
        "classes=classes.txt",
        "images_per_class=2",
        "batch_size=3",
        "num_workers=0",
    ],
    "ImageFolder": ["root=imagenet", "size=64", "test_resolution=96", "batch_size=3", "num_workers=0"],
    "FourQuadrant": ["num_images=6"],
    "UCF101": ["num_frames=6", "size=32", "batch_size=4", "num_workers=0"],
    "MovingShapes": ["num_train=40", "num_val=20", "num_test=20"],
    "Brown": ["num_pairs=64", "num_test_pairs=40", "batch_size=32"],
    "PhotoPatches": [
        "root=photographs",
        "num_images=2",
        "num_test_images=1",
        "num_pairs=30",
        "num_test_pairs=20",
        "batch_size=10",
    ],
}


@pytest.fixture
def data(tmp_path, monkeypatch):
    monkeypatch.setenv("TINV_DATA", str(tmp_path / "data"))
    write_mnist(tmp_path / "data")
    write_cifar_binary(tmp_path / "data")
    classes = write_image_folders(tmp_path / "data" / "imagenet", classes=3)
    for name in ("liberty", "notredame", "yosemite"):
        write_brown(tmp_path / "data" / name)
    write_photographs(tmp_path / "data" / "photographs")
    write_ucf101(tmp_path / "data")
    Path("classes.txt").write_text("\n".join(classes))


def run(*files: Path) -> dict:
    merged = {}
    for file in files:
        merged.update(yaml.safe_load(file.read_text()))
    name = yaml.safe_load(files[0].read_text())["data"]["class_path"].rpartition(".")[2]
    small = [f"--data.init_args.{option}" for option in SMALL[name]]
    configs = [f"--config={file}" for file in files]
    precision = ["--trainer.precision=32-true"] if name == "UCF101" else []  # what its bf16 is refused for on a CPU
    if name == "ImageFolder" or files[0].stem == "cifar_policies":
        small.append("--model.init_args.pretrained=false")  # nothing is downloaded in tests
    if name == "ImageNet":
        # a step of the full rate on maps of one pixel leaves answers that are not finite, which have no accuracy
        small.append("--model.init_args.optimizer.init_args.lr=0.001")
    assert main(["fit", *configs, *small, *precision, "--trainer.max_epochs=1", "--run_dir=run"]) == 0
    return json.loads(Path("run/results.json").read_text())


@pytest.mark.parametrize("path", EXPERIMENTS, ids=lambda path: path.stem)
def test_every_experiment_runs(path, data):
    found = run(path)
    assert found["experiment"] == path.stem
    if (published := found["config"]["published"]) is not None:
        assert set(tables()[published]["metrics"]) <= set(found["metrics"])
    if path.stem.endswith("_grid"):
        assert -1 <= found["metrics"]["test/mcs"] <= 1
        with np.load("run/map.npz") as maps:
            assert maps["acc"].shape == (len(maps["shifts"]),) * 2
        assert Path("run/map.png").exists()


@pytest.mark.parametrize("overlay", [p for p in OVERLAYS if "small" not in p.stem], ids=lambda path: path.stem)
def test_every_overlay_runs_over_the_cifar_grid(overlay, data):
    init_args = run(shipped_folder("configs") / "cifar_grid.yaml", overlay)["config"]
    backbone, images = init_args["model"]["init_args"]["backbone_args"], init_args["data"]["init_args"]
    changed = {
        "learned_invariance": images["train_max_shift"] == 8,
        "global_average_pooling": backbone["head"] == "gap",
        "antialias": backbone["antialias"] == 3,
    }
    assert [name for name, is_so in changed.items() if is_so] == [overlay.stem]
    assert backbone["channels"] == [16, 32, 64]  # what the overlay does not name is kept


@pytest.mark.parametrize("overlay", [p for p in OVERLAYS if "small" in p.stem], ids=lambda path: path.stem)
def test_every_small_overlay_runs_over_its_experiment(overlay, data):
    found = run(shipped_folder("configs") / f"{overlay.stem.removesuffix('_small')}.yaml", overlay)
    assert found["experiment"] == overlay.stem
    assert found["config"]["published"] is None  # its numbers are not set beside those of the full recipe


def test_every_configuration_says_what_it_is():
    for path in shipped_files("configs"):
        assert path.read_text().startswith("# ")
