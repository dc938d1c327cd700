"""Puts a padding and a subsampling policy onto any network: `tinv.convert`."""

from __future__ import annotations

import copy
import linecache
import math
import operator
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal, cast, get_args

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd

from tinv.errors import LayerError, TinvError, unknown
from tinv.policies.alignment import Aligner
from tinv.policies.background import add_background, shared_moments
from tinv.policies.cards import Padding, Subsampling
from tinv.policies.geometry import Cost, Place, Walk
from tinv.policies.operations import Operation, Window, is_tensorflow_same, written_pads
from tinv.policies.padding import (
    Content,
    PaddedConv,
    PolicySequential,
    check_padding,
    fit,
    flat,
    pad,
    padding_amounts,
    padding_content,
)
from tinv.policies.pooling import Pool
from tinv.policies.subsampling import (
    AdaptivePolyphase,
    BlurPool,
    FollowingPolyphase,
    LeadingPolyphase,
    blur_size,
    check_subsampling,
    subsampler,
)
from tinv.policies.tracing import Mode, is_geometric, is_in_place, layer_of, on_meta, trace, with_weights_of

PoolPolicy = Literal["keep", "valid", "same", "full"]
Stem = Literal["keep", "convert"]
Axes = Literal["space", "space+time"]
BlurPadding = Literal["as_padding", "zero", "reflect", "replicate", "circular"]


@dataclass(frozen=True)
class Settings:
    """The policies of a conversion; see `convert` for each."""

    padding: Padding = "keep"
    subsampling: Subsampling = "keep"
    pool: PoolPolicy = "keep"
    stem: Stem = "keep"
    axes: Axes = "space"
    blur_padding: BlurPadding = "as_padding"

    def check(self) -> None:
        """Raises TinvError for a name that does not exist."""
        check_padding(self.padding)
        check_subsampling(self.subsampling)
        for name, choices in (("pool", PoolPolicy), ("stem", Stem), ("axes", Axes), ("blur_padding", BlurPadding)):
            if getattr(self, name) not in get_args(choices):
                raise unknown(name, getattr(self, name), get_args(choices))

    @property
    def keeps_all(self) -> bool:
        """Whether nothing is to be changed."""
        return (self.padding, self.subsampling, self.pool) == ("keep", "keep", "keep")

    def __str__(self) -> str:
        """The policies that are not at their default."""
        said = {name: value for name, value in vars(self).items() if value != getattr(Settings, name)}
        return ", ".join(f"{name}={value}" for name, value in said.items()) or "padding=keep, subsampling=keep"


@dataclass(frozen=True)
class Note:
    """A layer's path, and what was done to it or why it was left."""

    layer: str
    text: str


@dataclass
class Conversion:
    """What `convert` did.

    Attributes:
        settings: the policies.
        changed: layers that were changed or added, in the order of running, each with what was done.
        left: layers that the policies name but that were left, each with the reason.
        counts: how many layers of each kind of change.
        size: of the example's images, in pixels.
        before: what the example cost in evaluation before the conversion.
        after: what it costs since.
    """

    settings: Settings
    changed: list[Note] = field(default_factory=list)
    left: list[Note] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    size: tuple[int, ...] = ()
    before: Cost = field(default_factory=Cost)
    after: Cost = field(default_factory=Cost)

    @property
    def price(self) -> str:
        """What the conversion costs, in words."""
        flops, memory = self.after.flops / max(self.before.flops, 1), self.after.bytes / max(self.before.bytes, 1)
        size = "x".join(map(str, self.size))
        return f"{flops:.2f}x the FLOPs and {memory:.2f}x the activation memory on {size} images"

    def __str__(self) -> str:
        """The policies, the counts, and a line for each layer."""
        lines = [str(self.settings), ", ".join(f"{n} {what}" for what, n in self.counts.items()) or "nothing changed"]
        lines += [self.price] if self.size else []
        lines += [f"  {note.layer}: {note.text}" for note in self.changed]
        lines += [f"  {note.layer}: left: {note.text}" for note in self.left]
        return "\n".join(lines)


