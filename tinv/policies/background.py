"""What a network answers to a blank image, followed beside the data: one constant a channel at every node.

Under background padding the border of a map holds what the layers before it answer to an image of zeros, so that a
blank canvas stays blank to its edge. The constants have one pixel an axis that the policy treats; time, where it is
left alone, keeps its size. A squeeze-excite gate scales them for each sample; norms use the statistics that the data
uses, in training those of the batch.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Sequence
from typing import Any, cast

import torch
from torch import Tensor, fx, nn
from torch.autograd.function import once_differentiable
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from tinv.errors import LayerError
from tinv.policies.geometry import Walk
from tinv.policies.operations import TRANSFORMERS, Operation, reduced_axes
from tinv.policies.places import Place, holds_positions, places_in
from tinv.policies.tracing import is_in_place, layer_of
from tinv.policies.values import norm_axes


def blank_image(images: Tensor, axes: tuple[int, ...]) -> Tensor:
    """Returns zeros (1, C, ...) with one pixel on the spatial axes named and the images' size on the others."""
    sizes = [1 if axis in axes else size for axis, size in enumerate(images.shape[2:])]
    return images.new_zeros(1, images.shape[1], *sizes)


def _over_window(blank: Tensor, reach: Iterable[int | None]) -> Tensor:
    sizes = [size if r is None else r for size, r in zip(blank.shape[2:], reach, strict=True)]
    return blank.expand(*blank.shape[:2], *sizes)


def blank_convolution(layer: nn.Module, blank: Tensor, reach: tuple[int, ...], axes: tuple[int, ...]) -> Tensor:
    """Returns a convolution's answer to a blank map, on `axes` to one window of it; there the layer must not pad."""
    grown = _over_window(blank, [r if axis in axes else None for axis, r in enumerate(reach)])
    answer: Tensor = layer.forward(grown)
    return answer


def blank_pool(
    pool: Callable[[Tensor], Tensor], blank: Tensor, reach: tuple[int, ...], axes: tuple[int, ...]
) -> Tensor:
    """Returns a pool's answer to a blank map: the same constant, pooled over the axes that are not in `axes`."""
    if len(axes) == blank.dim() - 2:
        return blank
    grown = _over_window(blank, [r if axis in axes else None for axis, r in enumerate(reach)])
    answer = pool(grown)
    return answer[
        (slice(None), slice(None), *(slice(0, 1) if axis in axes else slice(None) for axis in range(len(reach))))
    ]


def norm_and_blank(layer: nn.Module, images: Tensor, blank: Tensor) -> tuple[Tensor, Tensor]:
    """Returns a norm's answers to `images` (N, C, ...) and to a blank pixel, with the statistics it uses on `images`.

    Batch norms of torch and timm reckon the batch's moments once for both.
    """
    if not _shares_moments(layer, images):
        return layer(images), blank_norm(layer, blank, images)
    assert isinstance(layer, _BatchNorm)
    running, momentum = (layer.running_mean, layer.running_var), layer.momentum
    if not layer.track_running_stats:
        running = (None, None)
    elif layer.num_batches_tracked is not None:
        layer.num_batches_tracked.add_(1)
        if momentum is None:
            # the average over all batches so far
            momentum = 1.0 / float(layer.num_batches_tracked)
    data, blank = _BatchNormWithBlank.apply(
        images, blank, layer.weight, layer.bias, *running, momentum or 0.0, layer.eps
    )
    return _carried(layer, data, drops=True), _carried(layer, blank)


def _shares_moments(layer: nn.Module, images: Tensor) -> bool:
    known = type(layer).forward is _BatchNorm.forward or type(layer).__name__ == "BatchNormAct2d"
    hooked = bool(layer._forward_hooks or layer._forward_pre_hooks or layer._backward_hooks)
    # a compiler sees for itself that both passes need the same moments, and one value a channel is torch's to refuse
    several = images.numel() > images.shape[1]
    return known and layer.training and several and not (hooked or images.is_meta or torch.compiler.is_compiling())


