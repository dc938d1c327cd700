"""What all policies have in common: they compare by their parameters, and one of a user's own is made by class path."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

from tinv.errors import TinvError, unknown

P = TypeVar("P")


class Policy:
    """Base of policies: two of one class and with the same attributes are equal."""

    @property
    def name(self) -> str:
        """The word for it in configurations and tables."""
        return type(self).__name__

    def __str__(self) -> str:
        return self.name

    def __eq__(self, other: object) -> bool:
        return type(self) is type(other) and vars(self) == vars(other)

    def __hash__(self) -> int:
        return hash((type(self), repr(sorted(vars(self).items()))))

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(f'{key}={value!r}' for key, value in vars(self).items())})"


def made_of(given: Any, kind: type[P], what: str, names: Sequence[str]) -> P:
    """Returns a policy that is given as an object, a dotted path of a class, or a mapping as in a configuration.

    Args:
        given: The policy; a mapping has `class_path` and, if the class takes arguments, `init_args`.
        kind: Base class of the policy.
        what: Name of the option, for messages.
        names: Words that the option takes besides.

    Raises:
        TinvError: If it is none of these, naming the option.
    """
    if isinstance(given, kind):
        return given
    path, args = given, {}
    if isinstance(given, Mapping):
        path, args = given.get("class_path"), dict(given.get("init_args") or {})
    if not isinstance(path, str) or "." not in path:
        raise unknown(what, str(path), names)
    module, _, name = path.rpartition(".")
    try:
        made: Any = getattr(importlib.import_module(module), name)(**args)
    except (ImportError, AttributeError, TypeError, ValueError) as error:
        raise TinvError(f"{what}: {path} cannot be made ({error})") from error
    if not isinstance(made, kind):
        raise TinvError(f"{what}: {path} is no {kind.__name__}")
    return made
