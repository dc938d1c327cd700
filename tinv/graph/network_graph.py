"""A network's torch.fx graph, with what is known of single nodes beside it."""

from __future__ import annotations

import operator
from typing import Any

from torch import Tensor, fx, nn


class NetworkGraph(fx.Graph):
    """What a network computes, node by node.

    Args:
        traced: The graph that is copied, with the names of its nodes.

    Attributes:
        layer_names: Name of the layer that a node belongs to, for nodes that a conversion has inserted.
        background: Nodes that compute the background, beside those of the network itself.
        constants: Tensors that the forward pass makes, by the target of the nodes that read them.
    """

    def __init__(self, traced: fx.Graph) -> None:
        super().__init__()
        self.layer_names: dict[fx.Node, str] = {}
        self.background: set[fx.Node] = set()
        self.constants: dict[str, Tensor] = {}
        self.output(self.graph_copy(traced, {}))


def layer_name(node: fx.Node) -> str:
    """Returns the path of the module that a node belongs to, and the operation's name if it is not a module itself.

    A layer that a conversion has inserted is named after the layer it was added to.
    """
    inserted = getattr(node.graph, "layer_names", {}).get(node)
    if inserted is not None:
        return str(inserted)
    if node.op == "call_module":
        return str(node.target)
    stack = node.meta.get("nn_module_stack") or {}
    path = (list(stack) or [""])[-1].removeprefix("network").removeprefix(".")
    what = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", str(node.target))
    return f"{path}.{what}" if path else str(what)


def attribute(network: nn.Module, graph: fx.Graph, target: str) -> Any:
    """Returns what nodes of kind get_attr read: a parameter, a buffer, or a tensor made in the forward pass."""
    constants: dict[str, Tensor] = getattr(graph, "constants", {})
    return constants[target] if target in constants else operator.attrgetter(target)(network)


OUT_OF_PLACE: dict[Any, Any] = {
    operator.iadd: operator.add,
    operator.isub: operator.sub,
    operator.imul: operator.mul,
    operator.itruediv: operator.truediv,
    operator.ipow: operator.pow,
}
"""What the operators of Python that overwrite their first argument do without overwriting it."""


def is_in_place(node: fx.Node, network: nn.Module) -> bool:
    """Returns whether a node overwrites its first argument."""
    if node.op == "call_module":
        return bool(getattr(network.get_submodule(str(node.target)), "inplace", False))
    if node.op == "call_method":
        return str(node.target).endswith("_") and not str(node.target).endswith("__")
    if node.op != "call_function":
        return False
    in_operator = node.target in OUT_OF_PLACE
    return in_operator or getattr(node.target, "__name__", "").endswith("_") or bool(node.kwargs.get("inplace"))


def run_node(node: fx.Node, network: nn.Module, args: Any, kwargs: Any, hooks: bool = True) -> Any:
    """Returns what a call gives for some arguments; the hooks of a layer run with it unless `hooks` is False."""
    if node.op == "call_module":
        layer = network.get_submodule(str(node.target))
        return (layer if hooks else layer.forward)(*args, **kwargs)
    if node.op == "call_method":
        return getattr(args[0], str(node.target))(*args[1:], **kwargs)
    return node.target(*args, **kwargs)  # type: ignore[operator]
