"""Policies that learn, in training: their losses, their schedules, and the weights of networks without them."""

import warnings
from pathlib import Path

import pytest
import torch
from lightning.pytorch import Callback, Trainer
from tiny_run import TINY, results
from torch.utils.data import DataLoader, IterableDataset

from tinv.cli import main
from tinv.data import RedGreen
from tinv.errors import TinvError, TinvWarning
from tinv.evaluation.networks import NetworkSpec
from tinv.models import create_backbone
from tinv.nn import LearnedPolyphaseSampling, TIPSPooling
from tinv.policies import ConversionPolicy
from tinv.policies.subsampling import TIPS
from tinv.runs.folder import RunFolder
from tinv.tasks import Classification

POLICY = "--model.init_args.subsampling="
CIRCULAR = ["--model.init_args.padding=same_circular", "--model.init_args.stem=convert"]


class Watch(Callback):
    """Notes temperatures, and whether the loss of undoing shifts is on, at the end of every step."""

    def __init__(self) -> None:
        self.temperatures, self.undoes = [], []

    def on_train_batch_end(self, trainer, pl_module, *_) -> None:
        for layer in pl_module.network.modules():
            if isinstance(layer, LearnedPolyphaseSampling):
                self.temperatures.append(float(layer.temperature))
            elif isinstance(layer, TIPSPooling):
                self.undoes.append(layer.undoes)


def trained(
    subsampling, data=None, task=Classification, steps: int = 4, **options
) -> tuple[Trainer, Watch, Classification]:
    watch = Watch()
    model = task("red_green_net", subsampling=subsampling, padding="same_circular", stem="convert")
    data = data or RedGreen(num_train=40, num_val=20, num_test=20, batch_size=20)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    length = {"max_steps": steps, "limit_val_batches": 0, "num_sanity_val_steps": 0, **options}
    trainer = Trainer(**quiet, enable_model_summary=False, callbacks=[watch], **length)
    trainer.fit(model, datamodule=data)
    return trainer, watch, model


def test_temperatures_fall_with_the_steps_of_the_whole_training():
    _, watch, model = trained("lps")
    layers = len([m for m in model.network.modules() if isinstance(m, LearnedPolyphaseSampling)])
    expected = [10 ** -(step / 4) for step in range(4) for _ in range(layers)]
    assert watch.temperatures == pytest.approx(expected)


def test_losses_of_a_policy_are_added_and_logged():
    trainer, watch, model = trained("tips")
    assert trainer.callback_metrics["train/policy_penalty"] > 0
    half = len(watch.undoes) // 2
    assert not any(watch.undoes[:half])
    assert all(watch.undoes[half:])
    # the loss of mixing alone moves weights that cross-entropy does not reach
    layer = next(m for m in model.network.modules() if isinstance(m, TIPSPooling))
    assert layer.penalty() is None


@pytest.mark.parametrize("subsampling", ["keep", "aps", "lps"])
def test_policies_without_a_loss_log_none(subsampling):
    trainer, _, _ = trained(subsampling, steps=2)
    assert "train/policy_penalty" not in trainer.callback_metrics


def test_the_penalty_is_part_of_the_loss_that_is_trained_with():
    found = []
    for weight in (0.0, 100.0):
        torch.manual_seed(0)
        found.append(trained(TIPS(mix_weight=weight, undo_weight=0), steps=1)[2].state_dict())
    assert any(not torch.equal(found[0][key], found[1][key]) for key in found[0])


class Forgets(Classification):
    def training_step(self, batch, batch_idx):
        return self._score(batch, "train", self.train_loss, self.train_accuracy)


def test_a_task_that_leaves_the_loss_out_is_warned_of_once():
    with pytest.warns(
        UserWarning, match="Forgets.training_step leaves out the loss that subsampling=tips adds"
    ) as found:
        trained("tips", task=Forgets, steps=2)
    assert sum("leaves out" in str(w.message) for w in found) == 1


class Endless(IterableDataset):
    def __init__(self, data) -> None:
        self.data = data

    def __iter__(self):
        while True:
            yield from self.data


def test_a_training_without_an_end_is_warned_of(monkeypatch):
    data = RedGreen(num_train=40, num_val=20, num_test=20, batch_size=20)
    data.setup("fit")
    batches = list(data.train_dataloader())
    monkeypatch.setattr(data, "train_dataloader", lambda: DataLoader(Endless(batches), batch_size=None))
    with pytest.warns(UserWarning, match="changes over the training, whose length is not known"):
        _, watch, _ = trained("lps", data, steps=-1, max_epochs=-1, max_time="00:00:00:01")
    assert set(watch.temperatures) == {1.0}


def fit(subsampling: str, run: str, *options: str) -> int:
    return main(["fit", *TINY, *CIRCULAR, f"{POLICY}{subsampling}", f"--run_dir={run}", *options])


