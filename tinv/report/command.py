"""`tinv report`: reads results.json files, makes a table an experiment, draws what can be drawn."""

from __future__ import annotations

import argparse
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from tinv.errors import TinvError
from tinv.files import write_atomically
from tinv.report.collect import Cell, collect
from tinv.report.page import page
from tinv.report.pictures import pictures, save
from tinv.report.published import source
from tinv.report.shapes import shapes
from tinv.report.tables import comma_separated, latex, markdown, print_cells

ENDINGS = {"md": "md", "csv": "csv", "latex": "tex", "html": "html"}


def report(words: Sequence[str]) -> int:
    """Runs `tinv report DIR... [--format F] [--out PATH]` and returns the exit code."""
    parser = argparse.ArgumentParser(
        "tinv report",
        description="Mean and standard deviation over seeds of finished runs, beside published numbers, with pictures. "
        "Failed and missing cells are named.",
    )
    parser.add_argument("folders", nargs="+", metavar="DIR", type=Path, help="folder of runs; looked through downwards")
    parser.add_argument(
        "--format",
        choices=("table", *ENDINGS),
        default="table",
        help="table: in the terminal; md, csv, latex: on the standard output; html: one page with everything",
    )
    parser.add_argument(
        "--out", type=Path, metavar="PATH",
        help="folder for pictures and html page, or a file (.md, .csv, .tex, .html); the first DIR if left out",
    )  # fmt: skip
    args = parser.parse_args(list(words))
    experiments = collect(args.folders)
    file = args.out if args.out and args.out.suffix.lstrip(".") in ENDINGS.values() else None
    folder: Path = file.parent if file else args.out or args.folders[0]
    titles = {name: _title(name, cells) for name, cells in experiments.items()}
    remarks = {name: [str(shape) for shape in shapes(cells)] for name, cells in experiments.items()}
    if args.format == "html":
        file = file or folder / "report.html"
        figures = {name: pictures(cells, name) for name, cells in experiments.items()}
        _write(file, page(experiments, titles, remarks, figures))
        print(f"page: {file}")
        return 0
    if args.format == "table" and file is None:
        for name, cells in experiments.items():
            print_cells(titles[name], cells)
            print("".join(f"{line}\n" for line in remarks[name]), end="")
    else:
        text = _text(args.format, experiments, titles, remarks)
        if file is None:
            print(text, end="")
        else:
            _write(file, text)
            print(f"table: {file}")
    # beside a table on the standard output, which another program may read
    stream = sys.stdout if args.format == "table" else sys.stderr
    for name, cells in experiments.items():
        for kind, figure in pictures(cells, name).items():
            path = folder / f"{_file_name(name)}{f'_{kind}' if kind else ''}.png"
            try:
                folder.mkdir(parents=True, exist_ok=True)
                print(f"picture: {save(figure, path)}", file=stream)
            except OSError as error:
                raise _unwritable(path, error) from error
    return 0


def _file_name(name: str) -> str:
    """Returns an experiment's name as the beginning of a file's name."""
    return re.sub(r"[^\w.-]+", "_", name).strip("._")[:100] or "experiment"


def _title(name: str, cells: Sequence[Cell]) -> str:
    entry = next((cell.config.get("published") for cell in cells if cell.runs), None)
    return name + (f"  (published: {source(entry)})" if entry else "")


def _text(
    form: str,
    experiments: Mapping[str, Sequence[Cell]],
    titles: Mapping[str, str],
    remarks: Mapping[str, Sequence[str]],
) -> str:
    if form == "csv":
        return comma_separated(experiments)
    if form == "latex":
        return "\n".join(latex(titles[name], cells) for name, cells in experiments.items())
    sections = []
    for name, cells in experiments.items():
        said = "".join(f"\n- {line}" for line in remarks[name])
        sections.append(markdown(titles[name], cells) + (f"{said}\n" if said else ""))
    return "\n".join(sections)


def _write(file: Path, text: str) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, text)
    except OSError as error:
        raise _unwritable(file, error) from error


def _unwritable(path: Path, error: OSError) -> TinvError:
    return TinvError(f"cannot write {path} ({error.strerror}); choose another place with --out")