class _BatchNormWithBlank(torch.autograd.Function):
    """Batch norm of a map and of a constant c beside it, by the moments of the map alone.

    With mean m, inverse deviation s, weight w and bias b, the constant becomes w s (c - m) + b. Its gradient reaches
    the map through both moments: dm/dx = 1/n and ds/dx = -s^3 (x - m) / n for n values a channel.
    """

    @staticmethod
    def forward(
        ctx: Any,
        images: Tensor,
        blank: Tensor,
        weight: Tensor | None,
        bias: Tensor | None,
        running_mean: Tensor | None,
        running_variance: Tensor | None,
        momentum: float,
        eps: float,
    ) -> tuple[Tensor, Tensor]:
        data, mean, deviation = torch.native_batch_norm(
            images, weight, bias, running_mean, running_variance, True, momentum, eps
        )
        ctx.save_for_backward(images, blank, weight, mean, deviation)
        ctx.eps = eps
        shape = (1, -1, *(1 for _ in blank.shape[2:]))
        scale = deviation if weight is None else deviation * weight
        answer = (blank - mean.view(shape)) * scale.view(shape)
        return data, answer if bias is None else answer + bias.view(shape)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, data_gradient: Tensor, blank_gradient: Tensor) -> tuple[Tensor | None, ...]:
        images, blank, weight, mean, deviation = ctx.saved_tensors
        needs_images, needs_blank, needs_weight, needs_bias = ctx.needs_input_grad[:4]
        for_images, for_weight, for_bias = torch.ops.aten.native_batch_norm_backward(
            data_gradient.to(images.dtype), images, weight, None, None, mean, deviation, True, ctx.eps,
            [needs_images, needs_weight, needs_bias],
        )  # fmt: skip
        shape = (1, -1, *(1 for _ in blank.shape[2:]))
        dims = [0, *range(2, blank.dim())]
        sums = blank_gradient.sum(dims)
        products = (blank_gradient * (blank - mean.view(shape))).sum(dims) * deviation
        if needs_weight:
            for_weight = for_weight + products
        if needs_bias:
            for_bias = for_bias + sums
        scale = deviation if weight is None else deviation * weight
        if needs_images:
            count = images.numel() / images.shape[1]
            slope = -scale * deviation * products / count
            level = -scale * sums / count - slope * mean
            each = (1, -1, *(1 for _ in images.shape[2:]))
            for_images.addcmul_(images, slope.to(images.dtype).view(each)).add_(level.to(images.dtype).view(each))
        for_blank = (blank_gradient * scale.view(shape)).to(blank.dtype) if needs_blank else None
        return for_images, for_blank, for_weight, for_bias, None, None, None, None


def blank_norm(layer: nn.Module, blank: Tensor, images: Tensor) -> Tensor:
    """Returns what a norm makes of a blank pixel, with the statistics it uses on `images`."""
    dims = [0, *range(2, images.dim())]
    if isinstance(layer, _BatchNorm):
        if not (layer.training or layer.running_mean is None):
            return layer.forward(blank)
        variance, mean = _moments(layer, images, dims)
        return _carried(layer, _affine(blank, mean, variance, layer.eps, layer.weight, layer.bias))
    if isinstance(layer, nn.GroupNorm):
        grouped = images.view(images.shape[0], layer.num_groups, -1, *images.shape[2:])
        variance, mean = torch.var_mean(grouped, dim=list(range(2, grouped.dim())), correction=0, keepdim=True)
        spread = [t.expand(-1, -1, grouped.shape[2], *t.shape[3:]).flatten(1, 2) for t in (variance, mean)]
        return _carried(layer, _affine(blank, spread[1], spread[0], layer.eps, layer.weight, layer.bias))
    if isinstance(layer, nn.modules.instancenorm._InstanceNorm):
        variance, mean = torch.var_mean(images, dim=dims[1:], correction=0, keepdim=True)
        return _affine(blank, mean, variance, layer.eps, layer.weight, layer.bias)
    # over the channels of one pixel
    return cast(Tensor, layer(blank))


