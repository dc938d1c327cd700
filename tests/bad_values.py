"""Values for an argument of any type, as they are written on a command line: wrong ones, and legal ones at an edge."""

import inspect
import random
import types
import typing
from typing import Any, Literal, get_args, get_origin

WRONG: dict[Any, list[str]] = {
    int: ["abc", "1.5", "[1]", "{a: 1}", ".nan", ".inf", "''", "1 2", "1970-01-01", "0x1g"],
    float: ["abc", "[1.0]", "{a: 1}", "''", "1970-01-01"],
    bool: ["abc", "2", "[true]", "{a: true}", "0.5"],
    str: ["[a]", "{a: b}"],
    list: ["abc", "{a: 1}", "{class_path: 3}", "1.5"],
    Literal: ["foo", "[same_zero]", "{a: 1}", "3.5", "''"],
}
ODD: dict[Any, list[str]] = {
    int: ["-1", "0", "1", "-7", "3", "1000000000000", "-9223372036854775809", "true"],
    float: ["-1", "0", "1", ".nan", ".inf", "-.inf", "1e308", "1e-320", "0.5"],
    bool: ["true", "false"],
    str: ["''", "no/such", "x" * 5000, "ünïcödé", "${no.such}", "../..", "a\x07b", "null", "1e5", "/dev/null"],
    list: ["[]", "[abc]", "[null]", "[-1]", "[1, 2, 3]", "[0]", "[1000000000]", "[.nan]", "[[]]"],
    Literal: ["null"],
}


def kinds(hint: Any) -> tuple[set[Any], bool]:
    """Returns the kinds of values that a type takes, and whether it takes null."""
    if get_origin(hint) in (typing.Union, types.UnionType):
        parts = [kinds(part) for part in get_args(hint)]
        return set().union(*(found for found, _ in parts)), any(null for _, null in parts)
    if hint in (None, type(None)):
        return set(), True
    if get_origin(hint) is Literal:
        return {Literal}, None in get_args(hint)
    for kind in (bool, int, float, str):
        if hint is kind:
            return {kind}, False
    is_list = get_origin(hint) in (list, tuple) or "Sequence" in str(get_origin(hint))
    return {list if is_list else Any}, hint is Any or hint is inspect.Parameter.empty


def draw(hint: Any, random: random.Random) -> tuple[str, Literal["refused", "either"]]:
    """Returns a value as it is written on a command line, and whether its type alone excludes it."""
    found, null = kinds(hint)
    if len(found) == 1 and not null and random.random() < 0.15:
        return "null", "either" if Any in found else "refused"
    kind = random.choice(sorted(found, key=str) or [str])
    if kind is Any:
        return random.choice(["abc", "[]", "{class_path: no.such}", "-1", "{class_path: torch.nn.Linear}"]), "either"
    if len(found) == 1 and random.random() < 0.4:
        return random.choice(WRONG[kind]), "refused"
    return random.choice(ODD[kind]), "either"
