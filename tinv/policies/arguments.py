"""The options of a conversion as commands take them; one more is one entry here and one in `Settings`."""

from __future__ import annotations

import argparse
from typing import Any

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
        metavar = {"metavar": "POLICY"} if len(choices) > 6 else {}
        flag = f"--{name.replace('_', '-')}"
        group.add_argument(flag, choices=choices, default=choices[0], help=f"{text}; default: {choices[0]}", **metavar)
    group.add_argument(
        "--partial",
        action="store_true",
        help="leave layers that cannot take the policies; by default they are an error",
    )


def policies_of(args: argparse.Namespace) -> dict[str, Any]:
    """Returns the options of `tinv.convert` that a command was given."""
    return {name: getattr(args, name) for name in (*POLICY_OPTIONS, "partial")}