def _carried(norm: nn.Module, images: Tensor, drops: bool = False) -> Tensor:
    """Applies the dropout and activation that timm's norms carry."""
    for name in ("drop", "act"):
        extra = getattr(norm, name, None)
        if isinstance(extra, nn.Module) and (drops or not isinstance(extra, _DropoutNd)):
            images = extra(images)
    return images


def _moments(layer: _BatchNorm, images: Tensor, dims: list[int]) -> tuple[Tensor, Tensor]:
    variance, mean = torch.var_mean(images, dim=dims, correction=0, keepdim=True)
    synchronised = isinstance(layer, nn.SyncBatchNorm) and torch.distributed.is_initialized()
    if not synchronised or torch.distributed.get_world_size() == 1:
        return variance, mean
    from torch.distributed.nn.functional import all_reduce

    # ranks may hold batches of different sizes
    count = mean.new_tensor(images.numel() / images.shape[1])
    sums = torch.stack([mean * count, (variance + mean.square()) * count, count.expand_as(mean)])
    total = all_reduce(sums, group=layer.process_group)  # type: ignore[no-untyped-call]
    mean, square = total[0] / total[2], total[1] / total[2]
    return square - mean.square(), mean


def _affine(
    blank: Tensor, mean: Tensor, variance: Tensor, eps: float, weight: Tensor | None, bias: Tensor | None
) -> Tensor:
    answer = (blank - mean) * torch.rsqrt(variance + eps)
    shape = (1, -1, *(1 for _ in blank.shape[2:]))
    if weight is not None:
        answer = answer * weight.view(shape)
    return answer if bias is None else answer + bias.view(shape)


def blank_pointwise(layer: Callable[[Tensor], Tensor], blank: Tensor) -> Tensor:
    """Returns what a layer that acts on each pixel alone makes of a blank one; nothing is dropped."""
    if isinstance(layer, _DropoutNd) or type(layer).__name__ in ("StochasticDepth", "DropPath"):
        return blank
    return layer(blank.clone() if getattr(layer, "inplace", False) else blank)


def blank_concatenation(blanks: Sequence[Tensor], dim: int) -> Tensor:
    """Returns the constants of concatenated maps; those of one sample count for all."""
    samples = max(blank.shape[0] for blank in blanks)
    return torch.cat([blank.expand(samples, *blank.shape[1:]) for blank in blanks], dim)


OUT_OF_PLACE: dict[Any, Callable[..., Any]] = {
    operator.iadd: operator.add,
    operator.isub: operator.sub,
    operator.imul: operator.mul,
    operator.itruediv: operator.truediv,
    operator.ipow: operator.pow,
}


def add_background(walk: Walk, axes: tuple[int, ...], needs: list[fx.Node]) -> None:
    """Adds to a graph what follows its background, as far as some nodes need it.

    Args:
        walk: over the graph, complete.
        axes: spatial axes that the policy treats.
        needs: nodes that fill a border; each gets the background of its first input as argument `background`.

    Raises:
        LayerError: naming a layer that the background cannot be followed through.
    """
    wanted: set[fx.Node] = set()
    stack = [cast(fx.Node, node.args[0]) for node in needs]
    while stack:
        node = stack.pop()
        if node not in wanted:
            wanted.add(node)
            stack += [s for s in walk.operations[node].inputs if _follows(walk, s)]
    blanks: dict[fx.Node, fx.Node] = {}
    for node in [n for n in walk.graph.nodes if n in wanted]:
        blanks[node] = _Emitter(walk, axes, node, blanks).emit()
    for node in needs:
        node.kwargs = {**node.kwargs, "background": blanks[cast(fx.Node, node.args[0])]}