@pytest.mark.parametrize("subsampling", ["lps", "tips"])
def test_a_run_trains_resumes_and_is_tested(subsampling, monkeypatch):
    assert fit(subsampling, "whole") == 0
    header = Path("whole/metrics.csv").read_text().partition("\n")[0]
    assert ("train/policy_penalty" in header) == (subsampling == "tips")

    def interrupt(self) -> None:
        if self.current_epoch == 1:
            raise KeyboardInterrupt

    # one that is stopped after its first epoch ends with the same numbers
    with monkeypatch.context() as patch:
        patch.setattr(Classification, "on_train_epoch_start", interrupt)
        assert fit(subsampling, "stopped") == 130
    assert fit(subsampling, "stopped", "--ckpt_path=last") == 0
    assert Path("stopped/metrics.csv").read_text() == Path("whole/metrics.csv").read_text()
    assert results(Path("stopped"))["metrics"] == results(Path("whole"))["metrics"]
    assert main(["test", "--ckpt_path=whole/checkpoints/best.ckpt"]) == 0


def test_weights_of_a_network_without_the_policy_load_and_what_is_new_is_said(capsys):
    assert fit("keep", "plain", "--trainer.max_epochs=1") == 0
    best = str(RunFolder(Path("plain")).best)
    capsys.readouterr()
    text = "under policy_layers are new, and not trained"
    options = ["--model.init_args.pretrained=true", f"--model.init_args.weights={best}"]
    assert fit("lps", "converted", "--trainer.max_epochs=1", *options) == 0
    said = " ".join(capsys.readouterr().err.split())
    assert f"{best} is of a network without policies that learn" in said
    assert text in said
    # a checkpoint of the plain network, tested under a policy that learns
    assert main(["test", f"--ckpt_path={best}", f"{POLICY}lps"]) == 0
    assert text in " ".join(capsys.readouterr().err.split())
    # and of one that has learned, where the policy has weights of another kind
    learned = str(RunFolder(Path("converted")).best)
    assert main(["test", f"--ckpt_path={learned}", f"{POLICY}tips"]) == 2
    assert "policy_layers" in capsys.readouterr().err


def test_what_is_new_beside_pretrained_weights_is_said(monkeypatch, capsys):
    monkeypatch.setattr("tinv.tasks.base.create_backbone", lambda **o: create_backbone(**{**o, "pretrained": False}))
    for subsampling, count in (("lps", 1), ("aps", 0)):
        assert fit(subsampling, subsampling, "--trainer.max_epochs=1", "--model.init_args.pretrained=true") == 0
        said = " ".join(capsys.readouterr().err.split())
        assert said.count("tensors under policy_layers are not pretrained") == count


def test_a_file_of_the_plain_network_gives_its_weights(tmp_path):
    options = {"num_classes": 3, "input_size": (16, 16)}
    plain = create_backbone("red_green_net", **options)
    torch.save(plain.state_dict(), tmp_path / "plain.pth")
    with pytest.warns(UserWarning, match="plain.pth is of a network without policies that learn"):
        network = create_backbone(
            "red_green_net",
            **options,
            padding="same_circular",
            subsampling="tips",
            stem="convert",
            pretrained=True,
            weights=tmp_path / "plain.pth",
        )
    found = network.state_dict()
    assert all(torch.equal(found[key], value) for key, value in plain.state_dict().items())


def test_measures_of_given_weights_say_what_is_not_trained(tmp_path):
    plain = create_backbone("red_green_net", num_classes=3)
    torch.save(plain.state_dict(), tmp_path / "plain.pth")
    spec = NetworkSpec("red_green_net", "tinv", num_classes=3, in_channels=3, weights=tmp_path / "plain.pth")
    policy = ConversionPolicy("same_circular", "tips", stem="convert")
    with pytest.warns(TinvWarning, match="tensors under policy_layers are not pretrained"):
        network = spec.under(policy, spec.plain((32, 32)), (32, 32))
    assert all(torch.equal(network.state_dict()[key], value) for key, value in plain.state_dict().items())


def test_measures_of_weights_that_a_policy_learned_have_them_and_need_the_policy(tmp_path):
    size, policy = (32, 32), ConversionPolicy("same_circular", "lps", stem="convert")
    kept = {"padding": "same_circular", "subsampling": "lps", "stem": "convert"}
    torch.manual_seed(3)
    trained = create_backbone("red_green_net", num_classes=3, **kept)
    torch.save(trained.state_dict(), tmp_path / "trained.pth")
    spec = NetworkSpec("red_green_net", "tinv", num_classes=3, in_channels=3, weights=tmp_path / "trained.pth")
    with warnings.catch_warnings():
        warnings.simplefilter("error", TinvWarning)
        network = spec.under(policy, spec.plain(size), size)
    assert all(torch.equal(network.state_dict()[key], value) for key, value in trained.state_dict().items())
    for other in (ConversionPolicy(), ConversionPolicy("same_circular", "tips", stem="convert")):
        with pytest.raises(TinvError, match=r"trained under policies that are not .*policy_layers"):
            spec.under(other, spec.plain(size), size)
