"""On what device and in which precision networks are evaluated."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Sequence
from typing import Any, Literal

import torch

from tinv.errors import TinvError

Precision = Literal["32", "bf16"]


def device_of(name: str) -> torch.device:
    """Returns the device of that name; `auto` is a GPU if there is one.

    Raises:
        TinvError: If there is no such device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except Exception as error:  # each backend has its own
        raise TinvError(f"device {name}: {str(error).partition(chr(10))[0]}") from error
    return device


def print_table(title: str, columns: Sequence[str], rows: Iterable[Sequence[str]]) -> None:
    """Prints a table with a title above it; all columns but the first hold numbers."""
    from rich import box
    from rich.console import Console
    from rich.table import Table

    table = Table(columns[0], title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False)
    for name in columns[1:]:
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(*row)
    Console().print(table)


def autocast(precision: Precision, device: torch.device) -> contextlib.AbstractContextManager[Any]:
    """Returns the context in which networks run."""
    return contextlib.nullcontext() if precision == "32" else torch.autocast(device.type, torch.bfloat16)