def shared_moments(graph: fx.Graph) -> fx.Graph:
    """Returns a graph for training in which norms that the background passes reckon their moments once for both."""
    blanks = [n for n in graph.nodes if n.target is blank_norm]
    if not blanks:
        return graph
    twin = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    twin.output(twin.graph_copy(graph, copies))
    for blank in (copies[n] for n in blanks):
        layer, source, images = cast(list[fx.Node], blank.args)
        for norm in [n for n in images.users if n.op == "call_module" and n.target == layer.target]:
            with twin.inserting_before(norm):
                getter = twin.create_node("get_attr", layer.target)
                both = twin.call_function(norm_and_blank, (getter, images, source))
                norm.replace_all_uses_with(twin.call_function(operator.getitem, (both, 0)))
                blank.replace_all_uses_with(twin.call_function(operator.getitem, (both, 1)))
            twin.erase_node(norm)
            twin.erase_node(blank)
            break
    twin.lint()
    return twin


def _follows(walk: Walk, node: fx.Node) -> bool:
    """Returns whether a node has a background of its own: maps with positions, and sizes read off them."""
    if walk.spatial(node) or isinstance(walk.places.get(node), list):
        return True
    op = walk.operations[node]
    return op.kind in ("size", "item") and node.op != "get_attr" and any(_follows(walk, s) for s in op.inputs)


_NOT_FOLLOWED = ("opaque", "transposed", "patches", "shuffle", "locate", "scan", "attention")


