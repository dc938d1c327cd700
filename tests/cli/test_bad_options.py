"""Values of every key of every public class, found from the signatures: bad ones are refused, and the key is named.

A new class, argument, network or metric is covered by itself. `tiny_data` holds a small run for each kind of data.
"""

import inspect
import random
import typing
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any, Literal

import pytest
import torch
from bad_values import ODD, draw
from boundary import Input, judge, numbers, seeded
from lightning.pytorch import Trainer
from tiny_data import BASES, DATA, MODEL, RED_GREEN, SHORT, write_tiny_data

from tinv.config import catalog
from tinv.config.options import TOP_LEVEL

OWNERS = {
    **{f"tinv.data.{name}": (name, DATA) for name in BASES},
    "tinv.tasks.Classification": ("RedGreen", MODEL),
    "tinv.tasks.Descriptors": ("PhotoPatches", MODEL),
}
NETWORKS = {"red_green_net": "RedGreen", "rook_net": "Rook", "pooling_cnn": "Digits", "hardnet": "PhotoPatches"}
METRICS: dict[str, tuple[str, dict[str, Any]]] = {
    "MeanCosineSimilarity": ("ImageNet", {"max_shift": 4, "mode": "circular"}),
    "TranslationSensitivityMap": ("ImageNet", {"max_shift": 4, "step": 2, "mode": "circular"}),
    "LayerEquivariance": ("ImageNet", {"max_stride": 4}),
    "ShiftConsistency": ("ImageNet", {"offset_range": 4}),
    "DiagonalAccuracy": ("ImageNet", {"offset_range": 4, "step": 2}),
    "WorstCaseAccuracy": ("ImageNet", {"offset_range": 4, "step": 2}),
    "CenterAccuracy": ("ImageNet", {}),
    "LayerLieDerivative": ("ImageNet", {"max_images": 4}),
    "ShiftRing": ("ImageNet", {"radius": 1}),
    "ShiftComb": ("ImageNet", {"offset_range": 4}),
    "ClipShiftMap": ("MovingShapes", {"max_frames": 2, "max_shift": 4, "frame_step": 2, "step": 4}),
    "DescriptorShift": ("PhotoPatches", {"offset_range": 4, "pairs": 4}),
}
"""Where each metric is tried, and options that suit so small an image."""
OTHERS = {"torch.optim.SGD": "optimizer.", "torch.optim.Adam": "optimizer.", "torch.optim.AdamW": "optimizer."}
SCHEDULERS = ("StepLR", "OneCycleLR", "CosineAnnealingLR", "ExponentialLR", "LinearLR", "MultiStepLR")


def _type_hints(made: Any) -> dict[str, Any]:
    """Returns the types of the arguments of a class, with those that its **kwargs hand on to its bases."""
    if not isinstance(made, type):
        return typing.get_type_hints(made)
    owners = [base for base in reversed(made.__mro__) if "__init__" in vars(base) and base is not object]
    return {name: hint for base in owners for name, hint in typing.get_type_hints(vars(base)["__init__"]).items()}


@cache
def hints_of(path: str) -> dict[str, Any]:
    """Returns the arguments of a class and their types."""
    module, _, name = path.rpartition(".")
    made = getattr(import_module(module), name)
    names = set(catalog.class_arguments(path) or {})
    return {name: hint for name, hint in _type_hints(made).items() if name in names - {"params", "optimizer", "self"}}


def of_class(random: random.Random) -> Input:
    path, (base, prefix) = random.choice(sorted(OWNERS.items()))
    return _value(hints_of(path), BASES[base], prefix, random)


def of_network(random: random.Random) -> Input:
    name, base = random.choice(sorted(NETWORKS.items()))
    made = getattr(import_module(f"tinv.models.backbones.{name}"), name)
    own = catalog.backbone_arguments(name) or {}
    hints = {key: hint for key, hint in _type_hints(made).items() if key in own} or {"padding": str}
    return _value(hints, BASES[base], f"{MODEL}backbone_args.", random)


def of_metric(random: random.Random) -> Input:
    name = random.choice(sorted(METRICS))
    base, given = METRICS[name]
    hints = hints_of(f"tinv.metrics.{name}")
    key = random.choice(sorted(hints))
    value, expected = draw(hints[key], random)
    options = ", ".join(f"{own}: {text}" for own, text in {**given, key: quoted(value)}.items())
    metric = f"{MODEL}metrics=[{{class_path: tinv.metrics.{name}, init_args: {{{options}}}}}]"
    names = (key, "metrics", name)
    return Input(["fit", *BASES[base], *SHORT, metric], names, expected, f"{name}.{key}={value}")


def quoted(value: str) -> str:
    """Returns a value as it is written inside of a list or mapping in YAML."""
    return f'"{value}"' if any(mark in value for mark in "$\x07/") else value


