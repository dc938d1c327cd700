"""Which trials `random` and `bayes` choose, by Optuna."""

from __future__ import annotations

import json
import sys
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

from tinv.errors import TinvError
from tinv.runs.results import RunResult
from tinv.sweeps.ledger import Entry, Ledger
from tinv.sweeps.schema import Choice, Sweep
from tinv.sweeps.trials import Trial, TrialFactory


class Search:
    """Chooses settings one after the other; the same seed and the same answers give the same choices.

    Args:
        sweep: Sweep of method random or bayes.
    """

    def __init__(self, sweep: Sweep) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.WARNING)
        warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
        warnings.filterwarnings("ignore", message="Choices for a categorical distribution")
        self.sweep = sweep
        self.space = {key: self._distribution(key) for key in sweep.parameters}
        goal: Any = sweep.metric.goal if sweep.metric else "minimize"
        if sweep.method == "random":
            sampler: Any = optuna.samplers.RandomSampler(seed=sweep.seed)
        else:
            # trials that still run count as poor ones, so that jobs side by side do not all try the same place
            sampler = optuna.samplers.TPESampler(seed=sweep.seed, multivariate=True, constant_liar=True)
        self.study = optuna.create_study(direction=goal, sampler=sampler)

    def _distribution(self, key: str) -> Any:
        from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

        parameter = self.sweep.parameters[key]
        if isinstance(parameter, Choice):
            # Optuna's categories are plain values; others are given by their number
            return CategoricalDistribution(tuple(range(len(parameter.values))))
        if parameter.integer:
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
        """Takes up a trial of an earlier session; returns what `tell` wants of it if its value is still to come."""
        import optuna

        params = {}
        for key, parameter in self.sweep.parameters.items():
            given = settings[key]
            params[key] = parameter.values.index(given) if isinstance(parameter, Choice) else given
        if value is None:
            self.study.enqueue_trial(params)
            return self.study.ask(self.space)
        complete = optuna.trial.create_trial(params=params, distributions=self.space, value=value)
        self.study.add_trial(complete)
        return None

    def tell(self, trial: Any, value: float | None) -> None:
        """Says what a trial came to; None if it failed."""
        import optuna

        if value is None:
            self.study.tell(trial, state=optuna.trial.TrialState.FAIL)
        else:
            self.study.tell(trial, value)


def random_settings(sweep: Sweep) -> list[dict[str, Any]]:
    """Returns the settings of a random sweep's trials, the same for the same seed; a repeated draw is left out."""
    if sweep.count is None:
        raise TinvError(f"{sweep.path}: method random needs run_cap, the number of trials")
    search = Search(sweep)
    drawn = (search.ask()[0] for _ in range(sweep.count))
    return list({json.dumps(settings, sort_keys=True, default=str): settings for settings in drawn}.values())


class BayesSource:
    """Trials of a bayes sweep: those begun before, then as many new ones as are still missing.

    Args:
        plan: The sweep.
        make: Makes a trial of settings.
        ledger: Opened.
        todo: Trials of an earlier session that are not done.
    """

    def __init__(self, plan: Sweep, make: TrialFactory, ledger: Ledger, todo: Sequence[Trial]) -> None:
        assert plan.metric is not None
        assert plan.count is not None
        self.plan, self.make, self.ledger, self.metric = plan, make, ledger, plan.metric.name
        self.search = Search(plan)
        self.todo = list(todo)
        self.pending: dict[str, Any] = {}
        self.repeats = 0
        for trial in [make(entry.settings) for entry in ledger.entries.values()]:
            value = self._value(trial)
            self.pending[trial.id] = self.search.known(trial.settings, value)

    def _value(self, trial: Trial) -> float | None:
        """Returns what a trial came to; None if it has not finished, or the metric is not defined for it.

        Raises:
            TinvError: If it has finished, and neither it nor any other trial gives the metric.
        """
        if self.ledger[trial].status != "finished":
            return None
        metrics = self._metrics(self.ledger[trial])
        if self.metric in metrics:
            return metrics[self.metric]
        others = (entry for entry in self.ledger.entries.values() if entry.status == "finished")
        if not any(self.metric in self._metrics(entry) for entry in others):
            raise TinvError(
                f"{self.plan.path}: metric.name: no run gives {self.metric}; they give {', '.join(metrics)}"
            )
        print(f"note: {self.metric} is not defined for {trial.title}, which tells the search nothing", file=sys.stderr)
        return None

    def _metrics(self, entry: Entry) -> dict[str, float]:
        found = RunResult.read_if_there(self.ledger.folder / "cells" / entry.name / "results.json")
        return found.metrics if found else {}

    def take(self) -> Trial | None:
        if self.todo:
            return self.todo.pop(0)
        while len(self.ledger.entries) < (self.plan.count or 0):
            settings, proposal = self.search.ask()
            trial = self.make(settings)
            if trial.id in self.ledger.entries:
                # asked for again: its value is known, or is on its way
                self.search.tell(proposal, self._value(trial))
                self.repeats += 1
                if self.repeats > 1000:
                    return None  # a small space is used up
                continue
            self.ledger.open([trial], {})
            self.pending[trial.id] = proposal
            return trial
        return None

    def ended(self, trial: Trial, results: RunResult | None) -> None:
        proposal = self.pending.pop(trial.id, None)
        if proposal is not None:
            self.search.tell(proposal, self._value(trial) if results else None)
