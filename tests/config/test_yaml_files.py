"""YAML means the same wherever tinv reads it, and every name and choice of tinv can be written bare."""

import importlib
import inspect
import pkgutil
import typing
from pathlib import Path

import pytest

import tinv
from tinv.config import yaml_files
from tinv.errors import TinvError


@pytest.mark.parametrize(
    "text",
    ["1e5", "77950e8", "0x1f", "1_000", "on", "null", "2020-01-01", "1.5", "~", "0o7", ".inf", "-1e-5", "yes", ""],
)
def test_strings_that_look_like_something_else_stay_strings(text):
    value = {"a": text, "b": {"c": [text, {"d": text}]}}
    assert yaml_files.parse(yaml_files.dump(value)) == value


@pytest.mark.parametrize(("text", "value"), [("1e-5", 1e-5), ("1e5", 1e5), ("2E3", 2000.0), ("1.", 1.0), (".5", 0.5)])
def test_numbers_are_those_of_yaml_1_2(text, value):
    assert yaml_files.parse(f"a: {text}")["a"] == value
    assert yaml_files.parse(yaml_files.dump({"a": value}))["a"] == value


@pytest.mark.parametrize("text", ["010", "-010", "1:30", "1:00:00:00"])
def test_integers_that_yaml_1_1_reads_otherwise_are_refused(text, tmp_path):
    """PyYAML makes 8 of 010 and 90 of 1:30."""
    path = tmp_path / "a.yaml"
    path.write_text(f"b: 0\na: {text}\n")
    with pytest.raises(TinvError, match=f"a.yaml: line 2: {text} is another number in YAML 1.1"):
        yaml_files.read_mapping(path)
    assert yaml_files.parse(yaml_files.dump({"a": text})) == {"a": text}


def test_a_key_that_is_given_twice_is_an_error_with_both_lines(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("seed: 1\ntrainer:\n  max_epochs: 1\n  max_epochs: 2\n")
    with pytest.raises(TinvError, match=r"a\.yaml: key 'max_epochs' is given twice, in lines 3 and 4"):
        yaml_files.read_mapping(path)
    path.write_text("base: &base {a: 1}\nother: {<<: *base, b: 2}\n")
    assert yaml_files.read_mapping(path)["other"] == {"a": 1, "b": 2}


@pytest.mark.parametrize("text", ["[" * 3000, "{[]: 1}", "a: [", "- 1", "", "a: 2020-13-45"])
def test_what_is_no_mapping_is_one_line(text, tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(TinvError) as error:
        yaml_files.read_mapping(path)
    assert str(path) in str(error.value)
    assert "\n" not in str(error.value)


def test_off_is_a_way_of_wandb(tmp_path):
    path = tmp_path / "a.yaml"
    path.write_text("wandb: off\n")
    assert yaml_files.read_mapping(path) == {"wandb": "off"}


def public_classes():
    for package in ("data", "metrics", "tasks"):
        folder = Path(tinv.__file__).parent / package
        for found in pkgutil.iter_modules([str(folder)]):
            module = importlib.import_module(f"tinv.{package}.{found.name}")
            for name, made in vars(module).items():
                if inspect.isclass(made) and made.__module__ == module.__name__ and not name.startswith("_"):
                    yield made


def choices(hint) -> list[str]:
    if typing.get_origin(hint) is typing.Literal:
        return [value for value in typing.get_args(hint) if isinstance(value, str)]
    return [choice for part in typing.get_args(hint) for choice in choices(part)]


def test_every_name_and_choice_can_be_written_bare():
    """YAML reads on, off, yes, no and null as something else."""
    checked = 0
    for made in public_classes():
        signature = inspect.signature(made.__init__)
        try:
            hints = typing.get_type_hints(made.__init__)
        except NameError:
            hints = {}
        for name in signature.parameters:
            if name == "on":
                continue  # an alias that is kept for calls from Python
            assert yaml_files.parse(f"{name}: 1") == {name: 1}, f"{made.__name__}.{name}"
            for choice in choices(hints.get(name)):
                assert yaml_files.parse(f"a: {choice}") == {"a": choice}, f"{made.__name__}.{name}: {choice}"
                checked += 1
    assert checked > 50
