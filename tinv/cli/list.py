"""`tinv list`: what there is to choose from, without importing torch."""

from __future__ import annotations

import fnmatch
import functools
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from tinv.cli.parser import PlainParser
from tinv.config import catalog
from tinv.config.files import Kind, shipped_files, shipped_folder
from tinv.errors import TinvError, unknown
from tinv.policies.cards import ACTIVATION_CARDS, PADDING_CARDS, SUBSAMPLING_CARDS, TOKEN_CARDS, Card
from tinv.utils.io import read_text

CARDS: dict[str, Mapping[Any, Card]] = {
    "padding": PADDING_CARDS,
    "subsampling": SUBSAMPLING_CARDS,
    "activation": ACTIVATION_CARDS,
    "tokens": TOKEN_CARDS,
}
"""Cards of policies, by the option that takes them."""
SUBJECTS = ("backbones", "data", "experiments", "sweeps", "protocols", *CARDS)


def list_choices(words: Sequence[str]) -> int:
    """Prints one list, or all, as tables."""
    args = make_parser().parse_args(words)
    if args.subject is not None and args.subject not in SUBJECTS:
        raise unknown("list", args.subject, SUBJECTS)
    if args.cards and args.subject not in (None, *CARDS):
        raise TinvError(f"--cards is for {', '.join(CARDS)}; {args.subject} have no cards")
    lists: dict[str, Callable[[], None]] = {
        "backbones": lambda: _backbones(args.source, args.filter),
        "data": lambda: _two_columns("data sets (data.class_path: tinv.data.NAME)", catalog.data_sets()),
        "experiments": _experiments,
        "sweeps": lambda: _files("sweeps (tinv sweep FILE --out DIR)", "sweeps"),
        "protocols": _protocols,
        **{subject: functools.partial(_policies, subject, args.cards) for subject in CARDS},
    }
    for subject in [args.subject] if args.subject else SUBJECTS:
        lists[subject]()
    return 0


def make_parser() -> PlainParser:
    """Returns the parser of the words after `tinv list`."""
    parser = PlainParser("tinv list", description="Lists what there is to choose from.")
    parser.add_argument("subject", nargs="?", help=f"{', '.join(SUBJECTS)}; all of them if left out")
    parser.add_argument("--source", choices=["tinv", "timm", "torchvision"], default="tinv", help="of backbones")
    parser.add_argument("--cards", action="store_true", help="a whole card for each policy: what, exact, cost, source")
    parser.add_argument("--filter", default="*", help="pattern of backbone names, such as 'resnet*'")
    return parser


def _backbones(source: str, pattern: str) -> None:
    if source == "tinv":
        rows = {name: text for name, text in catalog.own_backbones().items() if fnmatch.fnmatch(name, pattern)}
        _two_columns("backbones of source tinv (model.init_args.backbone)", rows)
        print("timm and torchvision have over 1,300 more: tinv list backbones --source timm --filter 'resnet*'\n")
        return
    names: Iterable[str]
    if source == "timm":
        import timm

        names = timm.list_models()
    else:
        from torchvision import models

        names = models.list_models()
    print("\n".join(fnmatch.filter(names, pattern)))


def _experiments() -> None:
    title = "experiments (tinv fit --config FILE; merge overlays over them with another --config)"
    _files(title, "configs")


def _files(title: str, kind: Kind) -> None:
    rows = {}
    for path in shipped_files(kind):
        # the first comment of a file says what it is
        first = read_text(path).partition("\n")[0]
        rows[f"{kind}/{path.relative_to(shipped_folder(kind))}"] = first.removeprefix("#").strip()
    _two_columns(title, rows)


def _protocols() -> None:
    import yaml

    # read as they lie there: the module that replays them imports torch
    files = sorted((Path(__file__).parents[1] / "evaluation" / "protocols").glob("*.yaml"))
    found = {path.stem: yaml.safe_load(read_text(path)) for path in files}
    _two_columns("protocols of papers (tinv measure --protocol NAME)", {n: str(p["what"]) for n, p in found.items()})


def _policies(subject: str, whole_cards: bool) -> None:
    title, cards = f"{subject} policies (model.init_args.{subject})", CARDS[subject]
    if whole_cards:
        _cards(title, cards)
        return
    rows = {
        name: f"{card.what}\n[dim]exactly invariant to:[/] {card.exact}\n[dim]cost:[/] {card.cost}"
        + (f"   [dim]from:[/] {card.source}" if card.source != "-" else "")
        for name, card in cards.items()
    }
    _table(title, ["name", "what it does"], rows)


def _cards(title: str, cards: Mapping[Any, Card]) -> None:
    """Prints a block for each policy, a line of which never is wider than the terminal."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console(highlight=False)
    console.print(f"[italic]{title}[/]")
    for name, card in cards.items():
        block = Table.grid(padding=(0, 2))
        block.add_column(no_wrap=True, style="dim")
        block.add_column(overflow="fold")
        for label, text in (("what", card.what), ("exact", card.exact), ("cost", card.cost), ("source", card.source)):
            block.add_row(f"  {label}", escape(text))
        console.print(f"\n[bold]{name}[/]")
        console.print(block)


def _two_columns(title: str, rows: Mapping[str, str]) -> None:
    _table(title, ["name", "what it is"], rows)


def _table(title: str, columns: list[str], rows: Mapping[str, str]) -> None:
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    table.add_column(columns[0], no_wrap=True, style="bold")
    table.add_column(columns[1])
    for name, text in rows.items():
        table.add_row(name, text)
    Console().print(table)
