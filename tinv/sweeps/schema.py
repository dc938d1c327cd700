"""What a sweep file says: which configuration, which keys are varied, over what, and which trials are impossible."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from math import prod
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from tinv.config import options, yaml_files
from tinv.config.files import find_file
from tinv.config.merge import new_option, read_command_line, to_cli
from tinv.errors import TinvError, unknown

Method = Literal["grid", "random", "bayes"]
Distribution = Literal[
    "constant", "categorical", "int_uniform", "uniform", "q_uniform", "log_uniform_values", "q_log_uniform_values"
]
Number = Annotated[int, Field(strict=True)] | Annotated[float, Field(strict=True)]

ARGS = "${args}"
EXAMPLE = f"command: [tinv, fit, --config, configs/X.yaml, {ARGS!r}]"

MAX_TRIALS = 100_000
"""A grid of more trials is a mistake; each is a training."""


@dataclass(frozen=True)
class Choice:
    """A key that takes each of some values."""

    values: tuple[Any, ...]


@dataclass(frozen=True)
class Range:
    """A key that takes any number from `low` to `high`, both included.

    Attributes:
        low: Smallest number.
        high: Largest number.
        step: Distance between the numbers that count, None for all.
        log: Whether equal ratios are equally likely, not equal differences.
        integer: Whether only integers count.
    """

    low: float
    high: float
    step: float | None = None
    log: bool = False
    integer: bool = False


class _Parameter(BaseModel):
    """One entry of `parameters`, as W&B writes it."""

    model_config = ConfigDict(extra="forbid")
    value: Any = None
    values: list[Any] | None = None
    min: Number | None = None
    max: Number | None = None
    distribution: Distribution | None = None
    q: Number | None = None

    @model_validator(mode="before")
    @classmethod
    def is_flat(cls, spec: Any) -> Any:
        """Refuses what W&B takes and repeats trials for, and what is no mapping."""
        if not isinstance(spec, dict):
            raise TinvError("is not a mapping; write {values: [...]}")
        if "parameters" in spec:
            raise TinvError("parameters in parameters repeat trials under W&B; write flat keys with dots")
        return spec

    def read(self) -> Choice | Range:
        """Returns what the entry says.

        Raises:
            TinvError: If it says nothing, or what cannot be.
        """
        if "value" in self.model_fields_set:
            return Choice((self.value,))
        if self.values is None:
            return self._range()
        if not self.values:
            raise TinvError("values: names no value, so the grid is empty")
        if repeated := [v for number, v in enumerate(self.values) if v in self.values[:number]]:
            raise TinvError(f"values: {repeated[0]!r} is duplicated")
        return Choice(tuple(self.values))

    def _range(self) -> Range:
        low, high, step = self.min, self.max, self.q
        if low is None or high is None:
            raise TinvError("needs `value`, `values`, or numbers `min` and `max`")
        if not all(map(math.isfinite, (low, high, step or 1))):
            raise TinvError(f"min {low}, max {high} and q {step} are not all finite numbers")
        if not low < high:
            raise TinvError(f"min {low} is not below max {high}")
        integers = isinstance(low, int) and isinstance(high, int)
        if step is not None and step <= 0:
            raise TinvError(f"q {step} is not above 0")
        kind = self.distribution or ("int_uniform" if integers else "uniform")
        if kind in ("constant", "categorical"):
            raise TinvError(f"distribution {kind} takes `value` or `values`, not min and max")
        if step is None and (kind == "int_uniform" or kind.startswith("q_")):
            step = 1
        log = "log" in kind
        if log and low <= 0:
            raise TinvError("a logarithmic distribution needs min above 0")
        if log and step not in (None, 1):
            raise TinvError("q other than 1 does not go with a logarithmic distribution")
        integers = integers and (step is None or isinstance(step, int)) and kind != "uniform"
        if kind == "q_log_uniform_values" and not integers:
            raise TinvError("q_log_uniform_values is for integers; use log_uniform_values")
        return Range(low, high, step, log, integers)


class Objective(BaseModel):
    """The metric that `bayes` looks at, and whether it is made small or large."""

    model_config = ConfigDict(extra="forbid")
    name: str
    goal: Literal["minimize", "maximize"] = "minimize"


class Exclusion(BaseModel):
    """Trials that cannot be: those whose keys all have one of the values named."""

    model_config = ConfigDict(extra="allow")
    reason: str

    @property
    def when(self) -> dict[str, Sequence[Any]]:
        """The values of each key that cannot be together."""
        return {key: v if isinstance(v, list | tuple) else (v,) for key, v in (self.model_extra or {}).items()}

    def holds(self, settings: Mapping[str, Any]) -> bool:
        """Returns whether a trial is meant."""
        return all(settings.get(key) in values for key, values in self.when.items())


class Sweep(BaseModel):
    """A sweep file, checked. Field names are the keys of W&B's sweep configuration, but for `exclude` and `seed`."""

    model_config = ConfigDict(extra="forbid")
    path: Path = Field(exclude=True)
    name: str = ""
    description: Any = None
    project: Any = None
    entity: Any = None
    program: Any = None
    method: Method
    command: Any = None
    parameters: dict[str, Any] = Field({}, description="a mapping of keys to what they take")
    metric: Objective | None = Field(None, description="a `name`, such as test/mcs, and a `goal`")
    count: int | None = Field(
        None, alias="run_cap", strict=True, ge=1, le=MAX_TRIALS, description=f"a number of runs from 1 to {MAX_TRIALS}"
    )
    early_terminate: Any = None
    exclude: list[Exclusion] = Field([], description="a list of rules: a `reason`, and keys with their values")
    seed: int = Field(0, strict=True, ge=0, lt=2**32, description=f"an integer from 0 to {2**32 - 1}")

    @cached_property
    def words(self) -> tuple[str, ...]:
        """Options of every run, its configuration files among them, out of the command that W&B agents run."""
        if not isinstance(self.command, list) or not all(isinstance(word, str | int | float) for word in self.command):
            raise TinvError(f"command: is missing or no list; write {EXAMPLE}")
        words = [str(word) for word in self.command]
        if ARGS not in words or "fit" not in words or "tinv" not in words[: words.index("fit")]:
            raise TinvError(f"command: must run `tinv fit` and hold {ARGS}; write {EXAMPLE}")
        own = [word for word in words[words.index("fit") + 1 :] if word != ARGS]
        if any("${" in word for word in own):
            raise TinvError(f"command: {ARGS} is the only macro that can follow `tinv fit`; write {EXAMPLE}")
        return tuple(own)

    def excluded(self, settings: Mapping[str, Any]) -> str | None:
        """Returns why a trial is impossible, None if it is not."""
        return next((rule.reason for rule in self.exclude if rule.holds(settings)), None)

    def grid(self) -> Iterator[dict[str, Any]]:
        """Yields the settings of every trial of a grid, the last key fastest."""
        keys = list(self.parameters)
        for values in product(*(_all_values(key, p) for key, p in self.parameters.items())):
            yield dict(zip(keys, values, strict=True))

    @property
    def size(self) -> int:
        """The number of trials of a grid, excluded ones among them."""
        return prod(_count(_all_values(key, p)) for key, p in self.parameters.items())

    def model_post_init(self, context: Any) -> None:
        """Reads the parameters, and checks what keys say together."""
        self.name = self.name or self.path.stem
        if not self.parameters:
            raise TinvError("parameters: names no key to vary")
        known = read_command_line(self.words).flat
        names = {str(key): new_option(str(key), None, known)[0] for key in self.parameters}
        self.parameters = {names[str(key)]: _parameter(names[str(key)], spec) for key, spec in self.parameters.items()}
        self.exclude = [
            Exclusion(reason=rule.reason, **{names.get(key, key): values for key, values in rule.when.items()})
            for rule in self.exclude
        ]
        if self.method == "bayes" and self.metric is None:
            raise TinvError("method bayes needs a metric: {name: test/mcs, goal: maximize}")
        for rule in self.exclude:
            if not rule.when:
                raise TinvError(f"exclude: the rule {rule.reason!r} names no key")
            for key in rule.when:
                if key not in self.parameters:
                    raise TinvError(f"exclude: {unknown('key', key, self.parameters)}")
        for key, parameter in self.parameters.items():
            self._check_key(key, parameter)
        if self.method == "grid" and self.size > MAX_TRIALS:
            counts = ", ".join(f"{key} {_count(_all_values(key, p))}" for key, p in self.parameters.items())
            raise TinvError(
                f"the grid has {self.size} trials, more than {MAX_TRIALS} ({counts}); vary less, or use random"
            )

    def _check_key(self, key: str, parameter: Choice | Range) -> None:
        """Raises TinvError for a key that no configuration has, or a value that the quick check rules out."""
        if key in ("config", "run_dir", "runs", "ckpt_path"):
            raise TinvError(f"parameters.{key}: cannot be varied; the sweep itself sets it")
        values = parameter.values if isinstance(parameter, Choice) else (parameter.low,)
        # a name can be wrong by itself; numbers of a range are between the first and the last
        for value in [values[0], values[-1], *(value for value in values if isinstance(value, str))]:
            try:
                options.check([*self.words, f"--{key}={to_cli(value)}"])
            except TinvError as error:
                raise TinvError(f"parameters.{key}: {str(error).removeprefix(f'--{key}: ')}") from error


