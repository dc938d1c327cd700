import time
from pathlib import Path

import pytest
from sweeps.stub_sweep import write_sweep

from tinv.cli import main
from tinv.config.files import shipped_files
from tinv.config.merge import read_command_line
from tinv.errors import TinvError
from tinv.sweeps.schema import read_sweep
from tinv.sweeps.trials import TrialFactory, select_trials

PADDING = "model.init_args.padding: {values: [valid, full_zero]}"
SHIPPED = {
    "red_green": 40,
    "rook": 40,
    "digits_grid": 48,
    "mnist_grid": 12,
    "cifar_grid": 48,
    "cifar_learned": 48,
    "cifar_antialias": 18,
    "cifar_policies": 20,
    "transformers": 6,
    "transformers_swin": 3,
    "padding_x_subsampling": 36,
    "four_quadrant": 84,
    "imagenet_shift": 16,
    "imagenet_shift_small": 4,
    "data_efficiency": 10,
    "brown": 60,
    "moving_shapes": 36,
    "action_recognition": 48,
    "photo_patches": 24,
}


@pytest.mark.parametrize("name", SHIPPED)
def test_every_sweep_that_ships_can_be_read_and_has_its_trials(name):
    sweep = read_sweep(Path(f"sweeps/{name}.yaml"))
    trials = [TrialFactory(sweep)(settings) for settings in sweep.grid()]
    assert len(trials) == sweep.size == SHIPPED[name]
    assert len({trial.id for trial in trials}) == len(trials)
    assert sweep.name == name


def test_all_sweeps_that_ship_are_tested():
    assert {path.stem for path in shipped_files("sweeps")} == set(SHIPPED)


def test_a_trial_is_named_by_what_its_files_and_options_come_to():
    make = TrialFactory(read_sweep(write_sweep(PADDING)))
    trial = make({"model.init_args.padding": "valid"})
    assert trial == make({"model.init_args.padding": "valid"})
    assert trial.id != make({"model.init_args.padding": "full_zero"}).id
    assert trial.config["model"]["init_args"]["padding"] == "valid"
    assert trial.config["trainer"]["max_epochs"] == 50
    # an option that says what the file says anyway
    more = TrialFactory(read_sweep(write_sweep(PADDING)), ["--trainer.max_epochs=50"])
    assert more({"model.init_args.padding": "valid"}).id == trial.id
    other = TrialFactory(read_sweep(write_sweep(PADDING)), ["--trainer.max_epochs=5"])
    assert other({"model.init_args.padding": "valid"}).id != trial.id
    # where a run is kept and watched is not what it is
    watched = TrialFactory(read_sweep(write_sweep(PADDING)), ["--wandb=offline"])
    assert watched({"model.init_args.padding": "valid"}).id == trial.id


def test_options_take_the_place_of_what_they_cover():
    words = ["--config", "configs/red_green.yaml", "--data.init_args={splits: independent}", "--model.init_args.a.b=3"]
    flat = read_command_line(words).flat
    assert flat["data.init_args.splits"] == "independent"
    assert "data.init_args.batch_size" not in flat
    assert flat["model.init_args.a.b"] == 3


def test_ten_thousand_cells_are_expanded_in_little_time():
    values = ", ".join(map(str, range(2500)))
    path = write_sweep(f"seed_everything: {{values: [{values}]}}\n{PADDING}\ntrainer.max_epochs: {{values: [1, 2]}}")
    started = time.perf_counter()
    sweep = read_sweep(path)
    make = TrialFactory(sweep)
    assert len({make(settings).id for settings in sweep.grid()}) == 10_000
    assert time.perf_counter() - started < 10  # 1.5 s on a quiet machine: benchmarks/sweeps.py


def test_whole_numbers_of_a_range_make_a_grid():
    sweep = read_sweep(write_sweep("seed_everything: {min: 1, max: 4}\ntrainer.max_epochs: {value: 3}"))
    assert [trial["seed_everything"] for trial in sweep.grid()] == [1, 2, 3, 4]


