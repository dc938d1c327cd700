"""InvarianceMonitor in trainings of modules that know nothing of tinv."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from lightning.pytorch import LightningModule, Trainer, seed_everything
from tiny_run import fit
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, TensorDataset

import tinv
from tinv.callbacks import InvarianceMonitor
from tinv.errors import TinvError, TinvWarning
from tinv.metrics import ShiftConsistency

QUIET = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}


class Mine(LightningModule):
    """A user's own module, with what a careless look at it would change: dropout and batch norm."""

    def __init__(self, mapping: bool = False):
        super().__init__()
        self.net = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2), nn.BatchNorm2d(8), nn.ReLU(), nn.Dropout(0.3), nn.AdaptiveAvgPool2d(2), nn.Flatten()
        )
        self.head = nn.Linear(32, 4)
        self.frozen = nn.Sequential(nn.BatchNorm2d(3))
        self.mapping = mapping

    def forward(self, images):
        return self.head(self.net(images))

    def loss(self, batch):
        images, targets = (batch["image"], batch["label"]) if self.mapping else batch
        return F.cross_entropy(self(images), targets)

    def training_step(self, batch, batch_idx):
        return self.loss(batch)

    def validation_step(self, batch, batch_idx):
        # drawn from the random numbers that later training steps use too
        self.log("val/loss", self.loss(batch) + 0 * torch.rand(()))

    def configure_optimizers(self):
        return torch.optim.SGD(self.parameters(), 0.1)


def loader(count: int, size: int, seed: int = 1) -> DataLoader:
    draw = torch.Generator().manual_seed(seed)
    images, targets = torch.randn(count, 3, 16, 16, generator=draw), torch.randint(4, (count,), generator=draw)
    return DataLoader(TensorDataset(images, targets), batch_size=size)


def train(*callbacks, epochs: int = 2, size: int = 5, val: DataLoader | None = None, module: Mine | None = None):
    seed_everything(0, verbose=False)
    module = module or Mine()
    trainer = Trainer(max_epochs=epochs, callbacks=list(callbacks), accelerator="cpu", **QUIET)
    trainer.fit(module, loader(20, 5, seed=2), val or loader(13, size))
    return module, trainer.callback_metrics


def test_training_ends_with_the_weights_it_would_end_with():
    plain, _ = train()
    state = torch.get_rng_state()
    monitored, logged = train(InvarianceMonitor(offset_range=8))
    assert 0 <= float(logged["invariance/consistency"]) <= 100
    assert torch.equal(state, torch.get_rng_state())
    for (name, before), after in zip(plain.state_dict().items(), monitored.state_dict().values(), strict=True):
        assert torch.equal(before, after), name


def test_it_logs_what_shift_consistency_measures():
    numbers = {}
    for size in (1, 5, 13):
        module, logged = train(InvarianceMonitor(offset_range=8, seed=3), size=size, epochs=1)
        numbers[size] = float(logged["invariance/consistency"])
    metric = ShiftConsistency(8, "circular", passes=1, seed=3)
    images, targets = next(iter(loader(13, 13)))
    module.eval()
    with torch.no_grad():
        metric.update(module, images, module(images), targets, torch.arange(13))
    assert list(numbers.values()) == pytest.approx([float(metric.compute()["consistency"])] * 3, abs=1e-3)


def test_every_n_epochs_and_what_the_network_is():
    class Counts(nn.Module):
        calls = 0

        def forward(self, images):
            Counts.calls += 1
            assert not self.training
            assert not torch.is_grad_enabled()
            return images.mean((2, 3))

    counts = Counts()
    _, logged = train(InvarianceMonitor(every_n_epochs=2, network=counts, name="watch"), epochs=5)
    assert Counts.calls == 2 * 2 * 3  # two views of three batches in the second and the fourth epoch
    assert counts.training
    assert float(logged["watch/consistency"]) == 100
    _, logged = train(InvarianceMonitor(network=counts), epochs=0)
    assert "invariance/consistency" not in logged