def of_trainer(random: random.Random) -> Input:
    parameters = inspect.signature(Trainer.__init__).parameters
    # more nodes are waited for, and more processes run this process's own command line again
    left_out = {"self", "callbacks", "logger", "plugins", "devices", "num_nodes", "strategy"}
    hints = {key: hint for key, hint in typing.get_type_hints(Trainer.__init__).items() if key in parameters}
    hints = {key: hint for key, hint in hints.items() if key not in left_out}
    given = _value(hints, BASES["RedGreen"], "--trainer.", random)
    if given.names[0][:4] in ("max_", "min_") and given.words[-1].endswith(("000", "=-1")):
        given.words[-1] = given.words[-1].partition("=")[0] + "=2"  # would train on and on, as asked
    return Input(given.words, (*given.names, "trainer"), given.expected, given.what)


def of_optimizer(random: random.Random) -> Input:
    if random.random() < 0.5:
        name, prefix = random.choice(sorted(OTHERS.items()))
    else:
        name, prefix = f"torch.optim.lr_scheduler.{random.choice(SCHEDULERS)}", "lr_scheduler."
    module, _, last = name.rpartition(".")
    # torch imports some of its types for type checkers alone
    made = getattr(import_module(module), last)
    hints = {key: _of_torch(each.annotation) for key, each in inspect.signature(made).parameters.items()}
    hints = {key: hint for key, hint in hints.items() if key not in ("params", "optimizer", "lr_lambda")}
    # torch's types are wider than what it takes: Tensor, or any float
    base = [*BASES["RedGreen"], f"{MODEL}{prefix.rstrip('.')}={name}"]
    given = _value(hints, base, f"{MODEL}{prefix}init_args.", random)
    return Input(given.words, (*given.names, last, prefix.rstrip(".")), "either", given.what)


def _of_torch(annotation: Any) -> Any:
    text = str(annotation)
    return next((kind for kind in (bool, float, int, str) if kind.__name__ in text), list)


def of_top_level(random: random.Random) -> Input:
    left_out = {"config", "trainer", "checkpoint", "model", "data", "debug", "untrained"}
    hints: dict[str, Any] = {key: str for key in TOP_LEVEL if key not in left_out}
    hints |= {"seed_everything": int, "wandb": Literal["off"]}
    given = _value(hints, BASES["RedGreen"], "--", random)
    # a text may read as anything: it is a name all the same
    expected = given.expected if hints[given.names[0]] is not str else "either"
    return Input(given.words, given.names, expected, given.what)


def of_structure(random: random.Random) -> Input:
    """Sections that are no sections, keys of no class, classes that are none."""
    section = random.choice(["model", "data", "trainer", "checkpoint", "model.init_args", "data.init_args"])
    value = random.choice(["3", "[1]", "abc", "{abc: 1}", "{class_path: 3}", "{class_path: os.getcwd}", "null", "''"])
    if random.random() < 0.2:
        key = random.choice(["mode", "monitor"])
        return Input(["fit", *RED_GREEN, *SHORT, f"--checkpoint.{key}={random.choice(ODD[str])}"], (key,), "refused")
    if random.random() < 0.5:
        section = random.choice(["model.class_path", "data.class_path", "model", "data"])
        value = random.choice(
            ["no.such", "tinv.tasks", "tinv.data.Nothing", "torch.nn.Linear", "3", "", "a b", ".", "é"]
        )
    names = (section, section.partition(".")[0], value)
    return Input(["fit", *BASES["RedGreen"], *SHORT, f"--{section}={value}"], names, "refused", "structure")


def _value(hints: dict[str, Any], base: list[str], prefix: str, random: random.Random) -> Input:
    key = random.choice(sorted(hints))
    value, expected = draw(hints[key], random)
    # what a path or a name leads to is named by it
    names = (key.rpartition(".")[2], *([value[:40]] if value else []))
    return Input(["fit", *base, *SHORT, f"{prefix}{key}={value}"], names, expected, f"{hints[key]}")


GENERATORS = (of_class, of_class, of_class, of_network, of_metric, of_trainer, of_optimizer, of_top_level, of_structure)


@pytest.fixture(scope="module")
def files(tmp_path_factory) -> Path:
    """A tiny data set of every format."""
    return write_tiny_data(tmp_path_factory.mktemp("files"))


@numbers(45, 1200)
def test_a_bad_value_is_one_line(number, files, capfd, monkeypatch):
    Path("data").symlink_to(files)
    random = seeded("options", number)
    judge(GENERATORS[number % len(GENERATORS)](random), capfd)
    torch.use_deterministic_algorithms(False)


@pytest.mark.parametrize("name", BASES)
def test_the_runs_that_the_values_are_tried_in_are_sound(name, files, capfd):
    Path("data").symlink_to(files)
    judge(Input(["fit", *BASES[name], *SHORT], (), "taken"), capfd)


def test_every_class_is_tried():
    assert {path.rpartition(".")[2] for path in OWNERS if "data" in path} >= set(catalog.data_sets()) - {
        *("HMDB51", "CIFAR100", "FashionMNIST")
    }
