"""`tinv report`: tables and figures of runs (results.json) and of measured networks (measure.json)."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tinv.cli.parser import PlainParser
from tinv.errors import TinvError
from tinv.report.collect import RunGroup, collect
from tinv.report.figures import figures as draw
from tinv.report.figures import save
from tinv.report.html_report import html_report
from tinv.report.measured_networks import (
    PICTURE,
    MeasuredNetwork,
    collect_measured,
    measured_figure,
    measured_section,
    measured_text,
    print_measured,
)
from tinv.report.published import source
from tinv.report.tables import comma_separated, latex, markdown, print_groups
from tinv.report.trend_checks import trend_checks
from tinv.utils.io import write_atomically

if TYPE_CHECKING:
    from matplotlib.figure import Figure

ENDINGS = {"md": "md", "csv": "csv", "latex": "tex", "html": "html"}


def report(words: Sequence[str]) -> int:
    """Runs `tinv report DIR... [--format F] [--out PATH]` and returns the exit code."""
    args = make_parser().parse_args(list(words))
    networks = collect_measured(args.folders)
    experiments = collect(args.folders, needed=not networks)
    file = args.out if args.out and args.out.suffix.lstrip(".") in ENDINGS.values() else None
    form = _format(args.format, file)
    folder: Path = file.parent if file else args.out or args.folders[0]
    titles = {name: _title(name, groups) for name, groups in experiments.items()}
    remarks = {name: [str(shape) for shape in trend_checks(groups)] for name, groups in experiments.items()}
    if form == "html":
        file = file or folder / "report.html"
        drawn = {name: draw(groups, name) for name, groups in experiments.items()}
        more = [measured_section(networks)] if networks else []
        _write(file, html_report(experiments, titles, remarks, drawn, more))
        print(f"page: {file}")
        return 0
    if form == "table":
        for name, groups in experiments.items():
            print_groups(titles[name], groups)
            print("".join(f"{line}\n" for line in remarks[name]), end="")
        if networks:
            print_measured(networks)
    else:
        parts = [_text(form, experiments, titles, remarks)] if experiments else []
        text = "\n".join([*parts, *([measured_text(form, networks)] if networks else [])])
        if file is None:
            print(text, end="")
        else:
            _write(file, text)
            print(f"table: {file}")
    # beside a table on the standard output, which another program may read
    stream = sys.stdout if form == "table" else sys.stderr
    for stem, figure in _figures(experiments, networks):
        path = folder / f"{stem}.png"
        try:
            folder.mkdir(parents=True, exist_ok=True)
            print(f"figure: {save(figure, path)}", file=stream)
        except OSError as error:
            raise _unwritable(path, error) from error
    return 0


def _figures(
    experiments: Mapping[str, Sequence[RunGroup]], networks: Sequence[MeasuredNetwork]
) -> Iterator[tuple[str, Figure]]:
    """Yields each figure after the beginning of its file's name."""
    for name, groups in experiments.items():
        for kind, figure in draw(groups, name).items():
            yield f"{_file_name(name)}{f'_{kind}' if kind else ''}", figure
    if networks and (compared := measured_figure(networks)) is not None:
        yield PICTURE, compared


def make_parser() -> PlainParser:
    """Returns the parser of the words after `tinv report`."""
    parser = PlainParser(
        "tinv report",
        description="Mean and standard deviation over seeds of finished runs, beside published numbers, with figures. "
        "Failed and missing groups are named. Networks that tinv measure has measured stand side by side.",
    )
    parser.add_argument(
        "folders",
        nargs="+",
        metavar="DIR",
        type=Path,
        help="folder of runs or of tinv measure; looked through downwards",
    )
    parser.add_argument(
        "--format",
        choices=("table", *ENDINGS),
        help="table: in the terminal; md, csv, latex: on the standard output; html: one page with everything; left "
        "out, what the ending of --out says, else table",
    )
    parser.add_argument(
        "--out", type=Path, metavar="PATH",
        help="folder for figures and html page, or a file (.md, .csv, .tex, .html); the first DIR if left out",
    )  # fmt: skip
    return parser


def _format(asked: str | None, file: Path | None) -> str:
    """Returns the format that is asked for, else that of the file's ending, else a table in the terminal."""
    if file is None:
        return asked or "table"
    form = next(name for name, ending in ENDINGS.items() if file.suffix == f".{ending}")
    if asked not in (None, form):
        raise TinvError(f"--format {asked} does not go with --out {file}, whose ending is that of {form}")
    return form


def _file_name(name: str) -> str:
    """Returns an experiment's name as the beginning of a file's name."""
    return re.sub(r"[^\w.-]+", "_", name).strip("._")[:100] or "experiment"


def _title(name: str, groups: Sequence[RunGroup]) -> str:
    entry = next((group.config["published"] for group in groups if group.published), None)
    return name + (f"  (published: {source(entry)})" if entry else "")


def _text(
    form: str,
    experiments: Mapping[str, Sequence[RunGroup]],
    titles: Mapping[str, str],
    remarks: Mapping[str, Sequence[str]],
) -> str:
    if form == "csv":
        return comma_separated(experiments)
    if form == "latex":
        return "\n".join(latex(titles[name], groups) for name, groups in experiments.items())
    sections = []
    for name, groups in experiments.items():
        said = "".join(f"\n- {line}" for line in remarks[name])
        sections.append(markdown(titles[name], groups) + (f"{said}\n" if said else ""))
    return "\n".join(sections)


def _write(file: Path, text: str) -> None:
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(file, text)
    except OSError as error:
        raise _unwritable(file, error) from error


def _unwritable(path: Path, error: OSError) -> TinvError:
    return TinvError(f"cannot write {path} ({error.strerror}); choose another place with --out")