class ConvertedNetwork(nn.Module):
    """A network under policies: the layers and weights of the original, run by its changed graph.

    Parameter names, shapes and order are those of the original, so state dicts load in and out. Attributes of the
    original that are plain values are kept; its methods other than `forward` are not, since they would bypass the
    changes.

    Attributes:
        conversion: what was done.
        graphs: the torch.fx graph in training (True) and in evaluation (False).
    """

    conversion: Conversion
    graphs: dict[Mode, fx.Graph]

    def __init__(self, layers: nn.Module, graphs: dict[Mode, fx.Graph], conversion: Conversion) -> None:
        super().__init__()
        self.__dict__.update(layers.__dict__)
        self.original_class = type(layers).__name__
        self.conversion, self.graphs = conversion, graphs
        self._compile()

    def forward(self, images: Tensor) -> Any:
        return self._programs[self.training](self, images)

    def _compile(self) -> None:
        graphs = {training: shared_moments(graph) if training else graph for training, graph in self.graphs.items()}
        self._programs = {training: _program(graph, self.original_class) for training, graph in graphs.items()}

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key != "_programs"}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self._compile()

    def __deepcopy__(self, memo: dict[int, Any]) -> ConvertedNetwork:
        twin = ConvertedNetwork.__new__(ConvertedNetwork)
        memo[id(self)] = twin
        # programs and graphs name layers and hold no weights, so that copies share them
        shared = ("graphs", "_programs", "conversion")
        for key, value in self.__dict__.items():
            twin.__dict__[key] = value if key in shared else copy.deepcopy(value, memo)
        return twin

    def __getattr__(self, name: str) -> Any:
        try:
            return super().__getattr__(name)
        except AttributeError:
            raise AttributeError(
                f"converted {self.__dict__.get('original_class', 'network')} has no attribute {name!r}; of the "
                "original's methods only forward is converted"
            ) from None

    def _get_name(self) -> str:
        return f"Converted{self.original_class}"

    def extra_repr(self) -> str:
        return str(self.conversion.settings)


_PROGRAMS = iter(range(10**9))


def _program(graph: fx.Graph, name: str) -> Callable[[nn.Module, Tensor], Any]:
    """Returns a graph as a function of the module that holds its layers and of the images."""
    code = graph.python_code("self")
    file = f"<tinv converted {name} {next(_PROGRAMS)}>"
    # tracebacks show the line
    linecache.cache[file] = (len(code.src), None, code.src.splitlines(keepends=True), file)
    namespace = dict(code.globals)
    exec(compile(code.src, file, "exec"), namespace)
    return cast(Callable[[nn.Module, Tensor], Any], namespace["forward"])


def convert_if_needed(model: nn.Module, example_input: Tensor, **policies: Any) -> nn.Module:
    """Returns `convert(model, ...)`, or the model itself if all policies are `keep`.

    A policy that changes nothing, such as `same_zero` on a network that has it, is not warned of: it is the plain cell
    of a comparison.
    """
    settings = Settings(**policies)
    settings.check()
    if settings.keeps_all:
        return model
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*changed nothing.*")
        return convert(model, example_input=example_input, **policies)


