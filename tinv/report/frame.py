"""Finished runs as a table that pandas holds: a row a run, a column a key of its configuration or a number."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tinv.report.collect import collect, settings_of

if TYPE_CHECKING:
    import pandas


def load_runs(folders: str | Path | Sequence[str | Path]) -> pandas.DataFrame:
    """Returns the runs of `tinv fit` below some folders.

    Args:
        folders: One, or several.

    Returns:
        A row a run. Columns: `experiment`, `status`, `seed`, `duration_s` (seconds), `path`; those keys of the
        configurations in which the runs differ, without such that only say where and on what machine a run ran; and
        each metric of `results.json` that is finite under its name.

    Raises:
        TinvError: If a folder is not there, or holds no run.
    """
    import pandas

    names = [folders] if isinstance(folders, (str, Path)) else list(folders)
    found = []
    settings = []
    for experiment, groups in collect(Path(name) for name in names).items():
        for run in (run for group in groups for run in group.runs):
            told = {key: getattr(run, key) for key in ("status", "seed", "duration_s")}
            found.append({"experiment": experiment, **told, "path": str(run.path), **run.metrics})
            settings.append(settings_of(run.config))
    keys = dict.fromkeys(key for setting in settings for key in setting)
    varied = [key for key in keys if len({repr(setting.get(key)) for setting in settings}) > 1 and key != "experiment"]
    frame = pandas.DataFrame(found)
    for place, key in enumerate(varied):
        frame.insert(3 + place, key, [setting.get(key) for setting in settings])
    return frame
