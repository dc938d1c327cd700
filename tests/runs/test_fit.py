import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
import yaml
from lightning.pytorch import Callback
from tiny_run import TINY, fit, results

from tinv.cli import main
from tinv.metrics import InvarianceMetric
from tinv.runs.folder import RunFolder


def test_a_run_leaves_what_the_contract_says():
    folder = fit("--model.init_args.padding=full_zero", "--seed_everything=3")
    assert sorted(path.name for path in folder.iterdir()) == [
        "checkpoints",
        "config.yaml",
        "metrics.csv",
        "results.json",
    ]
    assert sorted(path.name for path in (folder / "checkpoints").iterdir()) == ["best.ckpt", "last.ckpt"]
    found = results(folder)
    assert found["status"] == "finished"
    assert found["experiment"] == "red_green"
    assert found["seed"] == 3
    assert set(found["metrics"]) == {"test/acc/similar", "test/acc/dissimilar"}
    assert all(0 <= value <= 100 for value in found["metrics"].values())
    assert found["metrics"]["test/acc/similar"] == found["metrics"]["test/acc/dissimilar"]  # full_zero
    assert found["duration_s"] > 0
    assert found["versions"]["torch"] == torch.__version__.partition("+")[0]
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert found["config"] == config
    assert config["model"]["init_args"]["padding"] == "full_zero"
    assert config["trainer"]["max_epochs"] == 3
    rows = (folder / "metrics.csv").read_text().splitlines()
    assert rows[0] == "epoch,step,train/acc,train/loss,val/acc,val/loss,lr"
    assert len(rows) == 4


def test_the_same_configuration_and_seed_give_the_same_run():
    one, two, other = fit(), fit(), fit("--seed_everything=1")
    assert (one / "metrics.csv").read_bytes() == (two / "metrics.csv").read_bytes()
    assert results(one)["metrics"] == results(two)["metrics"]
    assert (one / "metrics.csv").read_bytes() != (other / "metrics.csv").read_bytes()


def test_a_log_file_is_told_how_far_long_epochs_are(monkeypatch, capsys):
    fit()
    assert "batches:" not in capsys.readouterr().err  # under a minute: the line of each epoch is enough
    monkeypatch.setattr("tinv.utils.progress.PAUSE", 0.0)
    fit()
    lines = capsys.readouterr().err.splitlines()
    for what in ("epoch 1, training batches", "epoch 3, training batches", "validation batches", "test batches"):
        told = [line for line in lines if line.startswith(f"{what}: ")]
        assert told, what
        assert told[0].startswith(f"{what}: 1 of ")


def test_the_best_checkpoint_is_the_one_tested():
    folder = fit()
    weights = torch.load(folder / "checkpoints/best.ckpt", weights_only=True)
    table = [row.split(",") for row in (folder / "metrics.csv").read_text().splitlines()[1:]]
    losses = [float(row[5]) for row in table]
    assert weights["epoch"] == losses.index(min(losses))


def test_interpolation_takes_the_overridden_value(tmp_path):
    text = (Path(__file__).parents[2] / "configs/red_green.yaml").read_text()
    linked = text.replace("batch_size: 200", "batch_size: 10\n    num_val: ${data.init_args.num_test}\n    num_test: 8")
    (tmp_path / "linked.yaml").write_text(linked)
    options = ["--data.init_args.num_train=20", "--data.init_args.num_test=12", "--trainer.max_epochs=1"]
    assert main(["fit", "--config=linked.yaml", *options]) == 0
    [config] = Path().glob("runs/*/*/config.yaml")
    init_args = yaml.safe_load(config.read_text())["data"]["init_args"]
    assert (init_args["num_test"], init_args["num_val"]) == (12, 12)


def test_a_later_file_is_laid_over_an_earlier_one(tmp_path):
    (tmp_path / "over.yaml").write_text(
        "model:\n  init_args:\n    optimizer:\n      class_path: torch.optim.SGD\n      init_args: {lr: 0.5}\n"
    )
    folder = fit("--config=over.yaml", "--trainer.max_epochs=1")
    init_args = yaml.safe_load((folder / "config.yaml").read_text())["model"]["init_args"]
    assert init_args["backbone"] == "red_green_net"
    assert init_args["optimizer"]["class_path"] == "torch.optim.SGD"
    assert init_args["optimizer"]["init_args"]["lr"] == 0.5
    assert "rho" not in init_args["optimizer"]["init_args"]


def test_a_later_file_may_name_another_class(tmp_path):
    (tmp_path / "over.yaml").write_text("data:\n  class_path: tinv.data.Rook\n")
    data_options = [option for option in TINY if not option.startswith("--data")]
    grey = "--model.init_args.backbone=rook_net"
    assert main(["fit", *data_options, "--config=over.yaml", grey, "--published=null", "--trainer.max_epochs=1"]) == 0
    [config] = Path().glob("runs/*/*/config.yaml")
    data = yaml.safe_load(config.read_text())["data"]
    assert data["class_path"] == "tinv.data.Rook"
    assert "splits" not in data["init_args"]