def convert(
    model: nn.Module,
    padding: Padding = "keep",
    subsampling: Subsampling = "keep",
    *,
    pool: PoolPolicy = "keep",
    stem: Stem = "keep",
    axes: Axes = "space",
    blur_padding: BlurPadding = "as_padding",
    example_input: Tensor,
) -> nn.Module:
    """Returns a copy of a network under a padding and a subsampling policy; the given network is left as it was.

    Padding changes every convolution with a kernel larger than one pixel. Pools keep the amounts of their padding
    unless `pool` says otherwise, but circular and background policies also say what fills it. Branches that meet
    (add, multiply, concatenate) are padded or cropped so that they show the same pixels.

    Subsampling changes every convolution and pool with a stride. Blur and adaptive layers come after the norm and
    activation that follow the strided layer, and before a strided 1x1 convolution (Zhang, ICML 2019). Under `full_*`
    padding they are padded fully too, as in Kayhan & van Gemert's F+BlurPool networks. Pools keep their
    kernel at stride 1. Adaptive layers of one resolution share one choice a sample.

    Args:
        model: takes one batch of images (N, C, *spatial), one to three spatial axes.
        padding: see `tinv list padding`.
        subsampling: see `tinv list subsampling`.
        pool: padding of pools: `keep`, `valid`, `same` ((k-1)/2 a side) or `full` (k-1 a side).
        stem: `keep` leaves the stride of the first convolution, as the BlurPool networks of Kayhan & van Gemert do.
        axes: of clips (N, C, T, H, W): `space` leaves time as it is.
        blur_padding: what the border of blurs holds; `as_padding` follows `padding`, zeros for `keep`. That border
            is full, size - 1 pixels a side, under `full_*`.
        example_input: images of any values; the converted network takes other sizes and batches too.

    Returns:
        A `ConvertedNetwork` (a plain copy if all policies are `keep`), on the same device, in the same mode, whose
        parameter names, shapes and order are the old ones, and whose attribute `conversion` is a `Conversion`.

    Raises:
        TinvError: for an unknown policy, a wrapped model, an example of the wrong rank, or one too small for `valid`
            (naming the least size that works).
        LayerError: naming a layer that cannot be traced, or cannot take a policy.
    """
    settings = Settings(padding, subsampling, pool, stem, axes, blur_padding)
    settings.check()
    _check_model(model, example_input)
    if isinstance(model, ConvertedNetwork):
        if model.conversion.settings == settings or settings.keeps_all:
            return copy.deepcopy(model)
        raise TinvError(
            f"this network is already converted ({model.conversion.settings}); convert the original with all policies "
            "at once"
        )
    if settings.keeps_all:
        same = copy.deepcopy(model)
        same.conversion = Conversion(settings)  # type: ignore[assignment]
        return same
    try:
        builder = _Builder(model, settings, example_input.detach().to("meta"))
    except LayerError as error:
        if padding != "valid":
            raise
        raise TinvError(f"{error}{_least_size(model, settings, example_input)}") from error
    network = ConvertedNetwork(with_weights_of(builder.twin, model), builder.graphs, builder.conversion)
    weight = next(model.parameters(), None)
    if weight is not None:
        cast(nn.Module, network.policy_layers).to(weight.device)
    network.train(model.training)
    for name, module in model.named_modules():
        network.get_submodule(name).training = module.training
    _warn(builder.conversion, type(model).__name__)
    return network


def _check_model(model: nn.Module, example: Tensor) -> None:
    if not isinstance(example, Tensor):
        raise TinvError(f"example_input must be a tensor of images (N, C, *spatial), not {type(example).__name__}")
    if any(isinstance(module, (PaddedConv, PolicySequential)) for module in model.modules()):
        raise TinvError(
            f"{type(model).__name__} is built from tinv's own layers, which take their policy when they are built: "
            "tinv.create_backbone(name, padding=..., subsampling=...)"
        )
    wrappers = {
        "DistributedDataParallel": "module",
        "DataParallel": "module",
        "FullyShardedDataParallel": "module",
        "OptimizedModule": "_orig_mod",
    }
    inner = wrappers.get(type(model).__name__)
    if inner is not None:
        raise TinvError(
            f"the network is wrapped in {type(model).__name__}; convert model.{inner} and wrap the result anew"
        )
    if isinstance(model, torch.jit.ScriptModule):
        raise TinvError("a TorchScript module cannot be converted; convert the network before scripting it")
    convs = {
        name: module for name, module in model.named_modules() if isinstance(module, (nn.Conv1d, nn.Conv2d, nn.Conv3d))
    }
    # the first layer's rank, but 1-D layers inside of 2-D networks act on channels
    rank = next((len(conv.kernel_size) + 2 for conv in convs.values()), example.dim())
    if example.dim() != rank or not 3 <= example.dim() <= 5:
        name, conv = next(iter(convs.items()), ("the network", model))
        raise TinvError(
            f"example_input has shape {tuple(example.shape)}, {example.dim()} axes; layer {name} "
            f"({type(conv).__name__}) takes {rank}: (N, C, *spatial)"
        )


def _warn(conversion: Conversion, name: str) -> None:
    settings, counts = conversion.settings, conversion.counts
    if settings.padding != "keep" and not counts.get("convolutions padded"):
        warnings.warn(f"padding={settings.padding} changed nothing in {name}", stacklevel=3)
    if settings.subsampling != "keep" and not counts.get("strides replaced"):
        warnings.warn(f"subsampling={settings.subsampling} changed nothing in {name}", stacklevel=3)


