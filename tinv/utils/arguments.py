"""What a value has to be to fit the type of an argument: the one check of types, choices and ranges.

It serves configurations, before anything that is slow is imported, and whoever calls a class from Python.
"""

from __future__ import annotations

import functools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from inspect import signature
from numbers import Integral, Real
from types import NoneType, UnionType
from typing import TYPE_CHECKING, Any, Literal, TypeAlias, TypeVar, Union, get_args, get_origin, get_type_hints

from tinv.deprecation import renamed
from tinv.errors import TinvError, unknown

if TYPE_CHECKING:
    PositiveInt: TypeAlias = int
    NonNegativeInt: TypeAlias = int
    AtLeastTwo: TypeAlias = int
    Seed: TypeAlias = int
    NonNegativeFloat: TypeAlias = float
    OpenUnitInterval: TypeAlias = float
else:
    from jsonargparse.typing import (
        NonNegativeFloat,
        NonNegativeInt,
        OpenUnitInterval,
        PositiveInt,
        restricted_number_type,
    )

    AtLeastTwo = restricted_number_type("AtLeastTwo", int, (">=", 2), docstring="An integer of 2 or more.")
    Seed = restricted_number_type("Seed", int, [(">=", 0), ("<", 2**32)], docstring="A seed, as NumPy takes it.")

__all__ = [
    *("AtLeastTwo", "Checked", "NonNegativeFloat", "NonNegativeInt", "OpenUnitInterval", "PositiveInt", "Seed"),
    *("RANGES", "checked", "misfit"),
]

RANGES: dict[Any, tuple[type, str, Callable[[Any], bool]]] = {
    PositiveInt: (int, "1 or more", lambda value: value >= 1),
    NonNegativeInt: (int, "0 or more", lambda value: value >= 0),
    AtLeastTwo: (int, "2 or more", lambda value: value >= 2),
    Seed: (int, f"a seed from 0 to {2**32 - 1}", lambda value: 0 <= value < 2**32),
    NonNegativeFloat: (float, "0 or more", lambda value: 0 <= value < math.inf),
    OpenUnitInterval: (float, "more than 0 and less than 1", lambda value: 0 < value < 1),
}
"""Of each type with a range: the numbers it is of, what is said of it, and the test."""

NULL = "is null, which it cannot be; leave it out for its default"
KINDS = {int: Integral, float: Real, bool: bool, dict: Mapping}


def misfit(name: str, value: object, hint: Any) -> str | None:
    """Returns why a value does not fit the type of an argument, beginning with the argument's name; None if it does.

    What a type does not say is taken for a fit, and so is every value of a type that is not known here.

    Args:
        name: Name of the argument, or its dotted key.
        value: The value.
        hint: The type: a builtin type, one of `RANGES`, Literal, list, tuple, Sequence, dict, or a union of them.

    Examples:
        >>> misfit("batch_size", 0, PositiveInt)
        'batch_size must be 1 or more, not 0'
        >>> misfit("batch_size", "ten", PositiveInt | None)
        "batch_size: 'ten' is not of type int"
        >>> misfit("padding", "sam", Literal["same", "full"])
        "padding: unknown padding 'sam'; did you mean same?"
    """
    parts = get_args(hint) if get_origin(hint) in (Union, UnionType) else (hint,)
    if value is None and len(parts) > 1 and NoneType not in parts:  # a union that takes null says so
        return f"{name}: {NULL}"
    is_name = isinstance(value, str) and "." not in value  # else it may be the dotted path of an object
    if is_name and str not in parts and any(get_origin(part) is Literal for part in parts):
        parts = tuple(part for part in parts if get_origin(part) is Literal)
    reasons = [_reason(name, value, part) for part in parts]
    if None in reasons:
        return None
    if value is None:
        return f"{name}: {NULL}"
    # what is said of the part that the value comes nearest to: a choice, a range or an item before another type
    near = [reason for reason in reasons if reason and not reason.startswith(f"{name}: is not of type ")]
    if near:
        return near[0]
    return f"{name}: {str(value)[:100]!r} is not of type {' or '.join(filter(None, map(_type_name, parts)))}"


def _reason(name: str, value: Any, hint: Any) -> str | None:
    """Returns why a value does not fit a type that is no union."""
    wrong_type = f"{name}: is not of type {hint}"
    if hint in RANGES:
        base, text, fits = RANGES[hint]
        if _reason(name, value, base) is not None:
            return wrong_type
        return None if fits(value) else f"{name} must be {text}, not {value}"
    origin = get_origin(hint) or hint
    if origin is Literal:
        if isinstance(value, str | int | float) and value not in get_args(hint):
            own = re.sub(r".*[.-]|\[.*", "", name)  # the last part of a dotted key, without the number of an item
            return f"{name}: {unknown(own, value, map(str, get_args(hint)))}"
        return None if value in get_args(hint) else wrong_type
    if hint in (None, NoneType):
        return None if value is None else wrong_type
    if origin in (list, tuple, Sequence):
        return _reason_of_items(name, value, hint, wrong_type)
    if origin is str:
        return wrong_type if isinstance(value, list | dict | NoneType) else None
    if origin not in KINDS or value is None:
        return wrong_type if value is None and origin in KINDS else None
    is_bool = isinstance(value, bool)
    if not isinstance(value, KINDS[origin]) or (is_bool and origin in (int, float)):
        return wrong_type
    return f"{name} must be a number, not {value}" if value != value else None


def _reason_of_items(name: str, value: Any, hint: Any, wrong_type: str) -> str | None:
    if not isinstance(value, Sequence) or isinstance(value, str):
        return wrong_type
    items = [item for item in get_args(hint) if item is not Ellipsis]
    if len(items) != 1:
        return None
    found = (misfit(f"{name}[{number}]", item, items[0]) for number, item in enumerate(value))
    return next(filter(None, found), None)


def _type_name(hint: Any) -> str | None:
    base = RANGES[hint][0] if hint in RANGES else get_origin(hint) or hint
    if base in (Sequence, tuple):
        return "list"
    return None if base in (None, NoneType) else str(getattr(base, "__name__", base)).lower()


T = TypeVar("T", bound=Callable[..., Any])


class Checked:
    """Base of classes whose arguments are checked for choices and ranges, which stand in the types of `__init__`.

    Raises:
        TinvError: For an argument that does not fit, naming it.
    """

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if (init := vars(cls).get("__init__")) is not None:
            old = getattr(init, "renamed", {})
            # a warning of an old name is to point at the caller: it comes from the outer function
            made = renamed(**old)(checked(init.__wrapped__)) if old else checked(init)
            cls.__init__ = made  # type: ignore[method-assign]


def checked(function: T) -> T:
    """Lets a function check its arguments for choices and ranges before it runs."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        given = {**dict(zip(signature(function).parameters, args, strict=False)), **kwargs}
        for name, hint in _hints(function).items():
            if name in given and (reason := misfit(name, given[name], hint)) is not None:
                raise TinvError(reason)
        return function(*args, **kwargs)

    return call  # type: ignore[return-value]


@functools.cache
def _hints(function: Callable[..., Any]) -> dict[str, Any]:
    """Returns the types of those arguments of a function that say a choice or a range."""
    try:
        found = get_type_hints(function)
    except NameError:  # a type that is imported for type checkers alone
        return {}
    return {name: hint for name, hint in found.items() if _is_restricted(hint)}


def _is_restricted(hint: Any) -> bool:
    if get_origin(hint) is Literal:
        return True
    parts = (part for part in get_args(hint) if not isinstance(part, list))  # the arguments of a Callable
    return hint in RANGES or any(map(_is_restricted, parts))