class StopBefore(Callback):
    """Behaves like Ctrl-C at a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == self.step:
            raise KeyboardInterrupt


@pytest.mark.parametrize("step", [1, 4, 6, 11])
def test_a_stopped_run_ends_as_if_it_had_not_been_stopped(step, monkeypatch, capsys):
    straight = fit("--data.init_args.shuffle=true")
    handler = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        patch.setattr(
            "tinv.runs.callbacks.training.SeedEachEpoch.on_train_batch_start", StopBefore(step).on_train_batch_start
        )
        assert main(["fit", *TINY, "--data.init_args.shuffle=true"]) == 130
    signal.signal(signal.SIGINT, handler)  # Lightning ignores Ctrl-C from the first one on
    [stopped] = {path.parent for path in Path().glob("runs/*/*/checkpoints")} - {straight}
    assert not (stopped / "results.json").exists()
    assert f"resume with: --run_dir {stopped} --ckpt_path last" in capsys.readouterr().err
    assert main(["fit", *TINY, "--data.init_args.shuffle=true", "--ckpt_path=last"]) == 0
    assert (stopped / "metrics.csv").read_bytes() == (straight / "metrics.csv").read_bytes()
    assert results(stopped)["metrics"] == results(straight)["metrics"]
    weights = [torch.load(f / "checkpoints/last.ckpt", weights_only=True)["state_dict"] for f in (straight, stopped)]
    assert all(torch.equal(weights[0][key], weights[1][key]) for key in weights[0])


PLATEAU = [
    "--model.init_args.lr_scheduler.class_path=lightning.pytorch.cli.ReduceLROnPlateau",
    "--model.init_args.lr_scheduler.init_args.patience=0",
    "--model.init_args.lr_scheduler.init_args.threshold=0.9",
]


@pytest.mark.parametrize(
    "options",
    [
        [*PLATEAU, "--model.init_args.lr_scheduler.init_args.monitor=val/loss"],
        [*PLATEAU, "--model.init_args.lr_scheduler.init_args.monitor=train/loss", "--trainer.max_steps=14"],
        [
            *PLATEAU,
            "--model.init_args.lr_scheduler.init_args.monitor=val/loss",
            "--trainer.check_val_every_n_epoch=2",
        ],
    ],
    ids=["val", "train-max_steps", "every-second-epoch"],
)
@pytest.mark.parametrize("step", [5, 9])
def test_a_stopped_run_takes_up_the_schedule_of_its_losses(options, step, monkeypatch):
    options = [*options, "--trainer.max_epochs=5"]
    straight = fit(*options)
    rates = [row.rsplit(",", 1)[1] for row in (straight / "metrics.csv").read_text().splitlines()[1:]]
    assert len(set(rates)) > 1
    handler = signal.getsignal(signal.SIGINT)
    with monkeypatch.context() as patch:
        patch.setattr(
            "tinv.runs.callbacks.training.SeedEachEpoch.on_train_batch_start", StopBefore(step).on_train_batch_start
        )
        assert main(["fit", *TINY, *options]) == 130
    signal.signal(signal.SIGINT, handler)
    [stopped] = {path.parent for path in Path().glob("runs/*/*/checkpoints")} - {straight}
    assert main(["fit", *TINY, *options, "--ckpt_path=last"]) == 0
    assert (stopped / "metrics.csv").read_bytes() == (straight / "metrics.csv").read_bytes()


def test_epochs_without_validation_have_no_validation_numbers():
    folder = fit("--trainer.check_val_every_n_epoch=2", "--trainer.max_epochs=4")
    header, *rows = (row.split(",") for row in (folder / "metrics.csv").read_text().splitlines())
    assert [row[header.index("val/loss")] == "" for row in rows] == [True, False, True, False]


@pytest.mark.parametrize("precision", ["64-true", "bf16-true", "16-true"])
def test_true_precisions_train_and_test(precision):
    assert "test/acc/similar" in results(fit(f"--trainer.precision={precision}"))["metrics"]


def test_a_run_killed_while_it_was_tested_goes_on_with_the_test(monkeypatch):
    """Early stopping had ended the training: going on must not train further."""
    patience = "--trainer.callbacks.init_args.patience=1"
    options = ["--trainer.max_epochs=40", patience, "--model.init_args.optimizer.init_args.lr=0.0"]
    straight = fit(*options)
    rows = len((straight / "metrics.csv").read_text().splitlines())
    assert rows < 10
    (straight / "results.json").unlink()
    assert main(["fit", *TINY, *options, "--ckpt_path=last"]) == 0
    assert len((straight / "metrics.csv").read_text().splitlines()) == rows
    assert (straight / "results.json").exists()


@pytest.mark.slow
class NotDefined(InvarianceMetric):
    """A number and one that is not defined."""

    name = "odd"

    def update(self, network, images, logits, targets, index):
        pass

    def compute(self):
        return {"odd": torch.tensor(7.0), "odd_of_correct": torch.tensor(float("nan"))}


def test_what_is_not_defined_is_left_out_of_results():
    """JSON knows no NaN."""
    found = fit("--model.init_args.metrics=[{class_path: test_fit.NotDefined}]")
    assert "NaN" not in (found / "results.json").read_text()
    assert results(found)["metrics"]["test/odd/similar"] == 7
    assert "test/odd_of_correct/similar" not in results(found)["metrics"]


@pytest.mark.parametrize(("sent", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_signals_leave_a_checkpoint_and_no_results(sent, code):
    command = [sys.executable, "-m", "tinv", "fit", *TINY, "--trainer.max_epochs=100000", "--run_dir=run"]
    command.remove("--trainer.max_epochs=3")
    callback = "--trainer.callbacks=null"  # never early
    process = subprocess.Popen(
        [*command, callback],
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        # background jobs of a shell inherit that Ctrl-C is ignored
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    folder = RunFolder(Path("run"))
    deadline = time.monotonic() + 120
    while not folder.metrics.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    process.send_signal(sent)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code
    assert "resume with: --run_dir run --ckpt_path last" in errors
    assert "Traceback" not in errors
    assert folder.last.exists()
    assert not folder.results.exists()
    # the state saved is whole, and training resumes from it
    finished = len(folder.metrics.read_text().splitlines())
    assert main(["fit", *TINY, callback, f"--trainer.max_epochs={100000}", "--ckpt_path=last", "--run_dir=run",
                 "--trainer.limit_train_batches=1"]) == 2  # another configuration is refused  # fmt: skip
    config = folder.load_config()
    config["trainer"]["max_epochs"] = finished + 1
    folder.save_config(config)
    options = [callback, f"--trainer.max_epochs={finished + 1}", "--ckpt_path=last", "--run_dir=run"]
    assert main(["fit", *TINY, *options]) == 0
    assert len(folder.metrics.read_text().splitlines()) == finished + 2


def test_a_finished_run_is_never_written_over(capsys):
    assert main(["fit", *TINY, "--run_dir=run", "--trainer.max_epochs=1"]) == 0
    before = Path("run/results.json").read_bytes()
    assert main(["fit", *TINY, "--run_dir=run", "--trainer.max_epochs=1"]) == 2
    assert "run already holds a finished run; choose another --run_dir" in capsys.readouterr().err
    assert main(["fit", *TINY, "--run_dir=run", "--trainer.max_epochs=1", "--ckpt_path=last"]) == 2
    assert "run is finished" in capsys.readouterr().err
    assert Path("run/results.json").read_bytes() == before


def test_a_folder_in_use_is_refused(capsys):
    held = RunFolder(Path("run"))
    held.make()
    assert main(["fit", *TINY, "--run_dir=run"]) == 2
    assert re.search(r"process \d+ on \S+ is writing to run; wait for it", capsys.readouterr().err)
    held.release()
    assert main(["fit", *TINY, "--run_dir=run", "--trainer.max_epochs=1"]) == 0
    assert not Path("run/.lock").exists()


def test_a_fast_dev_run_leaves_no_results(capsys):
    assert main(["fit", *TINY, "--run_dir=run", "--trainer.fast_dev_run=true"]) == 0
    assert "keeps nothing" in capsys.readouterr().out
    assert not Path("run").exists()


def test_without_validation_the_last_weights_are_tested(capsys):
    options = ["--trainer.limit_val_batches=0", "--trainer.callbacks=null", "--trainer.max_epochs=1"]
    assert main(["fit", *TINY, "--run_dir=run", *options]) == 0
    assert "no best checkpoint" in capsys.readouterr().err


@pytest.mark.parametrize("accumulated", [1, 2])
def test_a_loss_that_is_not_a_number_stops_the_run(accumulated, capsys):
    options = [
        f"--trainer.accumulate_grad_batches={accumulated}",
        "--model.init_args.optimizer.class_path=torch.optim.SGD",
        "--model.init_args.optimizer.init_args.lr=1e30",
    ]
    assert main(["fit", *TINY, *options, "--run_dir=run"]) == 1
    message = capsys.readouterr().err
    # the first batch after the first step
    assert f"the loss is nan at batch {accumulated + 1} of epoch 1; lower the learning rate" in message
    assert "run/checkpoints/last.ckpt" in message
    assert not Path("run/results.json").exists()
    kept = torch.load("run/checkpoints/last.ckpt", weights_only=True)["state_dict"]
    assert all(torch.isfinite(value).all() for value in kept.values())


def test_weights_that_the_last_step_spoils_stop_the_run(capsys):
    # Adam divides by the root of a mean of squares plus 1e-8, which float16 rounds to zero
    options = [
        "--config=configs/digits_grid.yaml",
        "--trainer.precision=16-true",
        "--trainer.max_epochs=1",
        "--data.init_args.num_train=64",
    ]
    assert main(["fit", *options, "--run_dir=run"]) == 1
    assert "are no longer finite after epoch 1 under trainer.precision=16-true" in capsys.readouterr().err
    assert main(["fit", *options, "--model.init_args.optimizer.init_args.eps=1e-4", "--run_dir=other"]) == 0
    assert results(Path("other"))["metrics"]["test/mcs"] <= 1