def _least_size(model: nn.Module, settings: Settings, example: Tensor) -> str:
    """Returns the end of an error message: the smallest images that work under `valid`, if any do."""
    builder = None
    sizes = list(example.shape[2:])
    spatial = _policy_axes(settings, len(sizes))

    def at(scale: float) -> Tensor:
        return torch.empty(
            *example.shape[:2],
            *(math.ceil(s * scale) if axis in spatial else s for axis, s in enumerate(sizes)),
            device="meta",
            dtype=example.dtype,
        )

    scale = 1.0
    while builder is None and max(sizes) * scale < 8192:
        scale *= 1.5
        try:
            builder = _Builder(model, settings, at(scale))
        except LayerError:
            continue
    if builder is None:
        return ""
    low, high = scale / 1.5, scale
    while max(sizes) * (high - low) >= 1:
        middle = (low + high) / 2
        try:
            Walk(builder.graphs[False], builder.twin, at(middle)).run()
            high = middle
        except LayerError:
            low = middle
    least = "x".join(str(size) for size in at(high).shape[2:])
    return f"; under padding=valid the least input that works is {least}"


def _policy_axes(settings: Settings, axes: int) -> tuple[int, ...]:
    """Returns the spatial axes that the policies treat: all, or for clips those of space."""
    return tuple(range(1, axes)) if axes == 3 and settings.axes == "space" else tuple(range(axes))


class _Builder:
    """Converts a copy of a network that has shapes but no values.

    Attributes:
        twin: the changed copy, on the meta device.
        graphs: its changed graphs.
        conversion: what was done.
    """

    def __init__(self, model: nn.Module, settings: Settings, example: Tensor) -> None:
        self.settings = settings
        self.twin = on_meta(model).eval()
        self.edited: dict[str, Window] = {}
        self.notes: dict[tuple[str, str], Note] = {}
        self.left: dict[tuple[str, str], Note] = {}
        self.kinds: dict[tuple[str, str], str] = {}
        self.graphs = trace(self.twin)
        # added afterwards, or a Sequential would run it
        self.twin.policy_layers = nn.ModuleDict()
        self.twin.eval()
        walks = {id(g): Walk(g, self.twin, example, count=True).run() for g in self.graphs.values()}
        before = walks[id(self.graphs[False])].cost
        # every graph is seen before any layer is changed
        for original in walks.values():
            _GraphBuilder(self, original, example).build()
        for graph in {id(g): g for g in self.graphs.values()}.values():
            graph.lint()
        after = Walk(self.graphs[False], self.twin, example, count=True).run().cost
        counts = Counter(self.kinds.values())
        self.conversion = Conversion(
            settings,
            list(self.notes.values()),
            list(self.left.values()),
            dict(counts),
            tuple(example.shape[2:]),
            before,
            after,
        )

    def changed(self, layer: str, text: str, kind: str) -> None:
        self.notes.setdefault((layer, text), Note(layer, text))
        self.kinds.setdefault((layer, text), kind)

    def leave(self, layer: str, reason: str) -> None:
        self.left.setdefault((layer, reason), Note(layer, reason))


