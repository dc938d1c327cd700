"""Times peers in turn, so that a noisy machine is noisy for both, and prints their ratio."""

from __future__ import annotations

import time
from collections.abc import Callable


def in_turn(peers: dict[str, Callable[[], float | None]], rounds: int) -> dict[str, float]:
    """Runs every peer once untimed, then `rounds` times in turn.

    Args:
        peers: what to run, by name; a peer that returns a number says itself how many seconds count.
        rounds: measurements of each.

    Returns:
        The shortest seconds of each: what else the machine does only ever adds time.
    """
    seconds: dict[str, list[float]] = {name: [] for name in peers}
    for turn in range(rounds + 1):
        for name, run in peers.items():
            started = time.perf_counter()
            own = run()
            if turn:
                seconds[name].append(time.perf_counter() - started if own is None else own)
    return {name: min(values) for name, values in seconds.items()}


def verdict(claim: str, value: float, bound: float, at_least: bool) -> bool:
    """Prints a claim with what was measured and whether it holds; returns that."""
    holds = value >= bound if at_least else value <= bound
    print(f"{'holds' if holds else 'FAILS'}: {claim}: {value:.2f} ({'at least' if at_least else 'at most'} {bound})")
    return holds
