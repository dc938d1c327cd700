"""Parts of a network that set the precision of their own computation: `torch.autocast` inside of a forward pass."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, fx


def enter_autocast(device: str, dtype: torch.dtype | None, enabled: bool, cache: bool | None) -> Any:
    """Begins a part of a network with a precision of its own; returns what `exit_autocast` ends it with."""
    if device == "meta":
        return None
    entered: Any = torch.autocast(device, dtype, enabled, cache)
    entered.__enter__()
    return entered


def exit_autocast(entered: Any) -> None:
    """Ends what `enter_autocast` has begun."""
    if entered is not None:
        entered.__exit__(None, None, None)


def autocast_restored(images: Tensor) -> AbstractContextManager[Any]:
    """Leaves autocast as it is now when its block ends, with an error too."""
    device = images.device.type
    if device == "meta":
        return nullcontext()
    now: AbstractContextManager[Any] = torch.autocast(
        device, torch.get_autocast_dtype(device), torch.is_autocast_enabled(device)
    )
    return now


@contextmanager
def traced_autocast(tracer: fx.Tracer) -> Iterator[None]:
    """Makes `with torch.autocast(...)` two nodes of the graph, which otherwise would be lost in it."""

    def begin(
        self: Any,
        device_type: Any,
        dtype: torch.dtype | None = None,
        enabled: Any = True,
        cache_enabled: bool | None = None,
    ) -> None:
        self.wanted = (device_type, dtype, enabled, cache_enabled)

    def enter(self: Any) -> Any:
        self.entered = tracer.create_proxy("call_function", enter_autocast, self.wanted, {})
        return self

    def leave(self: Any, *_: Any) -> bool:
        tracer.create_proxy("call_function", exit_autocast, (self.entered,), {})
        return False

    with patch.multiple(torch.autocast, __init__=begin, __enter__=enter, __exit__=leave):
        yield