class _GraphBuilder:
    """Changes one graph, node by node, with a walk that is always complete up to the node at hand."""

    def __init__(self, builder: _Builder, original: Walk, example: Tensor) -> None:
        self.builder, self.settings, self.twin = builder, builder.settings, builder.twin
        self.original, self.graph = original, original.graph
        self.walk = Walk(self.graph, self.twin, example)
        self.axes = _policy_axes(self.settings, self.walk.axes)
        self.content: Content = padding_content(self.settings.padding)
        self.full = self.settings.padding.startswith("full_")
        self.origins: dict[fx.Node, dict[int, Place]] = {}
        self.leaders: dict[tuple[Any, ...], fx.Node] = {}
        self.concatenations: dict[tuple[Any, ...], fx.Node] = {}
        self.stem: fx.Node | None = None
        self.done: set[fx.Node] = set()
        self.aligner = Aligner(
            self.walk, self.origin, self.content, self.settings.padding == "valid", builder.leave, self.adopt
        )

    def origin(self, node: fx.Node) -> dict[int, Place]:
        """Returns where a node's map was before the policy."""
        if node not in self.origins:
            self.origins[node] = self.original.on_axes(node)
        return self.origins[node]

    def adopt(self, node: fx.Node, source: fx.Node) -> None:
        """Takes note of a new node, whose map has the original place of another's."""
        self.origins[node] = self.origin(source)

    def build(self) -> None:
        if self.settings.padding != "keep":
            self.fold_pads()
        node = next(iter(self.graph.nodes))
        while node.op != "root":
            following = self.visit(node)
            node = following or node.next
        if self.content == "background":
            needs = [n for n in self.graph.nodes if self.fills_border(n)]
            add_background(self.walk, self.axes, needs)
        self.twin.eval()

    def visit(self, node: fx.Node) -> fx.Node | None:
        """Changes and runs a node; returns the node to go on with, if it is not the next one."""
        op = self.original.operations.get(node)
        if op is None or node in self.done:
            # one of ours, or changed already before what was put in front of it
            self.walk.step(node)
            if isinstance(self.walk.operations[node].module, AdaptivePolyphase):
                return self.share_choice(node)
            return None
        if op.kind in ("conv", "max", "average", "blur") and op.inputs:
            self.done.add(node)
            first = self.window(node, op)
            if first is not None:
                return first
        elif op.kind in ("merge", "concatenate"):
            if op.kind == "concatenate":
                self.running_concatenation(node)
            if self.aligner.align(node, node.all_input_nodes):
                self.builder.changed(layer_of(node), "branches aligned", "branches aligned")
        elif op.kind == "opaque" and op.module is not None and is_geometric(op.module):
            self.refuse_unknown(node, op.module)
        self.walk.step(node)
        return None

    def refuse_unknown(self, node: fx.Node, module: nn.Module) -> None:
        if self.original.spatial(node.args[0]):
            raise LayerError(f"layer {layer_of(node)}: {type(module).__name__} cannot take {self.settings}")

    # windows

    def window(self, node: fx.Node, op: Operation) -> fx.Node | None:
        """Puts the policies onto a convolution, pool or blur; returns a new node that has to be run before it."""
        source, window, layer = node.all_input_nodes[0], op.window, layer_of(node)
        assert window is not None
        if op.kind == "conv" and self.stem is None:
            self.stem = source
        touched = [a for a in range(len(window.kernel)) if window.kernel[a] > 1 or window.stride[a] > 1]
        if not self.walk.is_map(source) or len(window.kernel) != self.walk.axes:
            if touched:
                self.builder.leave(layer, "does not slide over the image's axes")
            return None
        if set(self.origin(source)) != set(range(self.walk.axes)):
            self.builder.leave(layer, "its map was resized, and holds no positions of the image")
            return None
        places = self.walk.on_axes(source)
        thinned = tuple(
            s if axis in self.axes and self.settings.subsampling != "keep" else 1
            for axis, s in enumerate(window.stride)
        )
        # parallel branches of a stem keep their strides together
        first_conv = op.kind == "conv" and self.stem is source
        if first_conv and self.settings.stem == "keep" and any(s > 1 for s in thinned):
            thinned = (1,) * len(thinned)
            self.builder.leave(layer, "the stride of the first convolution, by stem=keep")
        if op.kind == "blur":
            return self.blur(node, window, layer)
        dense = self.settings.subsampling == "dense"
        new = replace(
            window,
            stride=tuple(1 if t > 1 else s for s, t in zip(window.stride, thinned, strict=True)),
            dilation=tuple(
                d * int(self.origin(source)[axis].stride / places[axis].stride) if dense else d
                for axis, d in enumerate(window.dilation)
            ),
            content=self.fill(op, window),
        )
        new = replace(new, amounts=self.amounts(op, window, new, thinned))
        if new.amounts is not None and not any(flat(new.amounts)) and not new.ceil_mode:
            # nothing is filled, whatever it would be filled with
            new = replace(new, content=window.content)
        if op.kind != "conv" and self.settings.pool != "keep":
            new = replace(new, counts_padding=self.settings.pool == "full", ceil_mode=False)
        elif window.ceil_mode and any(t > 1 for t in thinned):
            # what ceil_mode adds is never counted
            counts = window.counts_padding and any(flat(window.amounts or ()))
            new = replace(new, ceil_mode=False, counts_padding=counts)
        pointwise = all(k == 1 for k in window.kernel)
        before: fx.Node | None = None
        if any(t > 1 for t in thinned):
            before = self.thin(node, op, thinned, layer, pointwise)
        if new != window:
            padded = self.edit(node, op, window, new, layer)
            if before is None:
                before = padded
        return before

    def fill(self, op: Operation, window: Window) -> Content:
        """Returns what the padding of a layer holds."""
        if self.settings.padding == "keep":
            return window.content
        if op.kind == "conv" or self.settings.pool != "keep" or self.content in ("circular", "background"):
            return self.content
        return window.content

    def amounts(self, op: Operation, old: Window, new: Window, thinned: Sequence[int]) -> Any:
        """Returns the padding of a layer whose stride and dilation are known; None where its size decides."""
        amounts = []
        if op.kind == "conv":
            policy = self.settings.padding
        elif self.settings.pool == "keep":
            policy = "keep"
        else:
            # the amounts of a policy are the first half of its name
            policy = cast(Padding, {"valid": "valid", "same": "same_zero", "full": "full_zero"}[self.settings.pool])
        folded = op.inputs[0].meta.get("folded") if op.kind != "conv" and op.inputs else None
        for axis in range(len(old.kernel)):
            kernel, dilation = old.kernel[axis], new.dilation[axis]
            if axis in self.axes and policy != "keep":
                [pair] = padding_amounts(policy, [kernel], [dilation])
            elif old.amounts is not None:
                factor = dilation // old.dilation[axis]
                left, right = old.amounts[axis]
                pair = (left * factor, right * factor)
            elif new.stride == old.stride and new.dilation == old.dilation and new.content == old.content:
                return None
            elif new.stride == old.stride:
                pair = old.padding(axis, self.original.on_axes(op.inputs[0])[axis].size)
            else:
                [pair] = padding_amounts("same_zero", [kernel], [dilation])
            if folded and policy == "keep":
                pair = (pair[0] + folded[axis][0], pair[1] + folded[axis][1])
            reach = dilation * (kernel - 1)
            if new.content == "circular" and thinned[axis] > 1 and op.kind != "conv":
                # a dense pool of a ring has as many cells as the ring
                pair = (pair[0], max(pair[1], reach - pair[0]))
            elif old.ceil_mode and thinned[axis] > 1:
                # the last window of ceil_mode, of which only the beginning lies on the map
                pair = (pair[0], min(pair[1] + thinned[axis] - 1, max(pair[1], reach)))
            amounts.append(pair)
        return tuple(amounts)

    def edit(self, node: fx.Node, op: Operation, old: Window, new: Window, layer: str) -> fx.Node | None:
        """Changes a layer to a window; returns the node that pads its input, if one was needed."""
        said = []
        if new.stride != old.stride:
            said.append(f"stride {_sizes(old.stride)} -> {_sizes(new.stride)}")
        if new.dilation != old.dilation:
            said.append(f"dilation {_sizes(old.dilation)} -> {_sizes(new.dilation)}")
        if new.amounts != old.amounts or new.content != old.content:
            said.append(f"padding {_padding(old)} -> {_padding(new)}")
        padded = [
            axis
            for axis in self.axes
            if self.settings.padding != "keep"
            and op.kind == "conv"
            and (old.kernel[axis] > 1 or new.amounts != old.amounts)
        ]
        if said:
            self.builder.changed(layer, ", ".join(said), "convolutions padded" if padded else "windows changed")
        if op.kind != "conv":
            self.replace_pool(node, op, new)
            return None
        module = cast(_ConvNd, op.module)
        self.once(str(node.target), new)
        assert new.amounts is not None
        inside = new.content == "zero" and all(left == right for left, right in new.amounts)
        outside = [(0, 0) if inside or axis not in self.axes else pair for axis, pair in enumerate(new.amounts)]
        kept = [pair[0] if inside or axis not in self.axes else 0 for axis, pair in enumerate(new.amounts)]
        _set_conv(module, new, kept)
        if not any(left or right for left, right in outside):
            return None
        source = node.all_input_nodes[0]
        with self.graph.inserting_before(node):
            padded_map = self.graph.call_function(pad, (source, outside, new.content))
        padded_map.meta["layer"] = f"{layer} (padding)"
        self.adopt(padded_map, source)
        node.replace_input_with(source, padded_map)
        return padded_map

    def once(self, path: str, window: Window) -> None:
        """Checks that a layer that runs several times is to be changed in one way."""
        if self.builder.edited.setdefault(path, window) != window:
            raise LayerError(f"layer {path} runs several times, and the policies want it different each time")

    def replace_pool(self, node: fx.Node, op: Operation, new: Window) -> None:
        """Puts a `Pool` where a pool was."""
        kind: Any = op.kind
        policy = cast(Padding, f"same_{new.content}")
        layer = Pool(
            kind,
            list(new.kernel),
            list(new.stride),
            policy,
            list(new.dilation),
            amounts=[(int(left), int(right)) for left, right in new.amounts or ()],
            ceil_mode=new.ceil_mode,
            count_padding=new.counts_padding,
        )
        if op.module is not None and self.builder.edited.get(str(node.target), new) == new:
            self.builder.edited[str(node.target)] = new
            _set_module(self.twin, str(node.target), layer)
        else:
            self.call_layer(node, layer, layer_of(node))
        if node.op == "call_module":
            node.args, node.kwargs = (node.all_input_nodes[0],), {}

    def call_layer(self, node: fx.Node, layer: nn.Module, name: str) -> None:
        """Makes a node call a new layer."""
        node.op, node.target = "call_module", self.add_layer(name, layer)
        node.args, node.kwargs = (node.all_input_nodes[0],), {}

    def add_layer(self, name: str, layer: nn.Module) -> str:
        layers = cast(nn.ModuleDict, self.twin.policy_layers)
        key = base = name.replace(".", "_")
        number = 1
        while key in layers:
            number += 1
            key = f"{base}_{number}"
        layers[key] = layer
        return f"policy_layers.{key}"

    # strides

    def thin(
        self, node: fx.Node, op: Operation, stride: tuple[int, ...], layer: str, pointwise: bool
    ) -> fx.Node | None:
        """Adds the layer that carries a stride; returns it if it runs before the node."""
        content: Content = self.content
        if self.settings.blur_padding != "as_padding":
            content = cast(Content, self.settings.blur_padding)
        added = subsampler(self.settings.subsampling, stride, content, self.full)
        self.builder.changed(layer, f"stride {_sizes(stride)} by {self.settings.subsampling}", "strides replaced")
        if added is None:
            return None
        path = self.add_layer(f"{layer}_subsample", added)
        if pointwise and op.kind == "conv":
            source = node.all_input_nodes[0]
            with self.graph.inserting_before(node):
                new = self.graph.call_module(path, (source,))
            node.replace_input_with(source, new)
            self.origins[new] = self.origin(node)
            new.meta["layer"] = f"{layer} + {self.settings.subsampling}"
            return new
        last = node
        while op.kind == "conv" and self._goes_on(last):
            [last] = last.users
        with self.graph.inserting_after(last):
            new = self.graph.call_module(path, (last,))
        last.replace_all_uses_with(new, delete_user_cb=lambda user: user is not new)
        self.adopt(new, last)
        new.meta["layer"] = f"{layer} + {self.settings.subsampling}"
        return None

    def _goes_on(self, node: fx.Node) -> bool:
        """Returns whether a map is only read by its norm or activation, after which the blur belongs."""
        if len(node.users) != 1:
            return False
        [user] = node.users
        op = self.original.operations.get(user)
        return op is not None and op.kind in ("norm", "pointwise") and op.inputs == [node]

    def share_choice(self, node: fx.Node) -> fx.Node | None:
        """Makes the first adaptive layer of a resolution choose for all."""
        module = cast(AdaptivePolyphase, self.walk.operations[node].module)
        if isinstance(module, (LeadingPolyphase, FollowingPolyphase)):
            return None
        source = cast(fx.Node, node.args[0])
        strides = tuple(place.stride for axis, place in self.walk.on_axes(source).items() if axis in self.axes)
        key = (strides, tuple(cast(Sequence[int], module.stride)))
        leader = self.leaders.get(key)
        module.__class__ = FollowingPolyphase if leader else LeadingPolyphase
        if leader is not None:
            choice, chooser = leader, cast(fx.Node, leader.args[0])
            module.__dict__["level"] = cast(LeadingPolyphase, self.twin.get_submodule(str(chooser.target))).level
            node.args = (source, choice)
            self.walk.step(node)
            return None
        module.__dict__["level"] = str(node.target)
        with self.graph.inserting_after(node):
            choice = self.graph.call_function(operator.getitem, (node, 1))
            chosen = self.graph.call_function(operator.getitem, (node, 0))
        self.leaders[key] = choice
        for item in (choice, chosen):
            item.meta["layer"] = node.meta["layer"]
        self.origins[chosen] = self.origin(node)
        node.replace_all_uses_with(chosen, delete_user_cb=lambda user: user not in (choice, chosen))
        for new in (node, chosen, choice):
            self.walk.step(new)
        return choice.next

    def blur(self, node: fx.Node, window: Window, layer: str) -> fx.Node | None:
        """Keeps a blur that the network has, with the border of the policy, or makes it adaptive.

        Returns the node if it is now a layer of ours, to be visited as such.
        """
        policy, kernel = self.settings.subsampling, list(window.kernel)
        if policy == "dense":
            raise LayerError(f"layer {layer} blurs already; subsampling=dense needs the network without blur")
        content = self.content if self.settings.padding != "keep" else window.content
        new: nn.Module | None = None
        if policy.startswith("aps"):
            new = AdaptivePolyphase(list(window.stride), max(kernel[0], blur_size(policy)), content, self.full)
            self.builder.changed(layer, f"blur {_sizes(window.kernel)} -> {policy}", "strides replaced")
        elif content != window.content or self.full:
            new = BlurPool(kernel, list(window.stride), content, self.full)
            said = f"{'full ' if self.full else ''}{content}"
            self.builder.changed(layer, f"padding {window.content} -> {said}", "windows changed")
        if policy.startswith("blur"):
            self.builder.leave(layer, "it blurs already")
        if new is not None:
            self.call_layer(node, new, layer)
            node.meta["layer"] = layer
            self.origin(node)
            del self.original.operations[node]
            return node
        return None

    # merges

    def running_concatenation(self, node: fx.Node) -> None:
        """Builds a concatenation on an earlier one that holds its beginning.

        DenseNets concatenate all earlier maps in every layer. Where each of them has to be padded, one padded map is
        as good as many.
        """
        if not isinstance(node.args[0], (list, tuple)):
            return
        parts = tuple(node.args[0])
        rest = (node.target, *node.args[1:], *node.kwargs.items())
        if self.settings.padding.startswith(("full", "valid")):
            for length in range(len(parts) - 1, 0, -1):
                earlier = self.concatenations.get((parts[:length], rest))
                if earlier is not None and not any(is_in_place(user, self.twin) for user in earlier.users):
                    node.args = ([earlier, *parts[length:]], *node.args[1:])
                    break
        self.concatenations[(parts, rest)] = node

    # borders

    def fold_pads(self) -> None:
        """Takes out padding that a network writes as a step of its own: the layers that follow have their policy."""
        for node in list(self.graph.nodes):
            if self.original.operations[node].kind != "pad" or not self.original.is_map(cast(fx.Node, node.args[0])):
                continue
            users = {self.original.operations[user].kind for user in node.users}
            if not users <= {"conv", "max", "average"}:
                raise LayerError(
                    f"layer {layer_of(node)}: padding that is a step of its own cannot take {self.settings}"
                )
            pairs = written_pads(node, self.original.axes)
            source = cast(fx.Node, node.args[0])
            source.meta["folded"] = pairs
            self.builder.changed(layer_of(node), "padding left to the layers that follow", "windows changed")
            node.replace_all_uses_with(source)
            self.graph.erase_node(node)
            for operation in self.original.operations.values():
                operation.inputs[:] = [source if n is node else n for n in operation.inputs]

    def fills_border(self, node: fx.Node) -> bool:
        """Returns whether a node fills a border with the background."""
        if node.op == "call_function" and node.target in (pad, fit):
            return "background" in node.args
        module = self.walk.operations[node].module if node in self.walk.operations else None
        if isinstance(module, Pool):
            return module.padding_content == "background" and (module.ceil_mode or any(flat(module.amounts or ())))
        return isinstance(module, (BlurPool, AdaptivePolyphase)) and module.padding_content == "background"


