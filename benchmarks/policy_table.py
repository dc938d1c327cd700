"""What every policy does to five networks: conversion, a training step, exact shifts, costs and times.

Each policy is put on each network, which then runs forward and trains one step on two images of 128x128 pixels. Exact
shifts and costs are of 224x224 pixels. All costs are over those of the unconverted network, times measured in turn.
Rows that the file has already are kept, so that a stopped run can be resumed. The page "Policies on five networks" is
made of the file.
Claims: every policy that converts a network gives all of its parameters finite gradients; the others are refused by
name. Run: python benchmarks/policy_table.py
"""

from __future__ import annotations

import argparse
import csv
import io
import sys
import time
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import torch
from timing import in_turn
from torch import Tensor, nn

from tinv import ConversionPolicy, convert, create_backbone, summary
from tinv.errors import TinvError
from tinv.graph.exact_invariance import InvariantShifts
from tinv.policies.cards import ACTIVATIONS, PADDINGS, SUBSAMPLINGS
from tinv.utils.io import write_atomically

NETWORKS = ("resnet18", "resnet50", "convnext_atto", "mobilenetv2_100", "efficientnet_b0")
BATCH, PIXELS, COST_PIXELS, ROUNDS = 2, 128, 224, 5
SLOW = 2.0
"""Seconds of a run from which on one run has to do."""
FILE = Path(__file__).parents[1] / "docs" / "experiments" / "data" / "policy_table.csv"
COLUMNS = (
    *("network", "option", "policy", "converts", "trains", "circular", "zero_canvas"),
    *("flops", "memory", "parameters", "step", "latency", "seconds_of_step", "torch"),
)


def policies() -> Iterator[tuple[str, str, ConversionPolicy]]:
    """Yields the option that is varied, its value, and all policies together.

    Paddings stand alone, on convolutions and pools; subsamplings and activations with circular padding, under which
    they can be exact.
    """
    for padding in PADDINGS:
        pool = "full" if padding.startswith("full") else "keep"
        yield "padding", padding, ConversionPolicy(padding, pool=pool)
    circular = partial(ConversionPolicy, "same_circular", stem="convert")
    for subsampling in SUBSAMPLINGS:
        yield "subsampling", subsampling, circular(subsampling)
    for activation in ACTIVATIONS:
        yield "activation", activation, circular("ideal", activation=activation)


def one_row(plain: nn.Module, policy: ConversionPolicy, images: Tensor, large: Tensor) -> dict[str, object]:
    """Returns what a policy does to a network.

    Args:
        plain: Network in training mode; it is left as it is.
        policy: Policy that it is put under.
        images: Batch (N, C, H, W) that it is timed on.
        large: Batch (1, C, H, W) that its exact shifts and costs are of.
    """
    try:
        network = convert(plain, policy=policy, example_input=images)
    except TinvError as error:
        return {"converts": f"refused: {error}"}
    found, before = summary(network, large), summary(plain, large)
    step, latency = (_ratio(runs, plain, network, images) for runs in (_training_step, _forward))
    # read after the steps that were timed
    learned = all(p.grad is not None and bool(p.grad.isfinite().all()) for p in network.parameters() if p.requires_grad)
    return {
        "converts": "yes",
        "trains": "yes" if learned else "no: a parameter has no finite gradient",
        "circular": _shifts(found.verdict.circular),
        "zero_canvas": _shifts(found.verdict.zero_canvas),
        "flops": f"{found.cost.flops / before.cost.flops:.2f}",
        "memory": f"{found.cost.bytes / before.cost.bytes:.2f}",
        "parameters": sum(p.numel() for p in network.parameters()) - sum(p.numel() for p in plain.parameters()),
        "step": f"{step[0]:.2f}",
        "latency": f"{latency[0]:.2f}",
        "seconds_of_step": f"{step[1]:.3f}",
    }


def _shifts(axes: tuple[InvariantShifts, ...]) -> str:
    said = ["none" if shifts.unit is None else "every" if shifts.unit == 1 else str(shifts.unit) for shifts in axes]
    return said[0] if len(set(said)) == 1 else " x ".join(said)


def _ratio(
    runs: Callable[[nn.Module, Tensor], Callable[[], None]], plain: nn.Module, network: nn.Module, images: Tensor
) -> tuple[float, float]:
    """Returns the time of the network over that of the plain one, and its seconds."""
    converted = runs(network, images)
    started = time.perf_counter()
    converted()
    # a policy that costs a hundred times as much is told from others by one run
    rounds = ROUNDS if time.perf_counter() - started < SLOW else 1
    seconds = in_turn({"plain": runs(plain, images), "converted": converted}, rounds)
    return seconds["converted"] / seconds["plain"], seconds["converted"]


def _training_step(network: nn.Module, images: Tensor) -> Callable[[], None]:
    def run() -> None:
        network.train().zero_grad(set_to_none=True)
        network(images).square().mean().backward()

    return run


def _forward(network: nn.Module, images: Tensor) -> Callable[[], None]:
    @torch.no_grad()
    def run() -> None:
        network.eval()(images)

    return run


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("networks", nargs="*", metavar="NETWORK", default=NETWORKS, help="networks of timm")
    parser.add_argument("--out", type=Path, default=FILE, help="CSV file; its rows are kept")
    args = parser.parse_args()
    rows: list[dict[str, object]] = []
    if args.out.exists():
        with args.out.open(newline="") as file:
            rows = list(csv.DictReader(file))
    done = {(row["network"], row["option"], row["policy"]) for row in rows}
    warnings.simplefilter("ignore")
    images, large = torch.randn(BATCH, 3, PIXELS, PIXELS), torch.zeros(1, 3, COST_PIXELS, COST_PIXELS)
    todo = [(name, *policy) for name in args.networks for policy in policies() if (name, *policy[:2]) not in done]
    started = time.monotonic()
    for number, (name, option, word, policy) in enumerate(todo, start=1):
        torch.manual_seed(0)
        plain = create_backbone(name, "timm", num_classes=10, input_size=images.shape[2:]).train()
        row = {"network": name, "option": option, "policy": word, **one_row(plain, policy, images, large)}
        rows.append(row | {"torch": torch.__version__})
        _write(args.out, rows)
        left = (time.monotonic() - started) / number * (len(todo) - number)
        print(f"[{number}/{len(todo)}, {left / 60:.0f} min left] {name} {option}={word}: {row['converts']}", flush=True)
    failed = [
        f"{row['network']} {row['policy']}: {row['trains']}" for row in rows if str(row.get("trains"))[:2] == "no"
    ]
    print(f"{'FAILS' if failed else 'holds'}: every converted network trains: {'; '.join(failed) or 'all'}")
    return 1 if failed else 0


def _write(path: Path, rows: list[dict[str, object]]) -> None:
    """Writes all rows under a temporary name and renames the file."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, restval="", lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    write_atomically(path, text.getvalue())


if __name__ == "__main__":
    sys.exit(main())
