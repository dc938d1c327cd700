"""Converts a copy of a network that has shapes but no values: its graphs are changed layer by layer."""

from __future__ import annotations

from collections import Counter

from torch import Tensor, fx, nn

from tinv.errors import LayerError
from tinv.graph.account import Conversion, Note
from tinv.graph.geometry import RunError, Walk
from tinv.graph.tracing import on_meta, trace
from tinv.graph.windows import Window
from tinv.policies.conversion import ConversionPolicy
from tinv.surgery.graph_builder import GraphBuilder


class PartialError(LayerError):
    """Layers that a policy was asked for cannot take it."""


class Builder:
    """Converts a copy of a network that has shapes but no values.

    Attributes:
        twin: the changed copy, on the meta device.
        graphs: its changed graphs.
        conversion: what was done.
    """

    def __init__(self, model: nn.Module, policy: ConversionPolicy, example: Tensor) -> None:
        self.policy = policy
        self.twin = on_meta(model).eval()
        self.edited: dict[str, Window] = {}
        self.notes: dict[tuple[str, str], Note] = {}
        self.left: dict[tuple[str, str], Note] = {}
        self.refused: dict[str, Note] = {}
        self.kinds: dict[tuple[str, str], str] = {}
        self.graphs = trace(self.twin)
        if isinstance(self.twin, fx.GraphModule):
            # a copy of a GraphModule keeps only what its own graph names
            plain = nn.Module()
            plain.__dict__.update({k: v for k, v in self.twin.__dict__.items() if k not in ("_graph", "forward")})
            self.twin = plain
        # added afterwards, or a Sequential would run it
        self.twin.policy_layers = nn.ModuleDict()
        self.keep_constants()
        self.twin.eval()
        walks = {id(g): Walk(g, self.twin, example, count=True).run() for g in self.graphs.values()}
        before = walks[id(self.graphs[False])].cost
        # every graph is seen before any layer is changed
        for original in walks.values():
            self.convert(original, example)
        self.refuse_partial()
        for graph in {id(g): g for g in self.graphs.values()}.values():
            graph.lint()
        after = Walk(self.graphs[False], self.twin, example, count=True).run().cost
        self.conversion = Conversion(
            policy,
            list(self.notes.values()),
            list(self.left.values()),
            list(self.refused.values()),
            dict(Counter(self.kinds.values())),
            tuple(example.shape[2:]),
            before,
            after,
        )

    def convert(self, original: Walk, example: Tensor) -> None:
        """Converts one graph."""
        try:
            GraphBuilder(self, original, example).build()
        except LayerError as error:
            if self.policy.partial:
                raise
            # what cannot be converted at all says more than what follows from it
            self.refuse_partial()
            if not isinstance(error, RunError) or not self.policy.padding.amount == "full":
                raise
            raise LayerError(
                f"{error}; padding={self.policy.padding} changes the size of maps, which a layer with a fixed number "
                "of positions cannot take"
            ) from error

    def keep_constants(self) -> None:
        """Makes buffers of the tensors that the network makes in its forward pass."""
        nodes = {n: None for graph in self.graphs.values() for n in graph.nodes if "constant" in n.meta}
        if not nodes:
            return
        holder = nn.Module()
        for number, node in enumerate(nodes):
            holder.register_buffer(f"tensor_{number}", node.meta.pop("constant"), persistent=False)
            node.target = f"policy_layers.constants.tensor_{number}"
        self.twin.policy_layers["constants"] = holder  # type: ignore[operator, index, assignment]

    def refuse_partial(self) -> None:
        """Raises PartialError for layers that a policy could not be put on, unless that was allowed."""
        if not self.refused or self.policy.partial:
            return
        notes = list(self.refused.values())
        allow = "partial=True converts the other layers"
        if len(notes) == 1:
            raise PartialError(f"layer {notes[0].layer}: {notes[0].text}; {allow}")
        shown = "; ".join(f"{note.layer}: {note.text}" for note in notes[:4])
        more = f"; and {len(notes) - 4} more" if len(notes) > 4 else ""
        raise PartialError(f"{len(notes)} layers cannot take {self.policy}: {shown}{more}; {allow}")

    def changed(self, layer: str, text: str, kind: str) -> None:
        """Takes note of what was done to a layer."""
        self.notes.setdefault((layer, text), Note(layer, text))
        self.kinds.setdefault((layer, text), kind)

    def leave(self, layer: str, reason: str) -> None:
        """Takes note of a layer that stays as it is, as it should."""
        self.left.setdefault((layer, reason), Note(layer, reason))

    def refuse(self, layer: str, reason: str) -> None:
        """Takes note of a layer that the policy was asked for and cannot be put on."""
        self.refused.setdefault(layer, Note(layer, reason))
