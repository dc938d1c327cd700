"""Options of commands come from signatures: how they are written, and what is said of a wrong one."""

from typing import Literal

import pytest

from tinv.cli.parser import CommandParser, call, recorded
from tinv.deprecation import RenamedWarning, renamed
from tinv.errors import TinvError


@renamed(side="image_size")
def shown(
    images: str,
    image_size: int | tuple[int, ...] = 224,
    kinds: tuple[Literal["a", "b"], ...] = ("a",),
    limits: list[float] | None = None,
    own_args: dict[str, int] | None = None,
    quick: bool = False,
) -> tuple[object, ...]:
    """Shows.

    Args:
        images: Folder of images.
        quick: Whether it is quick.
    """
    return images, image_size, kinds, limits, own_args, quick


def parse(*words: str) -> tuple[object, ...]:
    parser = CommandParser("show", "Shows what it is given.", positional="images")
    parser.add("what is shown", shown)
    return call(shown, parser.parse(words))


@pytest.mark.parametrize(
    ("words", "found"),
    [
        (["x"], ("x", 224, ("a",), None, None, False)),
        (["--images=x", "--image-size", "64x96"], ("x", (64, 96), ("a",), None, None, False)),
        (["x", "--image_size=16x112x112", "--quick"], ("x", (16, 112, 112), ("a",), None, None, True)),
        (["x", "--kinds", "a", "b", "--limits", "0.5"], ("x", 224, ("a", "b"), [0.5], None, False)),
        (["x", "--limits=0,1.5", "--own-args", "k=3", "l=4"], ("x", 224, ("a",), [0, 1.5], {"k": 3, "l": 4}, False)),
        (["x", "--limits", "-1"], ("x", 224, ("a",), [-1], None, False)),
    ],
)
def test_options_are_written_in_every_usual_way(words, found):
    assert parse(*words) == found


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ([], "--images is missing; see tinv show --help"),
        (["x", "--imagesize", "3"], "unknown option '--imagesize'; did you mean --image-size"),
        (["x", "--kinds", "c"], "--kinds[0]: unknown kinds 'c'; choose from a, b"),
        (["x", "--image-size", "big"], "--image-size big is not a size in pixels"),
        (["x", "--image-size", "0"], "--image-size 0 is not a size in pixels"),
        (["x", "--own-args", "k"], "--own-args 'k': write KEY=VALUE"),
        (["x", "--limits"], "--limits needs a value"),
        (["x", "--limits", "much"], "--limits[0]: 'much' is not of type float"),
        (["x", "y"], "'y' is not an option"),
        (["x", "--images", "a", "b"], "--images takes one value, not a b"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(words, message):
    with pytest.raises(TinvError) as error:
        parse(*words)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_an_old_name_is_taken_with_a_note():
    with pytest.warns(RenamedWarning, match="--side is now --image-size"):
        assert parse("x", "--side", "32")[1] == 32


def test_the_help_names_options_choices_and_defaults(capsys):
    with pytest.raises(SystemExit) as ended:
        parse("--help")
    assert ended.value.code == 0
    text = " ".join(capsys.readouterr().out.split())
    assert "--image-size" in text
    assert "Folder of images. (required)" in text
    assert "Whether it is quick. (default: False)" in text
    assert "type:" not in text


def test_options_are_recorded_as_json_holds_them():
    assert recorded({"a": (1, 2), "b": ValueError("x"), "c": None}) == {"a": (1, 2), "b": "x", "c": None}
