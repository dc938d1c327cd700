import itertools
import json
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Trainer
from official_formats import write_brown
from torch.nn import functional as F

from tinv.cli import main
from tinv.data import Brown
from tinv.errors import TinvError
from tinv.metrics import DescriptorShift
from tinv.tasks import Descriptors
from tinv.tasks.descriptors import normalize_each
from tinv.tasks.hardest_in_batch import hardest_in_batch


def slow_loss(first: torch.Tensor, second: torch.Tensor, margin: float) -> float:
    """The loss pair by pair."""

    def gap(a: torch.Tensor, b: torch.Tensor) -> float:
        return float(((a - b).double().square().sum() + 1e-6).sqrt())

    losses = []
    for this in range(len(first)):
        negatives = []
        for other in range(len(first)):
            if other != this:
                negatives += [gap(first[this], second[other]), gap(first[other], second[this])]
        closest = min((d for d in negatives if d >= 0.008), default=float("inf"))
        losses.append(max(0.0, margin + gap(first[this], second[this]) - closest))
    return sum(losses) / len(losses)


@pytest.mark.parametrize("margin", [0.2, 1.0])
@pytest.mark.parametrize("count", [2, 9, 40])
def test_the_loss_is_that_of_the_slow_reference(count, margin):
    draw = torch.Generator().manual_seed(count)
    first = F.normalize(torch.randn(count, 6, generator=draw, dtype=torch.float64))
    second = F.normalize(first + 0.4 * torch.randn(count, 6, generator=draw, dtype=torch.float64))
    assert float(hardest_in_batch(first, second, margin)) == pytest.approx(slow_loss(first, second, margin), abs=1e-6)


def test_all_but_equal_descriptors_are_no_negatives():
    first = F.normalize(torch.randn(5, 8, dtype=torch.float64))
    second = first.roll(1, 0)  # each one's closest wrong descriptor is itself
    assert float(hardest_in_batch(first, second)) == pytest.approx(slow_loss(first, second, 1.0), abs=1e-6)


def test_equal_descriptors_have_a_finite_gradient():
    first = F.normalize(torch.ones(4, 8)).requires_grad_()
    hardest_in_batch(first, F.normalize(torch.ones(4, 8))).backward()
    assert first.grad.isfinite().all()


def test_a_batch_of_one_pair_is_refused():
    with pytest.raises(ValueError, match="no negatives"):
        hardest_in_batch(torch.ones(1, 4), torch.ones(1, 4))


def test_patches_are_normalised_each():
    patches = torch.rand(3, 1, 8, 8) * torch.tensor([1.0, 5.0, 100.0]).view(3, 1, 1, 1)
    found = normalize_each(patches)
    for patch, normalised in zip(patches, found, strict=True):
        torch.testing.assert_close(normalised, (patch - patch.mean()) / (patch.std() + 1e-7))
    assert normalize_each(torch.ones(1, 1, 8, 8)).abs().max() == 0  # a blank patch


@pytest.fixture
def root(tmp_path) -> Path:
    for number, name in enumerate(("liberty", "notredame", "yosemite")):
        write_brown(tmp_path / name, points=60 + number)
    return tmp_path


def brown(root: Path, **options) -> Brown:
    return Brown(root=str(root), **{"num_pairs": 100, "num_test_pairs": 40, "batch_size": 32, "seed": 0, **options})


def trainer(**options) -> Trainer:
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    return Trainer(**quiet, enable_model_summary=False, num_sanity_val_steps=0, **options)


def test_training_separates_the_points_and_every_set_is_tested(root, tmp_path):
    torch.manual_seed(0)
    model = Descriptors(
        optimizer=lambda parameters: torch.optim.SGD(parameters, lr=1.0), metrics=[DescriptorShift(4, pairs=20)]
    )
    data = brown(root, val_share=0.2)
    run = trainer(max_epochs=3)
    run.fit(model, datamodule=data)
    assert float(run.callback_metrics["val/fpr95"]) <= 0.5
    found = {key: value for part in run.test(model, datamodule=data, verbose=False) for key, value in part.items()}
    both = [found[f"test/fpr95/{name}"] for name in ("liberty", "notredame")]
    assert found["test/fpr95"] == pytest.approx(sum(both) / 2)
    assert max(both) <= 0.2
    assert found["test/descriptor_length"] == 128
    for key, name in itertools.product(("auroc", "ap"), ("liberty", "notredame")):
        assert 0.8 < found[f"test/{key}/{name}"] <= 1
    curves = [measure.compute()["shift_distance_4"] for name in data.test_sets for measure in model.metrics_of(name)[1]]
    assert found["test/shift_distance_4"] == pytest.approx(float(sum(curves)) / 2)
    saved = model.save_artifacts(tmp_path)
    assert [path.name for path in saved] == [
        "shift_liberty.npz", "shift_liberty.png", "shift_notredame.npz", "shift_notredame.png"
    ]  # fmt: skip