class _Emitter:
    """Makes the nodes that compute the background after one node."""

    def __init__(self, walk: Walk, axes: tuple[int, ...], node: fx.Node, blanks: dict[fx.Node, fx.Node]) -> None:
        self.walk, self.axes, self.node, self.blanks = walk, axes, node, blanks
        self.last = node

    def emit(self) -> fx.Node:
        made = self.answer()
        if made not in self.blanks.values():
            self.check(made)
        return made

    def answer(self) -> fx.Node:
        node, op = self.node, self.walk.operations[self.node]
        if node.op == "placeholder":
            return self.call(blank_image, (node, self.axes))
        source = self.blanks.get(op.inputs[0]) if op.inputs else None
        if op.kind in ("conv", "max", "average"):
            return self.window(op, cast(fx.Node, source))
        if op.kind in ("fit", "blur", "polyphase", "resize", "adapt", "roll", "flip"):
            return cast(fx.Node, source)
        if op.kind == "pad" and op.pads is not None and not any(any(op.pads.of(dim, self.rank(op))) for dim in (0, 1)):
            return cast(fx.Node, source)
        if op.kind == "item" and self.walk.operations[op.inputs[0]].kind == "polyphase":
            return cast(fx.Node, source)
        if op.kind == "norm" and op.module is not None:
            return self.call(blank_norm, (self.layer(), source, op.inputs[0]))
        if op.kind in ("pointwise", "over_axes"):
            if op.module is not None and not self.runs_over_positions(op):
                return self.call(blank_pointwise, (self.layer(), source))
            if "drop" in op.name or op.name == "stochastic_depth":
                return cast(fx.Node, source)
        if op.kind == "concatenate":
            given: Any = node.args[0]
            parts = self.blanks[given] if isinstance(given, fx.Node) else [self.blanks.get(n, n) for n in given]
            return self.call(blank_concatenation, (parts, op.argument(1, "dim", 0)))
        if op.kind in _NOT_FOLLOWED or op.module is not None or self.runs_over_positions(op):
            raise self.refusal(op.name or "this layer")
        return self.mirror()

    def window(self, op: Operation, source: fx.Node) -> fx.Node:
        """Returns the answer of a convolution or pool."""
        assert op.window is not None
        reach = tuple(op.window.reach(axis) + 1 for axis in range(len(op.window.kernel)))
        if op.kind != "conv" and len(self.axes) == len(reach):
            return source
        if op.module is None:
            raise self.refusal(f"a call of {op.name}")
        if op.kind == "conv":
            return self.call(blank_convolution, (self.layer(), source, reach, self.axes))
        return self.call(blank_pool, (self.layer(), source, reach, self.axes))

    def rank(self, op: Operation) -> int:
        return len(self.walk.values[op.inputs[0]].shape)

    def runs_over_positions(self, op: Operation) -> bool:
        """Returns whether what a node gives at one position depends on the others, or on how many there are."""
        source = next((n for n in op.inputs if self.walk.spatial(n)), None)
        if source is None:
            return False
        places = self.walk.places_of(source)
        held = {dim for dim, entry in enumerate(places) if holds_positions(entry)}
        if op.kind == "norm":
            return op.name == "batch_norm" or bool(held & norm_axes(op, places, self.walk.values[source].shape)[0])
        if isinstance(op.module, TRANSFORMERS):
            return True
        if op.kind == "over_axes":
            dim = getattr(op.module, "dim", 1) if op.module is not None else op.argument(1, "dim", 1)
            if op.name in ("normalize", "local_response_norm", "LocalResponseNorm"):
                dim = op.argument(2, "dim", 1) if op.name == "normalize" else 1
            return dim is None or int(dim) % len(places) in held
        if op.kind == "reduce":
            averages = op.name in ("mean", "amax", "amin", "max", "min", "median")
            return not averages and bool(held & set(reduced_axes(op, len(places))))
        if op.kind == "contract":
            after = {p.axis for entry in self.walk.places[self.node] or () for p in places_in(entry)}
            return any(
                p.axis not in after for n in op.inputs for e in self.walk.places.get(n) or () for p in places_in(e)
            )
        return False

    def check(self, made: fx.Node) -> None:
        """Refuses an answer that is not one number for all positions, as where positions are given by number."""
        answers, values, places = self.walk.values[made], self.walk.values[self.node], self.walk.places[self.node]
        if not isinstance(places, list):
            answers, values, places = [answers], [values], [places]
        for answer, value, known in zip(answers, values, places, strict=True):
            if not isinstance(answer, Tensor) or not isinstance(known, tuple):
                continue
            wanted = [
                1 if isinstance(entry, Place) and entry.axis in self.axes else size
                for entry, size in zip(known, value.shape, strict=True)
            ]
            if answer.dim() != len(wanted) or list(answer.shape[1:]) != wanted[1:]:
                raise self.refusal(self.walk.operations[self.node].name or "this layer")

    def mirror(self) -> fx.Node:
        """Does to the background what the node does to the data."""
        node = self.node
        args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda n: self.blanks.get(n, n))
        if self.walk.operations[node].kind == "item" and self.walk.spatial(node):
            args = (args[0], self.whole(args[1]))
        target: Any = OUT_OF_PLACE.get(node.target, node.target)
        if is_in_place(node, self.walk.network) and target is node.target:
            if node.op == "call_method":
                target = str(target).rstrip("_")
            else:
                args = (self.make("call_method", "clone", (args[0],), {}), *args[1:])
        return self.make(node.op, target, args, kwargs)

    def whole(self, index: Any) -> Any:
        """Returns an index without its slices of positions, of which the background has only one."""
        if not isinstance(index, tuple) or Ellipsis in index:
            return index
        source: Any = self.walk.places[self.walk.operations[self.node].inputs[0]]
        dims = iter(source)
        return tuple(i if i is None or not holds_positions(next(dims)) else slice(None) for i in index)

    def layer(self) -> fx.Node:
        return self.make("get_attr", self.node.target, (), {}, run=False)

    def call(self, function: Callable[..., Any], args: tuple[Any, ...]) -> fx.Node:
        return self.make("call_function", function, args, {})

    def make(self, op: str, target: Any, args: Any, kwargs: Any, run: bool = True) -> fx.Node:
        graph = self.walk.graph
        with graph.inserting_after(self.last):
            made = graph.create_node(op, target, args, kwargs)
        self.last = made
        made.meta["background"] = True
        made.meta["nn_module_stack"] = self.node.meta.get("nn_module_stack", {})
        try:
            with torch.no_grad():
                self.walk.values[made] = self.walk.evaluate(made)
        except Exception as error:
            raise self.refusal("this layer") from error
        self.walk.places[made] = None
        return made

    def refusal(self, what: str) -> LayerError:
        return LayerError(
            f"layer {layer_of(self.node)}: background padding cannot follow the background through {what}; use zero or "
            "circular padding"
        )
