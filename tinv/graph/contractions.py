"""Products of maps that are summed over an axis: matrix products, `einsum` and attention, read as one kind of step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tinv.graph.grid import Entry, Grid, Lost, Uniform, holds_positions, signature
from tinv.graph.operations import Operation

Operand = tuple[Grid, Sequence[int]]
"""The grid and the shape of a tensor."""


@dataclass(frozen=True)
class Contraction:
    """What a product does to positions.

    Attributes:
        grid: Grid of the result.
        clashes: Axes whose positions are told apart: summed with, or multiplied by, numbers that differ along them.
        owners: The operands that each axis of the result comes from.
    """

    grid: Grid
    clashes: tuple[Entry, ...] = ()
    owners: tuple[frozenset[int], ...] = ()


def contracted(op: Operation, operands: Sequence[Operand], number: int = 0) -> Contraction | None:
    """Returns what a matrix product, an `einsum` or attention does to positions; None for one that is not understood.

    Args:
        op: What is computed.
        operands: The grid and the shape of each tensor, in the order of the arguments.
        number: Number of the result, where there are several.
    """
    if op.kind == "attention":
        return _attended(op, operands, number)
    labels = _einsum_labels(op, operands) if op.name == "einsum" else _matmul_labels(op, operands)
    return None if labels is None else _product(operands, *labels)


def _attended(op: Operation, operands: Sequence[Operand], number: int) -> Contraction | None:
    """Returns what attention does to positions; None where that is not understood."""
    masked = op.module is None and op.argument(3, "attn_mask") is not None
    if len(operands) != 3 + masked or len({len(grid) for grid, _ in operands[:3]}) != 1:
        return None
    if op.module is None:
        return None if op.argument(5, "is_causal", False) else _attention(operands)
    if any(op.kwargs.get(key) is not None for key in ("attn_mask", "key_padding_mask")) or op.kwargs.get("is_causal"):
        return None
    if len(op.args) > 3 or len(operands[0][0]) != 3 or any(holds_positions(grid[-1]) for grid, _ in operands):
        return None
    first = bool(op.module.batch_first)
    if not first:
        operands = [((p[1], p[0], p[2]), (s[1], s[0], s[2])) for p, s in operands]
    found = _attention(operands)
    grid, owners = found.grid, found.owners
    if number == 1:
        grid, owners = (*grid[:-1], operands[1][0][-2]), (*owners[:-1], frozenset({1}))
    elif not first:
        grid, owners = (grid[1], grid[0], grid[2]), (owners[1], owners[0], owners[2])
    return Contraction(grid, found.clashes, owners)


def _attention(operands: Sequence[Operand]) -> Contraction:
    """Returns what softmax(q k' + mask) v does: products over the features of q and k, and the positions of k and v.

    The mask, or bias, is a fourth operand; it tells positions apart as a factor would.
    """
    rank = len(operands[0][0])
    lead = list(range(rank - 2))
    query, key, features, channels = range(rank, rank + 4)
    labels = [[*lead, query, features], [*lead, key, features], [*lead, key, channels]]
    if len(operands) > 3:
        labels.append([*lead, query, key][rank - len(operands[3][0]) :])
    return _product(operands, labels, [*lead, query, channels])


def _matmul_labels(op: Operation, operands: Sequence[Operand]) -> tuple[list[list[int]], list[int]] | None:
    if len(operands) != 2 or op.name == "rmatmul":
        return None
    ranks = [len(grid) for grid, _ in operands]
    depth = max(*ranks, 2) - 2
    row, summed, column = depth, depth + 1, depth + 2
    first = [summed] if ranks[0] == 1 else [*range(depth - (ranks[0] - 2), depth), row, summed]
    second = [summed] if ranks[1] == 1 else [*range(depth - (ranks[1] - 2), depth), summed, column]
    out = [*range(depth), *([row] if ranks[0] > 1 else []), *([column] if ranks[1] > 1 else [])]
    return [first, second], out


def _einsum_labels(op: Operation, operands: Sequence[Operand]) -> tuple[list[list[int]], list[int]] | None:
    equation = op.args[0]
    if not isinstance(equation, str):
        return None
    left, arrow, right = equation.replace(" ", "").partition("->")
    terms = left.split(",")
    if len(terms) != len(operands):
        return None
    if not arrow:
        right = "".join(sorted(c for c in set(left) if c.isalpha() and left.count(c) == 1))
        right = ("..." if "..." in left else "") + right
    labels, deepest = [], 0
    for term, (grid, _) in zip(terms, operands, strict=True):
        own = len(grid) - len(term.replace("...", ""))
        deepest = max(deepest, own)
        numbers = _numbers(term, own)
        # a letter twice in one tensor takes a diagonal
        if len(numbers) != len(grid) or len(set(numbers)) != len(numbers):
            return None
        labels.append(numbers)
    return labels, _numbers(right, deepest)


def _numbers(term: str, own: int) -> list[int]:
    """Returns a number for each axis of a term, those of its ellipsis counted from its end, as broadcasting does."""
    before, dots, after = term.partition("...")
    ellipsis = [-1 - i for i in range(own)][::-1] if dots else []
    return [ord(c) for c in before] + ellipsis + [ord(c) for c in after]


def _product(operands: Sequence[Operand], labels: Sequence[Sequence[int]], out: Sequence[int]) -> Contraction:
    clashes: list[Entry] = []
    entries: dict[int, Entry] = {}
    owners: dict[int, frozenset[int]] = {}
    for label in dict.fromkeys(name for names in labels for name in names):
        held = []
        for number, (names, (grid, shape)) in enumerate(zip(labels, operands, strict=True)):
            if label in names:
                dim = list(names).index(label)
                held.append((number, grid[dim], shape[dim]))
        positions = [(number, entry) for number, entry, _ in held if holds_positions(entry)]
        owners[label] = frozenset(number for number, _ in positions)
        entries[label] = positions[0][1] if positions else None
        told_apart = any(not holds_positions(e) and not isinstance(e, Uniform) and size > 1 for _, e, size in held)
        entries_here = [entry for _, entry in positions]
        # axes move together if they have the same grid, in the same order
        alike = len({signature(entry, with_choices=True) for entry in entries_here}) == 1
        if positions and (told_apart or not alike or any(isinstance(entry, Lost) for entry in entries_here)):
            clashes += entries_here
    return Contraction(
        tuple(entries.get(label) for label in out),
        tuple(clashes),
        tuple(owners.get(label, frozenset()) for label in out),
    )
