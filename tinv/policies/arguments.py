"""The options of a conversion as commands take them; one more is one entry here and one in `ConversionPolicy`."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from functools import partial
from typing import Any

from tinv import yaml_files
from tinv.errors import unknown
from tinv.policies.cards import PADDINGS, SUBSAMPLINGS

POLICY_OPTIONS: dict[str, tuple[tuple[str, ...], str]] = {
    "padding": (PADDINGS, "tinv list padding"),
    "subsampling": (SUBSAMPLINGS, "tinv list subsampling"),
    "pool": (("keep", "valid", "same", "full"), "padding of pools"),
    "stem": (("keep", "convert"), "the first convolution's stride"),
    "axes": (("space", "space+time"), "of clips"),
    "blur_padding": (("as_padding", "zero", "reflect", "replicate", "circular"), "what the border of blurs holds"),
}
"""Each with its choices, the first of which is the default, and a word of help."""


def add_policy_options(group: Any, *left_out: str) -> None:
    """Adds the options of `tinv.convert` to a parser or a group of it, but for those named."""
    for name, (choices, text) in POLICY_OPTIONS.items():
        if name in left_out:
            continue
        flag, text = f"--{name.replace('_', '-')}", f"{text}; default: {choices[0]}"
        if name in ("padding", "subsampling"):
            parse = partial(policy_argument, name, choices)
            group.add_argument(flag, type=parse, default=choices[0], metavar="POLICY", help=f"{text}; or a class_path")
        else:
            group.add_argument(flag, choices=choices, default=choices[0], help=text)
    group.add_argument(
        "--partial",
        action="store_true",
        help="leave layers that cannot take the policies; by default they are an error",
    )


def policy_argument(option: str, choices: Sequence[str], word: str) -> Any:
    """Returns a policy as it is written on a command line: a name, the dotted path of a class, or a mapping.

    Args:
        option: Name of the option.
        choices: Names that it takes.
        word: What was written, such as `blur3`, `my_policies.Median` or `{class_path: my_policies.Median}`.

    Raises:
        TinvError: For a word that is none of these.
    """
    if word in choices or ("." in word and not word.startswith("{")):
        return word
    given = yaml_files.parse(word) if word.startswith("{") else None
    if not isinstance(given, dict):
        raise unknown(option, word, choices)
    return given


def policies_of(args: argparse.Namespace) -> dict[str, Any]:
    """Returns the options of `tinv.convert` that a command was given."""
    return {name: getattr(args, name) for name in (*POLICY_OPTIONS, "partial")}