def test_the_rate_falls_linearly_to_zero_step_by_step(root):
    model = Descriptors(optimizer=lambda parameters: torch.optim.SGD(parameters, lr=2.0))
    rates = []
    step = model.training_step

    def watched(batch, batch_idx):
        rates.append(model.optimizers().param_groups[0]["lr"])
        return step(batch, batch_idx)

    model.training_step = watched
    trainer(max_epochs=2).fit(model, datamodule=brown(root))
    assert rates == pytest.approx([2 * (1 - number / 8) for number in range(8)])


def test_descriptors_have_length_one_and_do_not_depend_on_light(root):
    model = Descriptors(input_shape=(1, 32, 32))
    model.configure_model()
    model.eval()
    patches = torch.rand(4, 1, 32, 32)
    found = model(patches)
    assert found.norm(dim=1).tolist() == pytest.approx([1.0] * 4)
    torch.testing.assert_close(model(0.3 * patches + 0.2), found, rtol=0, atol=1e-4)


@pytest.mark.parametrize(
    ("source", "name"), [("timm", "resnet10t"), ("torchvision", "squeezenet1_1"), ("tinv", "resnet")]
)
def test_any_backbone_describes_patches(source, name, root):
    model = Descriptors(
        name, source=source, descriptor_dim=16, padding="same_circular", metrics=[DescriptorShift(2, pairs=20)]
    )
    [found, *_] = trainer().test(model, datamodule=brown(root), verbose=False)
    assert found["test/descriptor_length"] == 16
    assert 0 <= found["test/fpr95"] <= 1


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"descriptor_dim": 0}, "descriptor_dim must be 1 or more, not 0"),
        ({"memory_format": "channels"}, "unknown memory_format 'channels'"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(TinvError, match=message):
        Descriptors(**options)


CONFIG = """
experiment: tiny
model:
  class_path: tinv.tasks.Descriptors
  init_args: {optimizer: {class_path: torch.optim.SGD, init_args: {lr: 1.0}}}
data:
  class_path: tinv.data.Brown
  init_args: {num_pairs: 64, num_test_pairs: 40, batch_size: 32}
trainer: {max_epochs: 2, accelerator: cpu}
checkpoint: {monitor: val/fpr95, mode: min}
"""


def test_fit_test_and_predict_from_the_command_line(root, monkeypatch, capsys):
    monkeypatch.setenv("TINV_DATA", str(root))
    Path("tiny.yaml").write_text(CONFIG)
    assert main(["fit", "--config=tiny.yaml", "--run_dir=run", "--data.init_args.val_share=0.2"]) == 0
    found = json.loads(Path("run/results.json").read_text())
    assert found["data"]["train_pairs"] == 64
    assert len(found["data"]["train_pairs_sha256"]) == 64
    assert "val/fpr95" in Path("run/metrics.csv").read_text()
    assert main(["test", "--ckpt_path=run/checkpoints/best.ckpt", "--run_dir=again"]) == 0
    again = json.loads(Path("again/results.json").read_text())
    assert again["metrics"] == {key: value for key, value in found["metrics"].items() if key.startswith("test/")}
    assert main(["predict", "--ckpt_path=run/checkpoints/best.ckpt", "--run_dir=said"]) == 0
    lines = Path("said/predictions.csv").read_text().splitlines()
    assert lines[0] == "set,index,target,distance"
    assert len(lines) == 1 + 80
    assert main(["measure", "--run=run", "--images=.", "--out=measured"]) == 2
    assert "run trained Descriptors, which have no classes to measure" in capsys.readouterr().err
    # the published protocol validates nothing, and the last weights are tested
    assert main(["fit", "--config=tiny.yaml", "--run_dir=published"]) == 0
    assert "could not find the monitored key" not in capsys.readouterr().err


def test_the_same_seed_gives_the_same_numbers(root, monkeypatch):
    monkeypatch.setenv("TINV_DATA", str(root))
    Path("tiny.yaml").write_text(CONFIG)
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        assert main(["fit", "--config=tiny.yaml", f"--run_dir={name}", f"--seed_everything={seed}"]) == 0
    tables = {name: Path(name, "metrics.csv").read_text() for name in "abc"}
    assert tables["a"] == tables["b"] != tables["c"]
    facts = {name: json.loads(Path(name, "results.json").read_text())["data"] for name in "abc"}
    assert facts["a"] == facts["b"] != facts["c"]


def test_more_pairs_than_there_are_is_one_line_and_leaves_nothing(root, monkeypatch, capsys):
    monkeypatch.setenv("TINV_DATA", str(root))
    Path("tiny.yaml").write_text(CONFIG)
    assert main(["fit", "--config=tiny.yaml", "--run_dir=run", "--data.init_args.num_pairs=9999"]) == 2
    assert "num_pairs=9999 asked for; choose 1 to 620" in capsys.readouterr().err
    assert not Path("run").exists()