def _sizes(values: Sequence[int]) -> str:
    return str(values[0]) if len(set(values)) == 1 else "x".join(map(str, values))


def _padding(window: Window) -> str:
    if window.amounts is None:
        return "TensorFlow's same"
    pairs = [str(left) if left == right else f"{left}+{right}" for left, right in window.amounts]
    text = pairs[0] if len(set(pairs)) == 1 else "x".join(pairs)
    return text if text == "0" or window.content == "zero" else f"{text} {window.content}"


def _set_conv(conv: _ConvNd, window: Window, padding: list[int]) -> None:
    """Changes a convolution of torch or timm in place; its weights stay what they are."""
    if isinstance(conv, _ConvTransposeNd):
        raise TinvError("a transposed convolution cannot take a policy")
    if is_tensorflow_same(conv):
        if hasattr(conv, "same_pad"):
            conv.same_pad = False  # type: ignore[assignment]
        else:
            conv.__class__ = nn.Conv2d
    conv.stride, conv.dilation, conv.padding = window.stride, window.dilation, tuple(padding)
    conv.padding_mode = "zeros"
    conv._reversed_padding_repeated_twice = [p for p in reversed(padding) for _ in range(2)]


def _set_module(network: nn.Module, path: str, module: nn.Module) -> None:
    parent, _, name = path.rpartition(".")
    setattr(network.get_submodule(parent), name, module)
