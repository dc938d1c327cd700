"""Which keys of a configuration say what a run is, and which only where it is kept and on what machine it ran."""

from __future__ import annotations

from typing import Any

LOCATION_KEYS = ("run_dir", "runs", "ckpt_path", "config", "untrained", "wandb")
"""Top-level keys that say where a run is kept or begun."""

_OF_DATA = (
    *("root", "cache_dir", "num_workers", "workers", "download"),
    *("pin_memory", "persistent_workers", "prefetch_factor"),
)
_OF_TRAINER = (
    *("devices", "accelerator", "strategy", "num_nodes", "precision"),
    *("default_root_dir", "enable_progress_bar", "enable_model_summary", "log_every_n_steps", "logger"),
    *("profiler", "detect_anomaly", "barebones", "plugins", "sync_batchnorm"),
    "use_distributed_sampler",
)
MACHINE_KEYS = frozenset((*(f"data.init_args.{key}" for key in _OF_DATA), *(f"trainer.{key}" for key in _OF_TRAINER)))
"""Dotted keys that say on what machine and how fast a run ran; a key below one of them is one too."""

PRECISION = "trainer.precision"
"""A key of the machine that changes numbers a little; a table names it where runs differ in it."""


LATER_KEYS = {"model.init_args.activation": "keep", "model.init_args.tokens": "keep"}
"""Keys that configurations of earlier versions lack, with what those did."""

LATER_METRIC_ARGUMENTS: dict[str, dict[str, Any]] = {
    "MeanCosineSimilarity": {"top_k": None},
    "ShiftConsistency": {"border": 0, "against": "view", "shifts": None},
    "TranslationSensitivityMap": {"skip_proven": True, "seed": 0},
    "ClipShiftMap": {"seed": 0},
}
"""The same of the arguments of metrics, by the names of their classes."""


def with_later_keys(settings: dict[str, Any]) -> dict[str, Any]:
    """Returns the dotted keys of a configuration, with those that earlier versions did not have."""
    metrics = settings.get("model.init_args.metrics")
    if isinstance(metrics, list):
        settings = {**settings, "model.init_args.metrics": [_with_later_arguments(metric) for metric in metrics]}
    if not any(key.startswith("model.init_args.padding") for key in settings):
        return settings  # a task of the user's own
    later = {
        key: value for key, value in LATER_KEYS.items() if not any(f"{own}.".startswith(f"{key}.") for own in settings)
    }
    return {**settings, **later}


def _with_later_arguments(metric: Any) -> Any:
    """Returns a metric of a configuration with the arguments that earlier versions did not have, keys in order."""
    if not isinstance(metric, dict) or not isinstance(metric.get("init_args"), dict):
        return metric
    later = LATER_METRIC_ARGUMENTS.get(str(metric.get("class_path")).rpartition(".")[2], {})
    return {**metric, "init_args": dict(sorted({**later, **metric["init_args"]}.items()))}


def is_machine_key(key: str) -> bool:
    """Returns whether a dotted key says on what machine a run ran, not what it is."""
    parts = key.split(".")
    return any(".".join(parts[:end]) in MACHINE_KEYS for end in range(1, len(parts) + 1))


def may_change_numbers(key: str) -> bool:
    """Returns whether a run that is resumed with another value of a dotted key could get other numbers."""
    parts = key.split(".")
    parallel = ("devices", "num_nodes", "strategy", "accelerator", "precision", "sync_batchnorm", "plugins")
    return not is_machine_key(key) or (parts[0] == "trainer" and parts[1] in parallel)


def without_location(config: dict[str, Any]) -> dict[str, Any]:
    """Returns a configuration without the keys that only say where the run is kept."""
    return {key: value for key, value in config.items() if key not in LOCATION_KEYS}


def is_identity(key: str) -> bool:
    """Returns whether a dotted key is part of what a run is, but for its seed."""
    head = key.partition(".")[0]
    return head not in (*LOCATION_KEYS, "seed_everything") and not is_machine_key(key)
