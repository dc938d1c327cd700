"""Puts the activation policy onto the activations of maps with positions: modules, functions, and those in norms."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F

from tinv.errors import TinvError
from tinv.graph.grid import AxisGrid, holds_positions
from tinv.graph.network_graph import layer_name
from tinv.graph.operations import Operation, is_activation
from tinv.nn.activation import FunctionActivation
from tinv.surgery.edit import GraphEdit, GraphJob

OF_SEVERAL_VALUES = {
    *("GLU", "glu", "Softmax", "softmax", "Softmax2d", "LogSoftmax", "log_softmax", "Softmin", "softmin"),
}
"""Activations that are no function of one value, by the name of their class or function."""


@dataclass(frozen=True)
class Activation:
    """An activation as the network calls it.

    Attributes:
        what: Name of its class or function.
        function: Module of a map, and of the tensors after it; it overwrites nothing.
        tensors: Nodes of the tensors, or paths of the parameters, that it takes besides the map.
    """

    what: str
    function: nn.Module
    tensors: tuple[fx.Node | str, ...] = ()


class Activations(GraphJob):
    """Replaces the activations of one graph.

    Args:
        edit: The graph that is being changed.
    """

    def __init__(self, edit: GraphEdit) -> None:
        super().__init__(edit)
        self.own = edit.policy.activation

    def visit(self, node: fx.Node, op: Operation) -> None:
        """Puts the policy onto what a node does, if that is an activation, or a norm that runs one; it is run after."""
        if not self.own.treats_activations or not op.inputs:
            return
        if op.is_activation:
            source = cast(fx.Node, node.args[0] if node.args else node.kwargs["input"])
            found = self.layer_for(layer_name(node), source, lambda: self.called(node, op))
            if found is not None:
                self.put(node, source, layer_name(node), *found)
        elif node.op == "call_module" and (str(node.target) in self.network.carried or op.carried_activation):
            self.split_off(node, op)
        elif self.geometry.has_positions(op.inputs[0]):
            self.refuse_others(node, op)

    def refuse_others(self, node: fx.Node, op: Operation) -> None:
        """Refuses activations of several values, and layers that hold activations which cannot be reached."""
        if op.name in OF_SEVERAL_VALUES:
            self.report.refuse(layer_name(node), f"{op.name} is no function of one value")
        elif op.kind == "opaque" and op.module is not None and any(map(is_activation, op.module.modules())):
            self.report.refuse(layer_name(node), f"{op.name}, which tinv does not know, holds an activation")

    def layer_for(
        self, layer: str, source: fx.Node, called: Callable[[], Activation]
    ) -> tuple[nn.Module, Activation] | None:
        """Returns what stands for an activation, and the activation; None where it is left, of which is taken note.

        Args:
            layer: Name of the layer, for messages.
            source: Map that it is applied to.
            called: Gives the activation.
        """
        if not self.geometry.has_positions(source):
            self.report.skip(layer, "activation of a vector, which has no positions")
            return None
        grid, shape = self.geometry.grid(source), self.geometry.values[source].shape
        if any(holds_positions(e) and (dim == 0 or not isinstance(e, AxisGrid)) for dim, e in enumerate(grid)):
            self.report.refuse(layer, "the positions of its map are not along axes of their own")
            return None
        axes = tuple(d for d, e in enumerate(grid) if isinstance(e, AxisGrid) and e.axis in self.edit.axes)
        if not axes:
            self.report.skip(layer, "activation of a map with positions along time alone, by axes=space")
            return None
        channels = {dim: shape[dim] for dim in range(1, len(grid)) if not holds_positions(grid[dim])}
        try:
            activation = called()
            made = self.own.layer(activation.function, activation.what, axes, channels)
        except TinvError as error:
            self.report.refuse(layer, str(error))
            return None
        return None if made is None else (made, activation)

    def put(self, node: fx.Node, source: fx.Node, layer: str, made: nn.Module, activation: Activation) -> None:
        """Makes a node call what stands for an activation."""
        text = f"{activation.what} by {self.own}"
        tensors = [self.read(node, tensor) for tensor in activation.tensors] if self.own.runs_own else []
        if activation.tensors and not self.own.runs_own:
            text += "; its weight is kept, and not used"
        node.op, node.target = "call_module", self.edit.add_layer(f"{layer}_activation", made)
        node.args, node.kwargs = (source, *tensors), {}
        self.edit.register_inserted(node, source, layer)
        self.report.change(layer, text, "activations replaced")

    def read(self, node: fx.Node, tensor: fx.Node | str) -> fx.Node:
        """Returns the node of a tensor, a new one before a node if it is a parameter."""
        if isinstance(tensor, fx.Node):
            return tensor
        with self.graph.inserting_before(node):
            made = self.graph.get_attr(tensor)
        self.geometry.step(made)
        return made

    def called(self, node: fx.Node, op: Operation) -> Activation:
        """Returns an activation as a node calls it; raises TinvError if an argument of it is a size of the map."""
        if isinstance(op.module, nn.PReLU):
            return Activation(op.name, FunctionActivation(F.prelu), (f"{node.target}.weight",))
        if op.module is not None:
            return Activation(op.name, _out_of_place(op.module))
        named = {key: value for key, value in node.kwargs.items() if key not in ("input", "inplace")}
        nodes = [a for a in (*node.args[1:], *named.values()) if isinstance(a, fx.Node)]
        if any(not isinstance(self.geometry.values[n], Tensor) for n in nodes):
            raise TinvError(f"an argument of {op.name} depends on the size of the map")
        numbers = [a for a in node.args[1:] if not isinstance(a, fx.Node)]
        named = {key: value for key, value in named.items() if not isinstance(value, fx.Node)}
        return Activation(op.name, FunctionActivation(_function(node, op), *numbers, **named), tuple(nodes))

    def split_off(self, node: fx.Node, op: Operation) -> None:
        """Takes the activation out of a norm, and puts what stands for it behind the norm."""
        path, module, source = str(node.target), cast(Any, op.module), node.all_input_nodes[0]
        carried = self.network.carried.get(path, module.act)
        plain = Activation(type(carried).__name__, _out_of_place(carried))
        found = self.layer_for(f"{path}.act", source, lambda: self.taken_out(plain))
        if found is None and path not in self.network.carried:
            return
        self.network.carried[path], module.act = carried, nn.Identity()
        self.geometry.step(node)
        with self.graph.inserting_after(node):
            new = self.graph.call_module(path, (node,))
        node.replace_all_uses_with(new, delete_user_cb=lambda user: user is not new)
        if found is None:
            self.edit.call_layer(new, plain.function, f"{path}.act")
            self.edit.register_inserted(new, node, f"{path}.act")
        else:
            self.put(new, node, f"{path}.act", *found)

    @staticmethod
    def taken_out(activation: Activation) -> Activation:
        """Returns an activation that a norm runs; raises TinvError if it cannot run outside of it."""
        if not is_activation(activation.function) or next(activation.function.parameters(), None) is not None:
            raise TinvError(f"{activation.what} cannot be taken out of the norm that runs it")
        return activation


def _out_of_place(module: nn.Module) -> nn.Module:
    """Returns a copy of an activation that overwrites nothing."""
    copied: Any = copy.deepcopy(module)
    if getattr(copied, "inplace", False):
        copied.inplace = False
    return cast(nn.Module, copied)


def _function(node: fx.Node, op: Operation) -> Callable[..., Tensor]:
    """Returns the function that a node calls, in its form that overwrites nothing."""
    target = node.target
    if isinstance(target, str):
        return cast(Callable[..., Tensor], getattr(torch.Tensor, target.rstrip("_")))
    if getattr(target, "__name__", "").endswith("_"):
        target = getattr(F, op.name, None) or getattr(torch, op.name)
    return cast(Callable[..., Tensor], target)
