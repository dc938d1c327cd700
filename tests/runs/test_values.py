"""Values that no type excludes: nulls, seeds out of range, empty paths, quoted names, ids with hyphens."""

from pathlib import Path

import pytest
import yaml
from tiny_run import TINY, fit

from tinv.cli import main
from tinv.runs.wandb_run import earlier_id


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--seed_everything=-1", "seed_everything must be a seed from 0 to 4294967295, not -1"),
        ("--seed_everything=4294967296", "seed_everything must be a seed from 0 to 4294967295"),
        ("--data.init_args.seed=4294967296", "data.init_args.seed must be a seed"),
        ("--ckpt_path=", "ckpt_path: is empty; give it a value or leave it out"),
        ("--experiment=", "experiment: is empty"),
        ("--data.init_args.num_val=null", "data.init_args.num_val: is null, which it cannot be"),
        ("--model.init_args.frozen=null", "model.init_args.frozen: is null, which it cannot be"),
    ],
)
def test_values_that_make_no_run_are_one_line(option, message, capsys):
    assert main(["fit", *TINY, option]) == 2
    assert message in capsys.readouterr().err
    assert not Path("runs").exists()


@pytest.mark.parametrize("section", ["trainer", "data", "model", "checkpoint"])
def test_a_section_that_is_null_is_one_line(section, capsys):
    Path("null.yaml").write_text(f"{section}: null\n")
    assert main(["fit", *TINY, "--config=null.yaml"]) == 2
    assert f"{section}: is null, which it cannot be; leave it out" in capsys.readouterr().err


def test_a_quoted_name_and_a_bare_off_survive_the_merge_and_the_runs_folder():
    Path("name.yaml").write_text("experiment: '1e5'\nwandb: off\n")
    folder = fit("--config=name.yaml")
    assert folder.parent == Path("runs/1e5")
    assert yaml.safe_load((folder / "config.yaml").read_text())["experiment"] == "1e5"


@pytest.mark.parametrize("begin", ["offline-run", "run"])
@pytest.mark.parametrize("known", ["abc123xy", "my-run-1", "2022-12-17_10-29-00"])
def test_ids_of_wandb_keep_their_hyphens(begin, known):
    Path(f"run/wandb/{begin}-20260101_120000-{known}").mkdir(parents=True)
    assert earlier_id(Path("run")) == known