def _parameter(key: str, spec: Any) -> Choice | Range:
    try:
        read = _Parameter.model_validate(spec).read()
    except ValidationError as error:
        raise TinvError(_message(error, _Parameter, f"parameters.{key}")) from error
    except TinvError as error:
        raise TinvError(f"parameters.{key}: {error}") from error
    if key == "wandb" and isinstance(read, Choice):
        # YAML reads off as false
        return Choice(tuple("off" if value is False else value for value in read.values))
    return read


def _all_values(key: str, parameter: Choice | Range) -> Sequence[Any]:
    if isinstance(parameter, Choice):
        return parameter.values
    if parameter.integer and not parameter.log:
        return range(int(parameter.low), int(parameter.high) + 1, int(parameter.step or 1))
    raise TinvError(f"parameters.{key}: a grid needs `values`; for a range use method random or bayes")


def _count(values: Sequence[Any]) -> int:
    # len() of a range is at most what an index can be
    return max(0, -(-(values.stop - values.start) // values.step)) if isinstance(values, range) else len(values)


def read_sweep(path: Path) -> Sweep:
    """Reads a sweep file.

    Raises:
        TinvError: Naming the file and the key (for malformed YAML, line and column) of what is wrong.
    """
    path = find_file(path, "sweeps")
    content = yaml_files.read_mapping(path)
    try:
        for key in ("path", "count"):
            if key in content:
                raise unknown("key", key, _names(Sweep))
        return Sweep.model_validate({**content, "path": path})
    except ValidationError as error:
        raise TinvError(f"{path}: {_message(error, Sweep)}") from error
    except TinvError as error:
        raise error if str(error).startswith(str(path)) else TinvError(f"{path}: {error}") from error


def _names(model: type[BaseModel]) -> list[str]:
    return [field.alias or name for name, field in model.model_fields.items() if name != "path"]


def _message(error: ValidationError, model: type[BaseModel], where: str = "") -> str:
    """Returns the first thing that is wrong, with its key, on one line."""
    # a mistyped key is the reason where another one is missing
    first = min(error.errors(), key=lambda one: one["type"] != "extra_forbidden")
    parts = [str(part) for part in first["loc"]]
    key, prefix = ".".join(parts), f"{where}: " if where else ""
    if first["type"] == "extra_forbidden":
        return f"{prefix}{unknown('key', key, _names(model))}"
    if first["type"] == "literal_error":
        choices = re.findall(r"'(\w+)'", first["ctx"]["expected"])
        return f"{prefix}{unknown(key, first['input'], choices)}"
    field = next((f for name, f in model.model_fields.items() if parts and parts[0] in (name, f.alias)), None)
    if field is not None and field.description:
        given = f"{first['input']!r} is not" if len(parts) == 1 else "needs"
        return f"{prefix}{parts[0]}: {given} {field.description}"
    return f"{prefix}{key}: {first['msg']}"