def test_attributes_mappings_and_modes():
    images, targets = next(iter(loader(13, 13)))
    samples = [{"image": image, "label": target} for image, target in zip(images, targets, strict=True)]
    val = DataLoader(samples, batch_size=8)

    class Mapped(Mine):
        def training_step(self, batch, batch_idx):
            return F.cross_entropy(self(batch[0]), batch[1])

    for mode in ("circular", "zero", "crop"):
        monitor = InvarianceMonitor(offset_range=4, mode=mode, network="net")
        _, logged = train(monitor, epochs=1, val=val, module=Mapped(mapping=True))
        assert 0 <= float(logged["invariance/consistency"]) <= 100


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"network": "backbone"}, "Mine has no attribute backbone, which network names"),
        ({"network": "mapping"}, "mapping of Mine cannot be called"),
        ({"network": "net.0"}, "the network returns a tensor of 4 axes, not logits"),
        ({"images": lambda batch: batch[1]}, r"found torch\.int64 of 1 axes in a validation batch"),
        ({"mode": "crop"}, "offset_range=32 leaves nothing of images of 16x16 pixels in mode crop"),
    ],
)
def test_what_cannot_be_measured_is_one_line(options, message):
    with pytest.raises(TinvError, match=message):
        train(InvarianceMonitor(**options), epochs=1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"every_n_epochs": 0}, "every_n_epochs must be 1 or more, not 0"),
        ({"mode": "wrap"}, "unknown mode 'wrap'"),
        ({"offset_range": 0}, "offset_range must be 1 or more"),
    ],
)
def test_values_out_of_range_are_named(options, message):
    with pytest.raises(TinvError, match=message):
        InvarianceMonitor(**options)


def test_answers_that_are_not_finite_agree_on_nothing():
    _, logged = train(InvarianceMonitor(network=lambda images: images.mean((2, 3)) * torch.nan), epochs=1)
    assert torch.isnan(logged["invariance/consistency"])


def test_a_monitor_that_measured_nothing_says_so():
    with pytest.warns(TinvWarning, match="InvarianceMonitor measured nothing.*every_n_epochs=7"):
        train(InvarianceMonitor(every_n_epochs=7), epochs=1)


def test_it_is_offered_without_an_import_of_its_own():
    assert tinv.callbacks.InvarianceMonitor is InvarianceMonitor


def test_configurations_name_it():
    callback = ["--trainer.callbacks+=tinv.callbacks.InvarianceMonitor", "--trainer.callbacks.init_args.offset_range=8"]
    folder = fit(*callback, "--trainer.max_epochs=1")
    assert "invariance/consistency" in (folder / "metrics.csv").read_text().splitlines()[0]


@pytest.mark.slow
def test_two_processes_count_no_image_twice():
    """13 images on two processes: Lightning gives one of them again."""
    script = Path("two.py")
    code = """
import json, sys
sys.path.insert(0, sys.argv[1])
from lightning.pytorch import Trainer
from test_callbacks import InvarianceMonitor, Mine, QUIET, loader, seed_everything
from tinv.runs.callbacks.process_group import LeaveProcessGroup
if __name__ == "__main__":
    seed_everything(0, verbose=False)
    module, found = Mine(), []
    for options in ({}, {"devices": 2, "strategy": "ddp_spawn"}):
        monitor = InvarianceMonitor(offset_range=8, network="net")
        trainer = Trainer(callbacks=[monitor, LeaveProcessGroup()], accelerator="cpu", **QUIET, **options)
        found.append(trainer.validate(module, loader(13, 4), verbose=False)[0]["invariance/consistency"])
    print(json.dumps(found))
"""
    script.write_text(code)
    tests = str(Path(__file__).parent)
    words = [sys.executable, str(script), tests]
    done = subprocess.run(words, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    one, two = json.loads(done.stdout.splitlines()[-1])
    assert one == two
    assert 0 < one < 100
