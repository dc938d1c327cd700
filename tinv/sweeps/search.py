"""Which cells `random` and `bayes` choose, by Optuna."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping
from typing import Any

from tinv.errors import TinvError
from tinv.sweeps.sweepfile import Choice, Sweep


class Search:
    """Chooses settings one after the other; the same seed and the same answers give the same choices.

    Args:
        sweep: of method random or bayes.
    """

    def __init__(self, sweep: Sweep) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        warnings.filterwarnings("ignore", message="Choices for a categorical distribution")
        self.sweep = sweep
        self.space = {key: self._distribution(key) for key in sweep.parameters}
        goal = sweep.metric[1] if sweep.metric else "minimize"
        if sweep.method == "random":
            sampler: Any = optuna.samplers.RandomSampler(seed=sweep.seed)
        else:
            # cells that still run count as poor ones, so that jobs side by side do not all try the same place
            sampler = optuna.samplers.TPESampler(seed=sweep.seed, multivariate=True, constant_liar=True)
        self.study = optuna.create_study(direction=goal, sampler=sampler)

    def _distribution(self, key: str) -> Any:
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        parameter = self.sweep.parameters[key]
        if isinstance(parameter, Choice):
            # Optuna's categories are plain values; others are chosen by their number
            return CategoricalDistribution(tuple(range(len(parameter.values))))
        if parameter.whole:
            return IntDistribution(
                int(parameter.low), int(parameter.high), log=parameter.log, step=int(parameter.step or 1)
            )
        return FloatDistribution(parameter.low, parameter.high, log=parameter.log, step=parameter.step)

    def ask(self) -> tuple[dict[str, Any], Any]:
        """Returns the next settings, and what `tell` wants of them."""
        trial = self.study.ask(self.space)
        settings = {}
        for key, parameter in self.sweep.parameters.items():
            value = trial.params[key]
            settings[key] = parameter.values[value] if isinstance(parameter, Choice) else value
        return settings, trial

    def known(self, settings: Mapping[str, Any], value: float | None) -> Any:
        """Takes up a cell of an earlier session; returns what `tell` wants of it if its value is still to come."""
        import optuna

        params = {}
        for key, parameter in self.sweep.parameters.items():
            chosen = settings[key]
            params[key] = parameter.values.index(chosen) if isinstance(parameter, Choice) else chosen
        if value is None:
            self.study.enqueue_trial(params)
            return self.study.ask(self.space)
        complete = optuna.trial.create_trial(params=params, distributions=self.space, value=value)
        self.study.add_trial(complete)
        return None

    def tell(self, trial: Any, value: float | None) -> None:
        """Says what a cell came to; None if it failed."""
        import optuna

        if value is None:
            self.study.tell(trial, state=optuna.trial.TrialState.FAIL)
        else:
            self.study.tell(trial, value)


def random_settings(sweep: Sweep) -> list[dict[str, Any]]:
    """Returns the settings of a random sweep's cells, the same for the same seed; a repeated draw is left out."""
    if sweep.count is None:
        raise TinvError(f"{sweep.path}: method random needs run_cap, the number of cells")
    search = Search(sweep)
    drawn = (search.ask()[0] for _ in range(sweep.count))
    return list({json.dumps(settings, sort_keys=True, default=str): settings for settings in drawn}.values())
