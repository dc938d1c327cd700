"""Activation policies: what stands for the activations of a network. So far there is one, which leaves them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tinv.policies.base import Policy, made_of
from tinv.policies.cards import Card


class ActivationPolicy(Policy):
    """Leaves the network's own activations."""

    @property
    def name(self) -> str:
        """The word for it."""
        return "keep"

    @property
    def card(self) -> Card:
        """What a user must know of it."""
        return Card("leaves the network's own activations", "-", "shifts by whole pixels", "none")


def activation_policy(given: str | ActivationPolicy | Mapping[str, Any]) -> ActivationPolicy:
    """Returns an activation policy from its name, itself, or a `class_path`.

    Raises:
        TinvError: For an unknown name or class.
    """
    if given == "keep":
        return ActivationPolicy()
    return made_of(given, ActivationPolicy, "activation", ("keep",))