def test_only_keeps_what_fits():
    sweep = read_sweep(write_sweep(f"seed_everything: {{values: [0, 1, 2]}}\n{PADDING}"))
    trials = [TrialFactory(sweep)(settings) for settings in sweep.grid()]
    kept = select_trials(trials, ["padding=valid", "seed_everything=1", "seed_everything=2"], list(sweep.parameters))
    assert [trial.settings["seed_everything"] for trial in kept] == [1, 2]
    with pytest.raises(TinvError, match="no trial fits"):
        select_trials(trials, ["padding=same_zero"], list(sweep.parameters))
    with pytest.raises(TinvError, match=r"unknown key 'pad'"):
        select_trials(trials, ["pad=valid"], list(sweep.parameters))


def test_dry_run_prints_commands_and_reasons_and_writes_nothing(capsys):
    rule = "exclude: [{reason: cannot be, seed_everything: [1], model.init_args.padding: valid}]"
    path = write_sweep(f"seed_everything: {{values: [0, 1]}}\n{PADDING}", more=rule)
    assert main(["sweep", str(path), "--out", "out", "--dry-run", "--", "--trainer.max_epochs=3"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert lines[0].startswith("tinv fit --config configs/red_green.yaml --seed_everything=0")
    assert "--trainer.max_epochs=3 --run_dir=out/cells/0-valid-" in lines[0]
    assert lines[2] == "# excluded: seed_everything=1 padding=valid: cannot be"
    assert not Path("out").exists()


BAD = {
    "not YAML": ("parameters: {a: [1", r"bad.yaml, line 2, column 1: not valid YAML"),
    "unknown key": ("methode: grid", r"bad.yaml: unknown key 'methode'; did you mean method"),
    "method": ("method: gird", r"unknown method 'gird'; did you mean grid"),
    "no parameters": ("method: grid", "parameters: names no key to vary"),
    "empty grid": ("method: grid\nparameters: {seed_everything: {values: []}}\nCOMMAND", "so the grid is empty"),
    "nested": ("method: grid\nparameters: {model: {parameters: {padding: {value: valid}}}}\nCOMMAND", "flat keys"),
    "twice": ("method: grid\nparameters: {seed_everything: {values: [1, 1]}}\nCOMMAND", "1 is duplicated"),
    "step": ("method: grid\nparameters: {seed_everything: {min: 1, max: 3, q: 0}}\nCOMMAND", "q 0 is not above 0"),
    "range": ("method: grid\nparameters: {seed_everything: {min: 3, max: 1}}\nCOMMAND", "min 3 is not below max 1"),
    "endless range": (
        "method: random\nrun_cap: 2\nparameters: {trainer.max_epochs: {min: 1, max: .inf}}\nCOMMAND",
        "min 1, max inf and q None are not all finite numbers",
    ),
    "range in a grid": ("method: grid\nparameters: {x: {min: 0.5, max: 1}}\nCOMMAND", "unknown option --x"),
    "no values": ("method: grid\nparameters: {seed_everything: {vals: [1]}}\nCOMMAND", "unknown key 'vals'"),
    "no command": ("method: grid\nparameters: {seed_everything: {value: 1}}", "command: is missing"),
    "no args": (
        "method: grid\nparameters: {seed_everything: {value: 1}}\ncommand: [tinv, fit, --config, configs/rook.yaml]",
        r"must run `tinv fit` and hold \$\{args\}",
    ),
    "no config": (
        'method: grid\nparameters: {seed_everything: {value: 1}}\ncommand: [tinv, fit, --config, rok.yaml, "${args}"]',
        "no configuration file rok.yaml",
    ),
    "unknown parameter": (
        "method: grid\nparameters: {model.init_args.paddin: {value: valid}}\nCOMMAND",
        r"parameters.model.init_args.paddin: unknown option .*did you mean --model.init_args.padding",
    ),
    "unknown policy": (
        "method: grid\nparameters: {model.init_args.padding: {values: [valid, ful_zero]}}\nCOMMAND",
        "unknown padding 'ful_zero'; did you mean full_zero",
    ),
    "place": ("method: grid\nparameters: {run_dir: {values: [a, b]}}\nCOMMAND", "the sweep itself sets it"),
    "bayes without metric": ("method: bayes\nparameters: {seed_everything: {value: 1}}\nCOMMAND", "needs a metric"),
    "exclude": (
        "method: grid\nparameters: {seed_everything: {value: 1}}\nexclude: [{reason: x, seed: 1}]\nCOMMAND",
        "exclude: unknown key 'seed'",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_one_clear_line(name, capsys):
    text, message = BAD[name]
    command = 'command: [tinv, fit, --config, configs/red_green.yaml, "${args}"]'
    Path("bad.yaml").write_text(text.replace("COMMAND", command) + "\n")
    with pytest.raises(TinvError, match=message):
        read_sweep(Path("bad.yaml"))
    assert main(["sweep", "bad.yaml", "--out", "out"]) == 2
    captured = capsys.readouterr()
    assert captured.err.startswith("tinv: error: bad.yaml")
    assert captured.err.count("\n") == 1
    assert not Path("out").exists()


def test_options_that_do_not_go_together_are_refused(capsys):
    path = str(write_sweep(PADDING))
    for words, message in (
        (["absent.yaml", "--out", "o"], "no sweep file absent.yaml"),
        ([path], "--out DIR is missing"),
        ([path, "--out", "o", "--jobs", "0"], "--jobs must be at least 1"),
        ([path, "--out", "o", "--trainer.max_epochs=3"], "options of the runs stand after `--`"),
        ([path, "--out", "o", "--slurm-partition=x"], "goes with --launcher slurm"),
        ([path, "--out", "o", "--", "--trainer.max_epoch=3"], "did you mean --trainer.max_epochs"),
        ([path, "--out", "o", "--", "--run_dir=x"], "the sweep itself sets it"),
        ([path, "--out", "o", "--", "--model.init_args.padding=valid"], "narrow it with --only"),
        ([path, "--out", "o", "--count", "3"], "for method random or bayes"),
    ):
        assert main(["sweep", *words]) == 2, words
        assert message in capsys.readouterr().err


def test_numbers_in_scientific_notation_are_numbers_and_early_terminate_is_said():
    from tinv.sweeps.schema import read_sweep

    Path("sweep.yaml").write_text(
        'command: [tinv, fit, --config, configs/digits_grid.yaml, "${args}"]\nmethod: random\nrun_cap: 3\n'
        "early_terminate: {type: hyperband, min_iter: 3}\nparameters:\n"
        "  model.init_args.optimizer.init_args.lr: {distribution: log_uniform_values, min: 1e-5, max: 1e-1}\n"
    )
    sweep = read_sweep(Path("sweep.yaml"))
    found = sweep.parameters["model.init_args.optimizer.init_args.lr"]
    assert (found.low, found.high, sweep.early_terminate["type"]) == (1e-5, 1e-1, "hyperband")


def test_giant_grids_are_counted_and_refused():
    from tinv.errors import TinvError
    from tinv.sweeps.schema import read_sweep

    Path("sweep.yaml").write_text(
        'command: [tinv, fit, --config, configs/digits_grid.yaml, "${args}"]\nmethod: grid\n'
        "parameters:\n  seed_everything: {min: 0, max: 1000000000000}\n"
    )
    with pytest.raises(TinvError, match="the grid has 1000000000001 trials, more than 100000"):
        read_sweep(Path("sweep.yaml"))


def test_off_is_a_value_of_wandb():
    from tinv.sweeps.schema import read_sweep

    Path("sweep.yaml").write_text(
        'command: [tinv, fit, --config, configs/digits_grid.yaml, "${args}"]\nmethod: grid\n'
        "parameters:\n  wandb: {value: off}\n  seed_everything: {values: [1, 2]}\n"
    )
    assert read_sweep(Path("sweep.yaml")).parameters["wandb"].values == ("off",)


@pytest.mark.parametrize("count", [10_000_000, 0, "true", 2.5])
def test_a_number_of_runs_is_bounded(count):
    path = write_sweep(PADDING)
    path.write_text(path.read_text().replace("method: grid", f"method: random\nrun_cap: {count}"))
    with pytest.raises(TinvError, match=r"run_cap: .* is not a number of runs from 1 to 100000"):
        read_sweep(path)
