"""The page of the policies, from their cards."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from generate.arguments import COLUMNS, argument_table, of_class
from generate.text import code, heading, table
from tinv.policies import ACTIVATION_CARDS, PADDING_CARDS, SUBSAMPLING_CARDS, TOKEN_CARDS, ConversionPolicy
from tinv.policies.cards import Card

INTRODUCTION = """---
hide: [toc]
---

# Policies

A policy is one word of a configuration, or one argument of `tinv.convert`. `padding` says what every convolution adds
at the border of its input, `subsampling` what carries every stride, `activation` what stands for the activations of
maps, and `tokens` where the patches and windows of a vision transformer begin. `tinv list padding`, `tinv list
subsampling`, `tinv list activation` and `tinv list tokens` print these tables.

For a kernel of $k$ pixels with dilation $d$, `valid` adds nothing, `same_*` adds $d(k-1)/2$ pixels a side and
`full_*` $d(k-1)$; $s$ is the stride. *Exact* names the shifts of the image under which the pooled output of the
network does not change at all.

"""

OPTIONS = """## Options of a conversion { #options }

All policies together are a `tinv.ConversionPolicy`. The same names are keys of `model.init_args` and options of `tinv
inspect`, `tinv measure` and `tinv probe`.

"""


def page() -> str:
    """Returns the page."""
    return (
        INTRODUCTION
        + heading(2, "Padding", "padding")
        + _cards(PADDING_CARDS)
        + heading(2, "Subsampling", "subsampling")
        + _cards(SUBSAMPLING_CARDS)
        + heading(2, "Activations", "activations")
        + _cards(ACTIVATION_CARDS)
        + heading(2, "Tokens", "tokens")
        + _cards(TOKEN_CARDS)
        + OPTIONS
        + argument_table(of_class(ConversionPolicy), COLUMNS)
    )


def _cards(cards: Mapping[Any, Card]) -> str:
    rows = ((code(name), card.what, card.exact, card.cost, card.source) for name, card in cards.items())
    cards_table = table(("name", "what it does", "exactly invariant to", "cost", "from"), rows)
    return f'<div class="cards" markdown>\n\n{cards_table}</div>\n\n'
