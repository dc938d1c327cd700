"""Options of measure, probe and inspect, found from the functions that they call: bad values are one line."""

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from bad_values import draw
from boundary import Input, judge, numbers, seeded
from PIL import Image

import tinv
from tinv.cli import measure, probe
from tinv.cli.inspect import make_parser as inspect_parser
from tinv.errors import TinvError, TinvWarning

NETWORK = ["--backbone=rook_net", "--source=tinv", "--num-classes=3", "--input-size=32"]
IMAGES = ["--images=photos", "--out=out"]
COMMANDS: dict[str, tuple[list[str], Any]] = {
    "measure": (["measure", *NETWORK, *IMAGES, "--offset-range=4", "--passes=1"], measure.make_parser),
    "probe": (["probe", *NETWORK, *IMAGES, "--max-images=4", "--distances", "0"], probe.make_parser),
    "inspect": (["inspect", "rook_net", "--source=tinv", "--input-size=32"], inspect_parser),
}


def photographs() -> None:
    Path("photos").mkdir()
    draw = np.random.default_rng(0)
    for number in range(4):
        Image.fromarray(draw.integers(0, 256, (40, 50, 3), dtype=np.uint8)).save(f"photos/{number}.png")


def generate(random: random.Random) -> Input:
    name = random.choice(sorted(COMMANDS))
    words, parser = COMMANDS[name]
    hints = parser().hints
    key = random.choice(sorted(set(hints) - {"out", "help"}))
    value, expected = draw(hints[key], random)
    option = f"--{key.replace('_', '-')}"
    names = (option, key, *([value[:40]] if value else []))
    return Input([*words, f"{option}={value}"], names, expected, f"{name} {key}: {hints[key]}")


@numbers(20, 500)
def test_a_bad_value_is_one_line(number, capfd):
    photographs()
    judge(generate(seeded("measure", number)), capfd)


def test_the_commands_that_the_values_are_tried_in_are_sound(capfd):
    photographs()
    for words, _ in COMMANDS.values():
        judge(Input(words, (), "taken"), capfd)


@pytest.mark.parametrize(
    ("function", "options", "message"),
    [
        (tinv.measure, {"batch_size": 0}, "batch_size must be 1 or more, not 0"),
        (tinv.measure, {"workers": -1}, "workers must be 0 or more, not -1"),
        (tinv.measure, {"precision": "64"}, "precision: unknown precision '64'"),
        (tinv.measure, {"on_error": "ignore"}, "on_error: unknown on_error 'ignore'"),
        (tinv.measure, {"input_size": 0}, "input_size must be 1 pixel or more, not 0"),
        (tinv.probe_location, {"precision": "64"}, "precision: unknown precision '64'"),
        (tinv.probe_location, {"on_error": "ignore"}, "on_error: unknown on_error 'ignore'"),
        (tinv.probe_location, {"seed": -1}, "seed must be a seed from 0"),
    ],
)
def test_a_bad_value_from_python_is_refused_and_not_taken_for_another(function, options, message):
    photographs()
    with pytest.raises(TinvError, match=message):
        function(torch.nn.Conv2d(3, 2, 3), "photos", **options)


def test_a_warning_of_measure_points_at_its_caller():
    photographs()
    Path("photos/a").mkdir()
    for path in Path("photos").glob("*.png"):
        path.rename(Path("photos/a") / path.name)
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 2, 3), torch.nn.AdaptiveMaxPool2d(1), torch.nn.Flatten())
    with pytest.warns(TinvWarning, match="measured without labels") as warned:
        tinv.measure(network, "photos", num_classes=2, input_size=32, offset_range=4, metrics=["consistency"])
    assert warned[0].filename == __file__
