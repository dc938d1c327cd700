"""Sizes at which adaptive subsampling cannot be exact: those of maps that its stride does not divide."""

from __future__ import annotations

import math
import warnings
from contextlib import suppress

from tinv.errors import LayerError, TinvWarning
from tinv.graph.geometry import GeometryInterpreter
from tinv.graph.grid import grids_of
from tinv.graph.network_graph import layer_name
from tinv.surgery.edit import NetworkEdit


def check_inexact_sizes(network: NetworkEdit, geometry: GeometryInterpreter) -> None:
    """Warns of an image size at which some stride of an adaptive layer does not divide its map, or refuses it.

    Under full padding any size will do: what is added is the canvas, which is there anyway.

    Args:
        network: The network under its policies.
        geometry: Of its graph in evaluation, complete.

    Raises:
        LayerError: If the policy does not allow such sizes (`allow_inexact=False`), naming the first layer, its map,
            and sizes of images that work.
    """
    policy = network.policy
    allowed = policy.subsampling.allow_inexact
    if allowed or policy.padding.amount == "full":
        return
    problem = next(iter(_problems(geometry).values()), None)
    if problem is None:
        return
    sizes = _sizes_that_work(network, geometry)
    hint = f"images of {' or '.join(sizes)} work; " if sizes else ""
    image = "x".join(map(str, geometry.example.shape[2:]))
    text = (
        f"layer {problem}, so that subsampling={policy.subsampling} follows no shift exactly on images of {image}; "
        f"{hint}allow_inexact=True takes these"
    )
    if allowed is False:
        raise LayerError(text)
    warnings.warn(text, TinvWarning, stacklevel=3)


def _problems(geometry: GeometryInterpreter) -> dict[int, str]:
    """Returns, for each axis on which some adaptive layer's stride does not divide its map, what is wrong there."""
    found: dict[int, str] = {}
    for node, op in geometry.operations.items():
        if op.kind != "polyphase" or op.window is None or not str(node.target).startswith("policy_layers."):
            continue
        for axis, size in enumerate(geometry.values[op.inputs[0]].shape[2:]):
            left, right = op.window.widths(axis, size)
            size += left + right - op.window.effective_kernel_size(axis) + 1
            if size % op.window.stride[axis]:
                text = f"its {size} positions are not a multiple of its stride {op.window.stride[axis]}"
                found.setdefault(axis, f"{layer_name(node)}: {text}")
    return found


def _sizes_that_work(network: NetworkEdit, geometry: GeometryInterpreter) -> list[str]:
    """Returns image sizes near the one given that all strides divide: a smaller and a larger one, as far as there are.

    Multiples of the total stride come first. Where they do not work, as under `valid`, the next larger sizes are tried.
    """
    image = geometry.example.shape[2:]
    known = [grid for grids in geometry.grids.values() if isinstance(grids, tuple) for grid in grids_of(grids)]
    total = [
        math.lcm(*(abs(grid.stride.numerator) for grid in known if grid.axis == axis)) for axis in range(len(image))
    ]
    bad = _problems(geometry)

    def working(sizes: list[int]) -> dict[int, int]:
        example = geometry.example.new_empty(*geometry.example.shape[:2], *sizes)
        with suppress(LayerError):
            left = _problems(GeometryInterpreter(network.graphs[False], network.meta_copy, example).run())
            return {axis: size for axis, size in enumerate(sizes) if axis not in left}
        return {}

    smaller = working([size // total[axis] * total[axis] if axis in bad else size for axis, size in enumerate(image)])
    larger = working(
        [-(-size // total[axis]) * total[axis] if axis in bad else size for axis, size in enumerate(image)]
    )
    for more in range(1, max(total) + 1):
        if len(larger) == len(image):
            break
        larger = working([size + more if axis in bad else size for axis, size in enumerate(image)]) | larger
    complete = [sizes for sizes in (smaller, larger) if len(sizes) == len(image)]
    return ["x".join(str(sizes[axis]) for axis in range(len(image))) for sizes in complete]
