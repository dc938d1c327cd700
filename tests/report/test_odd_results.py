"""Results as clusters leave them: keys of another machine, numbers that are not finite, odd names, odd files."""

import json
import os
from inspect import signature
from pathlib import Path

import pytest
from lightning.pytorch import Trainer

from tinv.cli import main
from tinv.config.identity import MACHINE_KEYS, is_machine_key
from tinv.report.collect import collect

FORMATS = ["table", "md", "csv", "latex", "html"]


def write(name: str, seed: int, metrics: dict | None = None, experiment: str = "grid", **config) -> Path:
    path = Path("runs") / name
    path.mkdir(parents=True)
    settings = {
        "experiment": experiment,
        "seed_everything": seed,
        "model": {"init_args": {"padding": config.pop("padding", "valid")}},
        "data": {"init_args": {"root": "/data", "num_workers": 0, "cache_dir": None}},
        "trainer": {"devices": 1, "precision": "32-true"},
    }
    for key, value in config.items():
        section, _, leaf = key.partition("__")
        target = settings[section].setdefault("init_args", {}) if section == "data" else settings[section]
        target[leaf] = value
    results = {"status": "finished", "command": "fit", "experiment": experiment, "seed": seed, "config": settings}
    (path / "results.json").write_text(json.dumps({**results, "metrics": metrics or {"test/acc": 50.0 + seed}}))
    return path


def test_seeds_that_ran_on_different_machines_are_one_cell(capsys):
    write("a", 0)
    write("b", 1, data__root="/scratch", data__num_workers=8, trainer__devices=4, trainer__strategy="ddp")
    write("c", 2, data__cache_dir="/tmp/cache", data__download=True, trainer__accelerator="gpu", trainer__num_nodes=2)
    write("d", 0, padding="full_zero")
    groups = collect([Path("runs")])["grid"]
    assert [len(group.runs) for group in groups] == [3, 1]
    assert [group.setting for group in groups] == [
        {"model.init_args.padding": "valid"},
        {"model.init_args.padding": "full_zero"},
    ]
    assert not any("precision" in group.note for group in groups)
    keys = "data.init_args.root, data.init_args.num_workers, data.init_args.cache_dir, trainer.devices"
    assert groups[0].note.startswith(f"runs differ in {keys}")
    assert groups[1].note == "2 of 3 seeds missing"


def test_missing_groups_are_those_of_the_ledger(capsys):
    for padding in ("valid", "full_zero"):
        write(f"sweep/cells/{padding}", 0, padding=padding)
    entries = {
        name: {"name": name, "status": "pending", "settings": {"model.init_args.padding": name, "seed_everything": 0}}
        for name in ("valid", "full_zero", "same_circular")
    }
    Path("runs/sweep/ledger.json").write_text(json.dumps({"identity": {}, "cells": entries}))
    groups = collect([Path("runs")])["grid"]
    assert {group.setting["model.init_args.padding"]: group.status for group in groups} == {
        "valid": "finished", "same_circular": "missing", "full_zero": "finished"
    }  # fmt: skip


@pytest.mark.parametrize("form", FORMATS)
def test_a_differing_precision_is_a_note_in_every_format(form, capsys):
    write("a", 0)
    write("b", 1, trainer__precision="bf16-mixed")
    assert main(["report", "runs", "--format", form]) == 0
    said = capsys.readouterr().out
    text = Path("runs/report.html").read_text() if form == "html" else " ".join(said.split())
    assert "precision 32-true and bf16-mixed" in text


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("name", ["", r"$\frac{", "[/red]", "a\0b", "\ud800", "a/b", "<b>&", "100%_{x}"], ids=range(8))
def test_odd_names_are_reported_in_every_format(form, name, capsys):
    write("a", 0, {"test/acc/similar": 50.0, "test/acc/dissimilar": 40.0}, experiment=name)
    write("b", 0, {"test/acc/similar": 50.0, "test/acc/dissimilar": 40.0}, experiment=name, padding="full_zero")
    assert main(["report", "runs", "--format", form]) == 0
    assert list(Path("runs").glob("*.png")) or form == "html"


@pytest.mark.parametrize("value", [float("nan"), float("inf"), 1e308])
@pytest.mark.parametrize("form", FORMATS)
def test_numbers_that_are_not_finite_are_named_and_left_out(value, form, capsys):
    write("a", 0, {"test/acc": value, "test/loss": 1.0})
    write("b", 1, {"test/acc": 60.0, "test/loss": 2.0})
    assert main(["report", "runs", "--format", form]) == 0
    assert "runs/a/results.json: test/acc" in capsys.readouterr().err
    [group] = collect([Path("runs")])["grid"]
    assert group.values["test/acc"] == [60.0]
    assert group.values["test/loss"] == [1.0, 2.0]


def test_what_is_no_results_file_is_named_and_left_out(capsys):
    write("good", 0)
    for name in ("pipe", "deep", "list", "empty"):
        (Path("runs") / name).mkdir()
    os.mkfifo("runs/pipe/results.json")
    Path("runs/deep/results.json").write_text("[" * 100_000)
    Path("runs/list/results.json").write_text("[1, 2]")
    Path("runs/empty/results.json").write_text("")
    Path("runs/good/metrics.csv").unlink(missing_ok=True)
    os.mkfifo("runs/good/metrics.csv")
    assert main(["report", "runs"]) == 0
    said = capsys.readouterr()
    for name in ("pipe", "deep", "list", "empty"):
        assert f"runs/{name}/results.json" in said.err
    assert "50.0" in said.out


@pytest.mark.parametrize("published", ["nothing", ["red_green"], {"a": 1}, 7])
def test_a_published_table_that_does_not_exist_costs_no_report(published, capsys):
    path = write("a", 0)
    results = json.loads((path / "results.json").read_text())
    results["config"]["published"] = published
    (path / "results.json").write_text(json.dumps(results))
    assert main(["report", "runs"]) == 0
    assert "there is no published table" in capsys.readouterr().err


def test_lists_are_values_like_any_other():
    write("a", 0, data__noise=[0.1, 0.2])
    write("b", 0, data__noise=[0.3])
    assert len(collect([Path("runs")])["grid"]) == 2


@pytest.mark.parametrize("form", FORMATS)
def test_a_partial_conversion_is_said_beside_its_numbers(form, capsys):
    path = write("a", 0)
    results = json.loads((path / "results.json").read_text())
    results["partial"] = [{"layer": "layer4.conv", "text": "why"}]
    (path / "results.json").write_text(json.dumps(results))
    assert main(["report", "runs", "--format", form]) == 0
    said = capsys.readouterr().out
    text = Path("runs/report.html").read_text() if form == "html" else " ".join(said.split())
    assert "partial: 1 layers not converted" in text.replace("\\_", "_")


def test_keys_of_the_machine_are_keys_of_the_trainer_or_the_data():
    assert is_machine_key("trainer.use_distributed_sampler")
    trainer = set(signature(Trainer.__init__).parameters)
    assert {key.removeprefix("trainer.") for key in MACHINE_KEYS if key.startswith("trainer.")} <= trainer
