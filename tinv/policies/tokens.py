"""Token policies: where the patches, and the windows, of a vision transformer begin."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

from tinv.errors import unknown
from tinv.policies.base import Policy, made_of
from tinv.policies.cards import TOKEN_CARDS, TOKENS, Card, Tokens


class TokenPolicy(Policy):
    """Says where the patch grid of a vision transformer begins, and what else follows the content.

    Args:
        mode: `keep`, `anchor` or `a_token`, see `tinv list tokens`.

    Raises:
        TinvError: For another mode.

    Examples:
        >>> TokenPolicy("anchor").anchors_input
        True
    """

    def __init__(self, mode: Tokens = "keep") -> None:
        if mode not in get_args(Tokens):
            raise unknown("tokens", mode, TOKENS)
        self.mode: Tokens = mode

    @property
    def name(self) -> str:
        """The word for it."""
        return self.mode

    @property
    def card(self) -> Card:
        """What a user must know of it."""
        return TOKEN_CARDS[self.mode]

    @property
    def treats_tokens(self) -> bool:
        """Whether anything is changed."""
        return self.mode != "keep"

    @property
    def anchors_input(self) -> bool:
        """Whether each image is rolled to a canonical position before the network sees it."""
        return self.mode == "anchor"

    @property
    def adapts_layers(self) -> bool:
        """Whether patch embedding, windows and patch merging choose their grid by the content."""
        return self.mode == "a_token"


def token_policy(given: str | TokenPolicy | Mapping[str, Any]) -> TokenPolicy:
    """Returns a token policy from its name, itself, or a `class_path` with `init_args`.

    Args:
        given: A name of `tinv list tokens`, the dotted path of a class, a mapping as in a configuration, or a policy.

    Raises:
        TinvError: For an unknown name or class.

    Examples:
        >>> token_policy("a_token").adapts_layers
        True
    """
    if isinstance(given, str) and given in TOKENS:
        return TokenPolicy(given)
    return made_of(given, TokenPolicy, "tokens", TOKENS)
