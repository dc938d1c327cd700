"""Puts an anchor before a network: each image is rolled to one position that its content says."""

from __future__ import annotations

from typing import cast

from torch import nn

from tinv.graph.network_graph import NetworkGraph
from tinv.nn.tokens import PolyphaseAnchor
from tinv.surgery.edit import NetworkEdit
from tinv.surgery.tokens import checked_patch_embedding


def anchor_input(network: NetworkEdit, graph: NetworkGraph) -> None:
    """Rolls the images of a graph to their canonical position before anything else, if the policy says so."""
    if not network.policy.tokens.anchors_input:
        return
    path, layers = "policy_layers.anchor", cast(nn.ModuleDict, network.meta_copy.policy_layers)
    if "anchor" not in layers:
        _, conv = checked_patch_embedding(network.meta_copy, network.policy)
        rows, columns = conv.kernel_size
        network.add_layer("anchor", PolyphaseAnchor((rows, columns)))
        text = f"rolled so that its strongest patch of {rows}x{columns} pixels is the first"
        network.conversion.change("input", text, "inputs anchored")
    images = next(node for node in graph.nodes if node.op == "placeholder")
    with graph.inserting_after(images):
        anchored = graph.call_module(path, (images,))
    images.replace_all_uses_with(anchored, delete_user_cb=lambda user: user is not anchored)
    graph.layer_names[anchored] = "anchor"
