"""`tinv report`: reads results.json files, prints a table an experiment, draws what can be drawn."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from tinv.errors import TinvError
from tinv.report import pictures
from tinv.report.collect import collect
from tinv.report.published import source
from tinv.report.tables import print_cells


def report(words: Sequence[str]) -> int:
    """Runs `tinv report DIR... [--out DIR]` and returns the exit code."""
    parser = argparse.ArgumentParser(
        "tinv report", description="Mean and standard deviation over seeds of finished runs, beside published numbers."
    )
    parser.add_argument("folders", nargs="+", metavar="DIR", type=Path, help="folder of runs; looked through downwards")
    parser.add_argument("--out", type=Path, help="folder for pictures; the first DIR if left out")
    args = parser.parse_args(list(words))
    for name, cells in collect(args.folders).items():
        entry = cells[0].config.get("published")
        print_cells(name, cells, source(entry) if entry else None)
        figure = pictures.accuracy_bars(cells, name) or pictures.grid_maps(cells, name)
        if figure is None:
            continue
        out = args.out or args.folders[0]
        try:
            out.mkdir(parents=True, exist_ok=True)
            picture = pictures.save(figure, out / f"{name}.png")
        except OSError as error:
            raise TinvError(f"cannot write to {out} ({error.strerror}); choose another folder with --out") from error
        print(f"picture: {picture}")
    return 0
