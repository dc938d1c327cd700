import json
from pathlib import Path

import pytest
import torch
from official_formats import write_image_folders

from tinv.cli import main
from tinv.models import create_backbone
from tinv.tasks.frozen_trunk import FrozenTrunk

CONFIG = [
    "fit",
    "--config=configs/four_quadrant.yaml",
    "--data.init_args.root=photos/val",
    "--data.init_args.num_images=6",
]


@pytest.fixture(autouse=True)
def photographs() -> None:
    write_image_folders(Path("photos"), classes=3, train=1, val=2)


def test_only_the_last_layer_is_trained_and_the_trunk_runs_once(monkeypatch):
    seen = []
    unchanged = FrozenTrunk._keep

    def count(self, name, index, features):
        seen.append((name, len(index)))
        unchanged(self, name, index, features)

    monkeypatch.setattr(FrozenTrunk, "_keep", count)
    assert main([*CONFIG, "--trainer.max_epochs=3", "--run_dir=run", "--seed_everything=1"]) == 0
    assert sorted(seen) == [("train", 4), ("train", 8), ("val", 4), ("val", 8)]
    torch.manual_seed(1)
    state = torch.load("run/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    network = create_backbone("resnet18_max", num_classes=2, input_size=(120, 120))
    for key, value in network.state_dict().items():
        trained = state[f"network.{key}"]
        if key.startswith("fc."):
            assert not torch.equal(trained, value)
        elif not key.endswith("num_batches_tracked"):
            # norms keep their statistics too
            assert torch.equal(trained, value), key
    assert 0 <= json.loads(Path("run/results.json").read_text())["metrics"]["test/acc"] <= 100


def test_features_are_those_of_the_network():
    trunk = FrozenTrunk()
    network = create_backbone("resnet18_max", num_classes=2, input_size=(64, 64))
    trunk.freeze(network, is_augmented=False)
    images = torch.randn(7, 3, 64, 64)
    with torch.no_grad():
        expected = network(images)
        for order in (torch.tensor([6, 0, 3]), torch.arange(7), torch.tensor([5, 5, 1])):
            torch.testing.assert_close(trunk.logits(network, "train", images[order], order), expected[order])
        # known images are not looked at again; another set's are
        blank = torch.zeros_like(images)
        torch.testing.assert_close(trunk.logits(network, "train", blank, torch.arange(7)), expected)
        assert not torch.allclose(trunk.logits(network, "val", blank, torch.arange(7)), expected)


def test_what_cannot_be_frozen_is_said(capsys):
    assert main([*CONFIG, "--model.init_args.backbone=squeezenet1_0", "--model.init_args.source=torchvision"]) == 2
    assert "model.init_args.frozen needs a linear last layer; classifier.1 is a Conv2d" in capsys.readouterr().err
    words = ["fit", "--config=configs/data_efficiency.yaml", "--data.init_args.root=photos"]
    words += ["--data.init_args.images_per_class=1", "--data.init_args.num_workers=0", "--model.init_args.frozen=true"]
    assert main(words) == 2
    assert "the training images change each epoch; turn the data's augmentation" in capsys.readouterr().err
