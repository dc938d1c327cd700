"""What a sweep file says: which configuration, which keys are varied, over what, and which cells are impossible."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from pathlib import Path
from typing import Any, Literal, cast, get_args

import yaml

from tinv import yaml_files
from tinv.errors import TinvError, nearest, unknown
from tinv.nested import flatten, lay_over
from tinv.runs import options

Method = Literal["grid", "random", "bayes"]

ARGS = "${args}"

WANDB_KEYS = (
    "name", "description", "project", "entity", "program", "method", "metric", "parameters", "command", "run_cap",
    "early_terminate",
)  # fmt: skip
OWN_KEYS = ("exclude", "seed")
DISTRIBUTIONS = (
    "constant", "categorical", "int_uniform", "uniform", "q_uniform", "log_uniform_values", "q_log_uniform_values",
)  # fmt: skip


@dataclass(frozen=True)
class Choice:
    """A key that takes each of some values."""

    values: tuple[Any, ...]


@dataclass(frozen=True)
class Range:
    """A key that takes any number from `low` to `high`, both included.

    Attributes:
        step: between the numbers that count, None for all.
        log: whether equal ratios are equally likely, not equal differences.
        whole: whether only whole numbers count.
    """

    low: float
    high: float
    step: float | None = None
    log: bool = False
    whole: bool = False


@dataclass(frozen=True)
class Exclusion:
    """Cells that cannot be: those whose keys all have one of the values named."""

    reason: str
    when: dict[str, tuple[Any, ...]]

    def holds(self, settings: Mapping[str, Any]) -> bool:
        """Returns whether a cell is meant."""
        return all(settings.get(key) in values for key, values in self.when.items())


@dataclass(frozen=True)
class Sweep:
    """A sweep file, checked.

    Attributes:
        path: of the file.
        name: of the sweep.
        method: how cells are chosen.
        words: options of every run, its configuration files among them.
        parameters: what is varied, by dotted key.
        exclude: rules for impossible cells.
        metric: the metric that `bayes` looks at, and whether it is made small or large.
        count: how many cells `random` and `bayes` run (`run_cap`).
        seed: of the choice of cells by `random` and `bayes`.
        early_terminate: whether W&B agents are to end poor cells early, which `tinv sweep` does not.
    """

    path: Path
    name: str
    method: Method
    words: tuple[str, ...]
    parameters: dict[str, Choice | Range]
    exclude: tuple[Exclusion, ...] = ()
    metric: tuple[str, Literal["minimize", "maximize"]] | None = None
    count: int | None = None
    seed: int = 0
    early_terminate: bool = False

    def excluded(self, settings: Mapping[str, Any]) -> str | None:
        """Returns why a cell is impossible, None if it is not."""
        return next((rule.reason for rule in self.exclude if rule.holds(settings)), None)

    def grid(self) -> Iterator[dict[str, Any]]:
        """Yields the settings of every cell of a grid, the last key fastest."""
        keys = list(self.parameters)
        for values in product(*(_all_values(key, p) for key, p in self.parameters.items())):
            yield dict(zip(keys, values, strict=True))

    @property
    def size(self) -> int:
        """The number of cells of a grid, excluded ones among them."""
        return prod(_count(key, p) for key, p in self.parameters.items())


def read_sweep(path: Path) -> Sweep:
    """Reads a sweep file.

    Raises:
        TinvError: naming the file and the key (for malformed YAML, line and column) of what is wrong.
    """
    if not path.is_file():
        found = options.find_shipped(path, "sweeps")
        if found is None:
            shipped = [f"sweeps/{p.name}" for p in options.sweep_files()]
            raise TinvError(f"no sweep file {path}{nearest(str(path), shipped)}")
        path = found
    content = options.read_yaml(path)
    try:
        return _sweep(path, content)
    except TinvError as error:
        raise error if str(error).startswith(str(path)) else TinvError(f"{path}: {error}") from error


def _sweep(path: Path, content: dict[str, Any]) -> Sweep:
    for key in content:
        if key not in (*WANDB_KEYS, *OWN_KEYS):
            raise unknown("key", key, (*WANDB_KEYS, *OWN_KEYS))
    if isinstance(parameters := content.get("parameters"), dict) and isinstance(parameters.get("wandb"), dict):
        # YAML reads off as false
        off = {key: [_named(v) for v in value] if isinstance(value, list) else _named(value)
               for key, value in parameters["wandb"].items()}  # fmt: skip
        content = {**content, "parameters": {**parameters, "wandb": off}}
    method = content.get("method")
    if method not in get_args(Method):
        raise unknown("method", method, get_args(Method))
    parameters = content.get("parameters")
    if not isinstance(parameters, dict) or not parameters:
        raise TinvError("parameters: names no key to vary")
    read = {str(key): _parameter(str(key), value) for key, value in parameters.items()}
    words = _words(content.get("command"))
    metric = content.get("metric")
    if metric is not None and (not isinstance(metric, dict) or not isinstance(metric.get("name"), str)):
        raise TinvError("metric: needs a `name`, such as test/mcs, and a `goal`")
    goal = (metric or {}).get("goal", "minimize")
    if goal not in ("minimize", "maximize"):
        raise unknown("metric.goal", goal, ("minimize", "maximize"))
    if method == "bayes" and metric is None:
        raise TinvError("method bayes needs a metric: {name: test/mcs, goal: maximize}")
    count = content.get("run_cap")
    if count is not None and (not isinstance(count, int) or isinstance(count, bool) or not 1 <= count <= MOST_CELLS):
        raise TinvError(f"run_cap: {count!r} is not a number of runs from 1 to {MOST_CELLS}")
    sweep = Sweep(
        path=path,
        name=str(content.get("name", path.stem)),
        method=cast(Method, method),
        words=words,
        parameters=read,
        exclude=tuple(_exclusion(rule, read) for rule in content.get("exclude") or ()),
        metric=(metric["name"], goal) if metric else None,
        count=count,
        seed=_seed(content.get("seed", 0)),
        early_terminate=content.get("early_terminate") is not None,
    )
    _check_keys(sweep)
    _check_size(sweep)
    return sweep


def _named(value: Any) -> Any:
    return "off" if value is False else value


def _seed(value: Any) -> int:
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value < 2**32:
        raise TinvError(f"seed: {value!r} is no integer from 0 to {2**32 - 1}")
    return value


def _words(command: Any) -> tuple[str, ...]:
    example = f"command: [tinv, fit, --config, configs/X.yaml, {ARGS!r}]"
    if not isinstance(command, list) or not all(isinstance(word, str | int | float) for word in command):
        raise TinvError(f"command: is missing or no list; write {example}")
    words = [str(word) for word in command]
    if ARGS not in words or "fit" not in words or "tinv" not in words[: words.index("fit")]:
        raise TinvError(f"command: must run `tinv fit` and hold {ARGS}; write {example}")
    begin = words.index("fit") + 1
    own = [word for word in words[begin:] if word != ARGS]
    if any("${" in word for word in own):
        raise TinvError(f"command: {ARGS} is the only macro that can follow `tinv fit`; write {example}")
    for name, value, _ in options.option_pairs(own):
        if name == "config" and value:
            options.find_config(value)
    return tuple(own)


def _parameter(key: str, spec: Any) -> Choice | Range:
    where = f"parameters.{key}"
    if not isinstance(spec, dict):
        raise TinvError(f"{where}: is not a mapping; write `{key}: {{values: [...]}}`")
    if unknown_keys := set(spec) - {"parameters", "value", "values", "min", "max", "distribution", "q"}:
        raise TinvError(f"{where}: {unknown('key', unknown_keys.pop(), ('value', 'values', 'min', 'max', 'q'))}")
    if "parameters" in spec:
        raise TinvError(f"{where}: parameters in parameters repeat cells under W&B; write flat keys with dots")
    if "value" in spec:
        return Choice((spec["value"],))
    if "values" in spec:
        values = spec["values"]
        if not isinstance(values, list) or not values:
            raise TinvError(f"{where}.values: names no value, so the grid is empty")
        if repeated := [v for number, v in enumerate(values) if v in values[:number]]:
            raise TinvError(f"{where}.values: {repeated[0]!r} stands there twice")
        return Choice(tuple(values))
    low: Any = spec.get("min")
    high: Any = spec.get("max")
    if not all(isinstance(n, int | float) and not isinstance(n, bool) for n in (low, high)):
        raise TinvError(f"{where}: needs `value`, `values`, or numbers `min` and `max`")
    if not low < high:
        raise TinvError(f"{where}: min {low} is not below max {high}")
    whole = isinstance(low, int) and isinstance(high, int)
    kind = spec.get("distribution", "int_uniform" if whole else "uniform")
    if kind not in DISTRIBUTIONS[2:]:
        raise TinvError(f"{where}: {unknown('distribution', kind, DISTRIBUTIONS)}")
    step: Any = spec.get("q", 1 if kind == "int_uniform" else None)
    if kind.startswith("q_") and step is None:
        step = 1
    log = "log" in kind
    if log and low <= 0:
        raise TinvError(f"{where}: a logarithmic distribution needs min above 0")
    if log and step is not None and step != 1:
        raise TinvError(f"{where}: q other than 1 does not go with a logarithmic distribution")
    all_whole = whole and (step is None or isinstance(step, int)) and kind != "uniform"
    if kind == "q_log_uniform_values" and not all_whole:
        raise TinvError(f"{where}: q_log_uniform_values is for whole numbers; use log_uniform_values")
    return Range(low, high, step, log, whole=all_whole)


def _exclusion(rule: Any, parameters: Mapping[str, Any]) -> Exclusion:
    if not isinstance(rule, dict) or not isinstance(rule.get("reason"), str) or len(rule) < 2:
        raise TinvError("exclude: a rule is a `reason` and one or more keys with the values that cannot be together")
    when = {}
    for key, values in rule.items():
        if key == "reason":
            continue
        if key not in parameters:
            raise TinvError(f"exclude: {unknown('key', key, parameters)}")
        when[key] = tuple(values) if isinstance(values, list) else (values,)
    return Exclusion(rule["reason"], when)


def _check_keys(sweep: Sweep) -> None:
    """Raises TinvError for a key that no configuration has, or a value that a look at the source code rules out."""
    for key, parameter in sweep.parameters.items():
        if key in ("config", "run_dir", "runs", "ckpt_path"):
            raise TinvError(f"parameters.{key}: cannot be varied; the sweep itself sets it")
        values = parameter.values if isinstance(parameter, Choice) else (parameter.low,)
        # a name can be wrong by itself; of numbers the first shows that the key is right
        for value in [values[0], *(value for value in values[1:] if isinstance(value, str))]:
            try:
                options.check([*sweep.words, f"--{key}={written(value)}"])
            except TinvError as error:
                raise TinvError(f"parameters.{key}: {error}") from error


MOST_CELLS = 100_000
"""A grid of more cells is a mistake; each is a training."""


def _count(key: str, parameter: Choice | Range) -> int:
    """Returns how many values a key takes, without a list of them."""
    values = _all_values(key, parameter)
    # len() of a range is at most what an index can be
    return max(0, -(-(values.stop - values.start) // values.step)) if isinstance(values, range) else len(values)


def _check_size(sweep: Sweep) -> None:
    """Raises TinvError for a grid with more cells than anyone trains."""
    if sweep.method == "grid" and sweep.size > MOST_CELLS:
        counts = ", ".join(f"{key} {_count(key, p)}" for key, p in sweep.parameters.items())
        raise TinvError(f"the grid has {sweep.size} cells, more than {MOST_CELLS} ({counts}); vary less, or use random")


def _all_values(key: str, parameter: Choice | Range) -> Sequence[Any]:
    if isinstance(parameter, Choice):
        return parameter.values
    if parameter.whole and not parameter.log:
        return range(int(parameter.low), int(parameter.high) + 1, int(parameter.step or 1))
    raise TinvError(f"parameters.{key}: a grid needs `values`; for a range use method random or bayes")


def written(value: Any) -> str:
    """Returns a value as an option of the command line takes it."""
    if isinstance(value, str):
        return value
    return yaml_files.dump(value, default_flow_style=True, width=10**6).removesuffix("\n").removesuffix("\n...")


def option_words(settings: Mapping[str, Any]) -> list[str]:
    """Returns settings as options: `--seed_everything=3`."""
    return [f"--{key}={written(value)}" for key, value in settings.items()]


def base_settings(words: Sequence[str]) -> dict[str, Any]:
    """Returns the dotted keys and values that options and the configuration files they name come to."""
    merged: dict[str, Any] = {}
    overrides: dict[str, Any] = {}
    for name, value, _ in options.option_pairs(list(words)):
        if name == "config" and value:
            merged = lay_over(merged, options.read_yaml(options.find_config(value)))
        else:
            overrides[name] = value
    flat = dict(flatten(merged))
    for key, value in overrides.items():
        override(flat, key, True if value is None else value)
    return flat


def override(flat: dict[str, Any], key: str, value: Any) -> None:
    """Sets a dotted key; a string is read as the command line reads it, and a mapping replaces what stood there."""
    if isinstance(value, str):
        value = _read_value(value)
    if key not in flat:
        for longer in [k for k in flat if k.startswith(f"{key}.")]:
            del flat[longer]
    if isinstance(value, dict) and value:
        flat.pop(key, None)
        flat.update(flatten(value, f"{key}."))
    else:
        flat[key] = value


_READ: dict[str, Any] = {}


def _read_value(text: str) -> Any:
    if text not in _READ:
        try:
            _READ[text] = yaml_files.parse(text)
        except (yaml.YAMLError, ValueError, TinvError):
            _READ[text] = text
    return _READ[text]
