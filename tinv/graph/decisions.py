"""Control flow that depends on the sizes of maps: followed while a network is traced, and checked whenever it runs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, fx, nn

from tinv.errors import TinvError
from tinv.graph.meta_copy import copy_to_meta

# while a network is traced, torch.fx has others in their place
_CALL, _GETATTR = nn.Module.__call__, nn.Module.__getattr__


class DecisionError(TinvError):
    """Control flow would go another way than when the network was traced.

    Args:
        layer: Path of the module whose control flow it is.
    """

    def __init__(self, layer: str) -> None:
        super().__init__(
            f"the control flow of {layer} depends on the size of its map, and goes another way at this size than at "
            "that of the example which the network was traced with; use images of the example's size"
        )
        self.layer = layer


def same_decision(found: Any, taken: Any, layer: str) -> None:
    """Checks a number that the control flow of a network depends on.

    Args:
        found: What the network has now.
        taken: What it had when it was traced: a number, or for a condition whether it held.
        layer: Path of the module that asks.

    Raises:
        DecisionError: If control flow could go another way.
    """
    if (bool(found) if isinstance(taken, bool) else found) != taken:
        raise DecisionError(layer)


class Decisions:
    """Values of the nodes of a graph that is being traced, found by running it on shapes alone, as far as needed.

    Args:
        root: Module whose call is traced.
        example: Images (N, C, *spatial) of any values; None if no value may be asked for.
    """

    def __init__(self, root: nn.Module, example: Tensor | None) -> None:
        self.root, self.example = root, example
        self.layers: nn.Module | None = None
        self.values: dict[fx.Node, Any] = {}

    def value(self, node: fx.Node) -> Any:
        """Returns the value of a node: a number, a shape, a tensor without values; `Unknown` if it cannot be found."""
        if self.example is None:
            return Unknown
        if node not in self.values:
            with _untraced(), torch.no_grad():
                if self.layers is None:
                    self.layers = copy_to_meta(self.root).eval()
                for earlier in node.graph.nodes:
                    if earlier not in self.values:
                        self.values[earlier] = self._run(earlier, self.example)
        return self.values[node]

    def _run(self, node: fx.Node, example: Tensor) -> Any:
        assert self.layers is not None
        if any(self.values.get(source) is Unknown for source in node.all_input_nodes):
            return Unknown
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda source: self.values[source])
        try:
            if node.op == "placeholder":
                return example.detach().to("meta")
            if node.op == "get_attr":
                return _without_values(_attribute(self.layers, self.root, str(node.target)))
            if node.op == "call_module":
                return self.layers.get_submodule(str(node.target))(*args, **kwargs)
            if node.op == "call_method":
                return _without_values(getattr(args[0], str(node.target))(*args[1:], **kwargs))
            name = getattr(node.target, "__name__", "")
            if name in _SWITCHES:
                return None
            if name == "getattr" and args[1] == "device":
                return torch.device("cpu")
            return _without_values(node.target(*args, **kwargs))  # type: ignore[operator]
        except Exception:
            # whoever asks for the value says what is wrong
            return Unknown

    def depends_on_device(self, node: fx.Node) -> bool:
        """Returns whether a number follows from a device: shapes alone cannot check it, and the result is the same."""
        stack, seen = [node], set[fx.Node]()
        while stack:
            here = stack.pop()
            value = self.values.get(here)
            if isinstance(value, torch.device):
                return True
            if here not in seen and not isinstance(value, Tensor):
                seen.add(here)
                stack += here.all_input_nodes
        return False


_SWITCHES = ("switch_gradients", "same_decision", "enter_autocast", "exit_autocast")
"""Functions that give nothing."""


class Unknown:
    """Stands for a value that cannot be found from shapes."""


def _attribute(layers: nn.Module, root: nn.Module, path: str) -> Any:
    """Returns what nodes of kind get_attr read; tensors of the forward pass are on the root that is traced."""
    found: Any = root if not path.startswith("network.") else layers
    for name in path.split("."):
        found = getattr(found, name)
    return found


def _without_values(value: Any) -> Any:
    return value.to("meta") if isinstance(value, Tensor) else value


@contextmanager
def _untraced() -> Iterator[None]:
    """Runs modules as they are in the middle of a trace, which otherwise takes note of their calls."""
    with patch.object(nn.Module, "__call__", _CALL), patch.object(nn.Module, "__getattr__", _GETATTR):
        yield
