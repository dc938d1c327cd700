import csv
from pathlib import Path

from tiny_run import TINY, fit, results

from tinv.cli import main


def newest(pattern: str) -> Path:
    return max(Path().glob(pattern), key=lambda path: path.stat().st_mtime_ns)


def test_a_checkpoint_is_tested_with_its_own_run_s_configuration(capsys):
    folder = fit("--model.init_args.padding=valid")
    assert main(["test", f"--ckpt_path={folder}/checkpoints/best.ckpt"]) == 0
    again = newest("runs/red_green/test-*")
    assert results(again)["command"] == "test"
    assert results(again)["metrics"] == results(folder)["metrics"]
    assert "published" in capsys.readouterr().out


def test_what_differs_from_the_run_is_said(capsys):
    folder = fit("--model.init_args.padding=valid")
    checkpoint = f"--ckpt_path={folder}/checkpoints/best.ckpt"
    assert main(["test", *TINY, checkpoint, "--model.init_args.padding=full_zero"]) == 0
    assert "best.ckpt was trained: model.init_args.padding\n" in capsys.readouterr().err
    # the option decides, not the checkpoint
    assert results(newest("runs/red_green/test-*"))["config"]["model"]["init_args"]["padding"] == "full_zero"
    assert main(["test", *TINY, checkpoint, "--model.init_args.padding=valid"]) == 0
    assert "note:" not in capsys.readouterr().err


def test_validate_scores_the_validation_set(capsys):
    folder = fit()
    rows = list(csv.DictReader((folder / "metrics.csv").open()))
    best = min(rows, key=lambda row: float(row["val/loss"]))
    assert main(["validate", f"--ckpt_path={folder}/checkpoints/best.ckpt"]) == 0
    found = results(newest("runs/red_green/validate-*"))["metrics"]
    assert abs(found["val/loss"] - float(best["val/loss"])) < 1e-6
    assert found["val/acc"] == float(best["val/acc"])


def test_random_weights_and_those_of_a_checkpoint_are_not_both_scored(capsys):
    assert main(["fit", *TINY, "--untrained"]) == 2
    assert "--untrained goes with validate, test and predict" in capsys.readouterr().err
    Path("a.ckpt").touch()
    assert main(["test", *TINY, "--untrained", "--ckpt_path=a.ckpt"]) == 2
    assert "--ckpt_path and --untrained both say which weights test takes" in capsys.readouterr().err


def test_predictions_are_not_overwritten(capsys):
    assert main(["predict", *TINY, "--untrained", "--run_dir=said"]) == 0
    assert main(["predict", *TINY, "--untrained", "--run_dir=said"]) == 2
    assert "said already holds predictions; choose another --run_dir" in capsys.readouterr().err


def test_untrained_networks_are_scored_when_asked_to():
    assert main(["test", *TINY, "--untrained"]) == 0
    assert set(results(newest("runs/red_green/test-*"))["metrics"]) == {"test/acc/similar", "test/acc/dissimilar"}


def test_predict_writes_the_probabilities_of_every_test_image():
    folder = fit("--model.init_args.padding=full_zero")
    assert main(["predict", f"--ckpt_path={folder}/checkpoints/best.ckpt"]) == 0
    rows = list(csv.DictReader(newest("runs/red_green/predict-*").joinpath("predictions.csv").open()))
    assert len(rows) == 40
    assert {row["set"] for row in rows} == {"similar", "dissimilar"}
    similar = [row for row in rows if row["set"] == "similar"]
    right = sum(row["target"] == row["prediction"] for row in similar) / len(similar)
    assert 100 * right == results(folder)["metrics"]["test/acc/similar"]
    for row in rows:
        assert abs(float(row["p0"]) + float(row["p1"]) - 1) < 1e-5


def test_predictions_of_one_of_two_processes_are_refused(capsys):
    """Each process has its own share of the images: a file of the first one's would lack the others."""
    folder = fit("--trainer.max_epochs=1")
    two = ["--trainer.devices=2", "--trainer.accelerator=cpu"]
    assert main(["predict", f"--ckpt_path={folder}/checkpoints/best.ckpt", "--run_dir=said", *two]) == 2
    assert "one of the 2 processes alone; run it in one, with --trainer.devices=1" in capsys.readouterr().err
    assert not Path("said").exists()


def test_what_would_lose_the_numbers_is_found_before_they_are_computed(capsys, monkeypatch):
    folder = fit("--trainer.max_epochs=1")
    config = Path("own.yaml")
    config.write_text((folder / "config.yaml").read_text())
    options = [f"--ckpt_path={folder}/checkpoints/best.ckpt", f"--config={config}"]

    def never(*_: object, **__: object) -> None:
        raise AssertionError("was tested")

    monkeypatch.setattr("lightning.pytorch.Trainer.test", never)
    Path("file").touch()
    assert main(["test", *options, "--run_dir=file/run"]) == 2
    assert "cannot write to the run folder file/run" in capsys.readouterr().err
    (folder / "config.yaml").write_text("a: [")
    assert main(["test", *options, "--run_dir=again"]) == 2
    assert "config.yaml, line" in capsys.readouterr().err
    assert not Path("again").exists()
