"""Products of maps that are summed over an axis: matrix products, `einsum` and attention, read as one kind of step."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from tinv.graph.operations import Operation
from tinv.graph.places import Entry, Folded, Lost, Place, Places, Uniform, holds_positions

Operand = tuple[Places, Sequence[int]]
"""The places and the shape of a tensor."""


@dataclass(frozen=True)
class Contraction:
    """What a product does to positions.

    Attributes:
        places: of the result.
        clashes: axes whose positions are told apart: summed with, or multiplied by, numbers that differ along them.
        owners: the operands that each axis of the result comes from.
    """

    places: Places
    clashes: tuple[Entry, ...] = ()
    owners: tuple[frozenset[int], ...] = ()


def contracted(op: Operation, operands: Sequence[Operand]) -> Contraction | None:
    """Returns what a matrix product or an `einsum` does to positions; None for one that is not understood."""
    labels = _einsum_labels(op, operands) if op.name == "einsum" else _matmul_labels(op, operands)
    return None if labels is None else _product(operands, *labels)


def attended(op: Operation, operands: Sequence[Operand], number: int = 0) -> Contraction | None:
    """Returns what attention does to positions; None where a mask may tell them apart.

    Args:
        op: `scaled_dot_product_attention` or a `torch.nn.MultiheadAttention`.
        operands: queries, keys and values.
        number: of the result: 1 for the weights that the layer gives as well.
    """
    if len(operands) != 3 or len({len(places) for places, _ in operands}) != 1:
        return None
    if op.module is None:
        masked = op.argument(3, "attn_mask") is not None or op.argument(5, "is_causal", False)
        return None if masked else _attention(operands)
    if any(op.kwargs.get(key) is not None for key in ("attn_mask", "key_padding_mask")) or op.kwargs.get("is_causal"):
        return None
    if len(op.args) > 3 or len(operands[0][0]) != 3 or any(holds_positions(places[-1]) for places, _ in operands):
        return None
    first = bool(op.module.batch_first)
    if not first:
        operands = [((p[1], p[0], p[2]), (s[1], s[0], s[2])) for p, s in operands]
    found = _attention(operands)
    places, owners = found.places, found.owners
    if number == 1:
        places, owners = (*places[:-1], operands[1][0][-2]), (*owners[:-1], frozenset({1}))
    elif not first:
        places, owners = (places[1], places[0], places[2]), (owners[1], owners[0], owners[2])
    return Contraction(places, found.clashes, owners)


def _attention(operands: Sequence[Operand]) -> Contraction:
    """Returns what softmax(q k') v does, as products over the features of q and k and the positions of k and v."""
    rank = len(operands[0][0])
    lead = list(range(rank - 2))
    query, key, features, channels = range(rank, rank + 4)
    labels = [[*lead, query, features], [*lead, key, features], [*lead, key, channels]]
    return _product(operands, labels, [*lead, query, channels])


def _matmul_labels(op: Operation, operands: Sequence[Operand]) -> tuple[list[list[int]], list[int]] | None:
    if len(operands) != 2 or op.name == "rmatmul":
        return None
    ranks = [len(places) for places, _ in operands]
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
    for term, (places, _) in zip(terms, operands, strict=True):
        own = len(places) - len(term.replace("...", ""))
        deepest = max(deepest, own)
        numbers = _numbers(term, own)
        # a letter twice in one tensor takes a diagonal
        if len(numbers) != len(places) or len(set(numbers)) != len(numbers):
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
        for number, (names, (places, shape)) in enumerate(zip(labels, operands, strict=True)):
            if label in names:
                dim = list(names).index(label)
                held.append((number, places[dim], shape[dim]))
        positions = [(number, entry) for number, entry, _ in held if holds_positions(entry)]
        owners[label] = frozenset(number for number, _ in positions)
        entries[label] = positions[0][1] if positions else None
        told_apart = any(not holds_positions(e) and not isinstance(e, Uniform) and size > 1 for _, e, size in held)
        if positions and (told_apart or not _agree([entry for _, entry in positions])):
            clashes += [entry for _, entry in positions]
    return Contraction(
        tuple(entries.get(label) for label in out),
        tuple(clashes),
        tuple(owners.get(label, frozenset()) for label in out),
    )


def _agree(entries: Sequence[Entry]) -> bool:
    """Returns whether axes move together: the same places, in the same order."""
    return len({_signature(entry) for entry in entries}) == 1 and not any(isinstance(e, Lost) for e in entries)


def _signature(entry: Entry) -> Any:
    parts = entry.parts if isinstance(entry, Folded) else (entry,)
    return tuple((p.axis, p.stride, p.size, p.choices) if isinstance(p, Place) else p for p in parts)
