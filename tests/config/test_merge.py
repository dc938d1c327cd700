import pytest

from tinv.config.merge import flatten, lookup, merge_configs, nested, read_command_line, with_new_names
from tinv.deprecation import RenamedWarning
from tinv.errors import TinvError

CONFIG = {"model": {"padding": "valid", "args": {}}, "seed": 3}


def test_flatten_gives_dotted_keys():
    assert dict(flatten(CONFIG)) == {"model.padding": "valid", "model.args": {}, "seed": 3}


def test_lookup_finds_a_dotted_key_or_none():
    assert lookup(CONFIG, "model.padding") == "valid"
    assert lookup(CONFIG, "model.absent") is None
    assert lookup(CONFIG, "seed.deeper") is None


def test_merge_configs_keeps_what_the_overlay_does_not_name():
    assert merge_configs(CONFIG, {"model": {"padding": "full_zero"}}) == {
        "model": {"padding": "full_zero", "args": {}},
        "seed": 3,
    }
    assert CONFIG["model"]["padding"] == "valid"  # the given ones are left as they are


def test_merge_configs_drops_the_options_of_another_class():
    old = {"data": {"class_path": "A", "init_args": {"a": 1, "both": 1}}}
    assert merge_configs(old, {"data": {"class_path": "B", "init_args": {"both": 2}}}) == {
        "data": {"class_path": "B", "init_args": {"both": 2}}
    }
    assert merge_configs(old, {"data": {"class_path": "A", "init_args": {"both": 2}}})["data"]["init_args"] == {
        "a": 1,
        "both": 2,
    }


def test_nested_is_the_inverse_of_flatten():
    flat = {"model.padding": "valid", "model.args": {}, "seed": 3}
    assert nested(flat) == CONFIG
    assert dict(flatten(nested(flat))) == flat


OLD = {"model": {"class_path": "tinv.tasks.Descriptors", "init_args": {"length": 64, "margin": 2.0}}}


def test_renamed_arguments_of_a_configuration_get_their_new_names():
    with pytest.warns(RenamedWarning, match="length is now descriptor_dim"):
        found = with_new_names(OLD)
    assert found["model"]["init_args"] == {"descriptor_dim": 64, "margin": 2.0}
    # an overlay whose class another file names
    with pytest.warns(RenamedWarning, match="length is now descriptor_dim"):
        overlay = with_new_names({"model": {"init_args": {"length": 32}}}, OLD)
    assert overlay == {"model": {"init_args": {"descriptor_dim": 32}}}
    with pytest.raises(TinvError, match=r"init_args.length is the old name of descriptor_dim; keep one of them"):
        with_new_names({"class_path": "tinv.tasks.Descriptors", "init_args": {"length": 1, "descriptor_dim": 2}})


def test_renamed_options_of_a_command_line_get_their_new_names():
    words = [
        "--config",
        "configs/brown.yaml",
        "--model.init_args.length=64",
        "--trainer.max_epochs",
        "3",
        "--untrained",
    ]
    with pytest.warns(RenamedWarning, match="length is now descriptor_dim"):
        given = read_command_line(words)
    assert given.words == ("--model.init_args.descriptor_dim=64", "--trainer.max_epochs", "3", "--untrained")
    assert given.flat["model.init_args.descriptor_dim"] == 64
    assert given.flat["trainer.max_epochs"] == 3
    assert given.flat["untrained"] is True


def test_values_that_name_classes_are_read_too():
    value = "[{class_path: tinv.tasks.Descriptors, init_args: {length: 3}}]"
    with pytest.warns(RenamedWarning):
        given = read_command_line([f"--model.init_args.metrics={value}"])
    assert "descriptor_dim: 3" in given.words[0]


def test_a_flag_takes_true_and_false_as_well():
    assert read_command_line(["--untrained=true"]).words == ("--untrained",)
    assert read_command_line(["--untrained=false", "--seed_everything=1"]).words == ("--seed_everything=1",)
    with pytest.raises(TinvError, match="--untrained: 'maybe' is not true or false"):
        read_command_line(["--untrained=maybe"])
