"""From a network to the list of what it computes: a torch.fx graph whose convolutions, pools and norms stay whole."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Collection, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any
from unittest.mock import patch

import torch
from torch import Tensor, fx, nn
from torch.nn import functional as F
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.modules.conv import _ConvNd
from torch.nn.modules.pooling import _AvgPoolNd, _LPPoolNd, _MaxPoolNd
from torch.utils import checkpoint

from tinv.errors import LayerError
from tinv.graph.autocast import traced_autocast
from tinv.graph.decisions import Decisions, same_decision
from tinv.graph.network_graph import NetworkGraph, is_in_place, layer_name
from tinv.nn.activation import BandLimitedActivation
from tinv.nn.pooling import Pool
from tinv.nn.subsampling import Subsampler
from tinv.nn.token_layers import TokenLayer
from tinv.nn.tokens import PolyphaseAnchor
from tinv.nn.window_attention import AdaptiveWindowAttention

Mode = bool
"""True: as in training. Dropout and auxiliary heads may differ, so a network has one graph for each."""


def trace(network: nn.Module, example: Tensor | None = None, opaque: Collection[str] = ()) -> dict[Mode, NetworkGraph]:
    """Returns the graph of a network in training and in evaluation; both are the same object where they do not differ.

    Layers with weights, pools, norms and activations are single nodes, so that a graph works in both modes and every
    geometric step is visible. Control flow that depends on sizes is followed as it goes for the example, and the graph
    checks whenever it runs that it would go the same way. A module with other control flow that holds no convolution
    and no pool is a single node too.

    Args:
        network: Takes one batch of images; further arguments keep their defaults.
        example: Images (N, C, *spatial) of any values; without them no control flow can depend on sizes.
        opaque: Paths of modules that are to be single nodes.

    Raises:
        LayerError: Naming the first layer whose control flow depends on the data.
    """
    graphs = {}
    with modes_kept(network):
        for training in (False, True):
            network.train(training)
            graphs[training] = _trace(network, example, {f"network.{path}" for path in opaque})
    if str(graphs[True]) == str(graphs[False]):
        graphs[True] = graphs[False]
    return graphs


@contextmanager
def modes_kept(network: nn.Module) -> Iterator[None]:
    """Gives every module of a network back its mode, of training or evaluation, that it had before."""
    modes = {module: module.training for module in network.modules()}
    try:
        yield
    finally:
        for module, training in modes.items():
            module.training = training


def _trace(network: nn.Module, example: Tensor | None, opaque: set[str]) -> NetworkGraph:
    # buffers are read when the network runs, unless its control flow depends on them
    reads_buffers = True
    while True:
        shell = _Shell(network)
        tracer = _Tracer(opaque, reads_buffers, Decisions(shell, example))
        try:
            with (
                torch.enable_grad(),
                traced_functions(tracer),
                traced_autocast(tracer),
                without_checkpoints() as skipped,
            ):
                graph = NetworkGraph(tracer.trace(shell))
        except Exception as error:
            if reads_buffers:
                reads_buffers = False
                continue
            path = tracer.path[-1] if tracer.path else ""
            module = shell.get_submodule(path)
            if not path or path == "network" or path in opaque or any(map(is_geometric, module.modules())):
                raise _refusal(network, path, module, error) from error
            opaque.add(path)
            reads_buffers = True
            continue
        if skipped:
            warnings.warn(
                f"{type(network).__name__} uses gradient checkpointing, which its graph does not keep: training takes "
                "more memory; torch.utils.checkpoint can be put around the whole network",
                stacklevel=5,
            )
        for node in graph.nodes:
            if node.op == "get_attr" and not node.target.startswith("network."):
                _keep_constant(graph, node, shell)
            elif node.op in ("call_module", "get_attr"):
                node.target = _path_in(network, node.target)
        _name_in_place_results(graph, network)
        return graph


def _path_in(network: nn.Module, path: str) -> str:
    """Returns the path in the network of what has this path in the shell around it."""
    if path == "network":
        kind = type(network).__name__
        raise LayerError(f"the network is a single layer ({kind}), which has no name; put it into torch.nn.Sequential")
    return path.removeprefix("network.")


def _refusal(network: nn.Module, path: str, module: nn.Module, error: Exception) -> LayerError:
    """Returns why a network cannot be traced, in one sentence."""
    name = path.removeprefix("network").removeprefix(".") or "the network"
    layer = f"layer {name} ({type(module).__name__})"
    reason = str(error).strip().partition("\n")[0]
    if isinstance(error, TypeError) and "required positional argument" in reason:
        return LayerError(
            f"{layer} takes more than one argument: only networks of one batch of images can be converted"
        )
    return LayerError(
        f"{layer} cannot be traced: {reason}; networks whose control flow depends on the data cannot be converted"
    )


def _keep_constant(graph: NetworkGraph, node: fx.Node, shell: nn.Module) -> None:
    """Keeps a tensor that a network makes in its forward pass under the name by which nodes read it."""
    value = getattr(shell, str(node.target))
    if value.is_meta:
        raise LayerError(
            f"layer {layer_name(node)}: a tensor that the forward pass makes from buffers, in a layer whose control "
            "flow depends on them, cannot be kept"
        )
    graph.constants[str(node.target)] = value


def _name_in_place_results(graph: fx.Graph, network: nn.Module) -> None:
    """Makes whatever reads a map that was changed in place read the result of the change, which is the same map.

    Then what is computed follows from the graph's edges alone, in whatever order layers are put between them.
    """
    for node in graph.nodes:
        if is_in_place(node, network) and isinstance(node.args[0], fx.Node):
            before = node.args[0]
            for user in list(before.users):
                if node < user:
                    user.replace_input_with(before, node)


class _Shell(nn.Module):
    """Calls the network with one argument, so that its other arguments keep their defaults."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Any:
        return self.network(images)


class _Known(fx.Proxy):
    """Stands for a tensor or a number while a network is traced; sizes become numbers where Python needs them."""

    tracer: _Tracer

    def __getattr__(self, name: str) -> fx.proxy.Attribute:
        return _Attribute(self, name)

    def __len__(self) -> int:
        """Returns the length of a shape; a tensor's is not known, so that `f(*parts)` asks for its items."""
        found = self.tracer.decisions.value(self.node)
        if isinstance(found, (tuple, list)):
            return len(found)
        raise TypeError("len() of a tensor depends on the data; use x.shape[0]")

    def __int__(self) -> int:
        return int(self.tracer.decided(self, int))

    def __index__(self) -> int:
        found = self.tracer.decided(self, int)
        if not isinstance(found, int):
            raise TypeError(f"{type(found).__name__} cannot be interpreted as an integer")
        return found

    def __float__(self) -> float:
        return float(self.tracer.decided(self, float))

    def __round__(self, *digits: Any) -> Any:
        return self.tracer.create_proxy("call_function", round, (self, *digits), {})


class _Attribute(_Known, fx.proxy.Attribute):
    """Stands for an attribute, as a shape, or for a method, until it is called."""


class _Tracer(fx.Tracer):
    def __init__(self, opaque: set[str], reads_buffers: bool, decisions: Decisions) -> None:
        super().__init__()
        self.opaque, self.path, self.decisions = opaque, [""], decisions
        self.proxy_buffer_attributes = reads_buffers
        self.switches: list[fx.Node] = []

    def create_node(self, *args: Any, **kwargs: Any) -> fx.Node:
        """Notes where the network switches gradients off, as for a frozen trunk, and on again."""
        if torch.is_grad_enabled() == (len(self.switches) % 2 == 1):
            wanted: Any = torch.is_grad_enabled() if len(self.switches) % 2 == 0 else self.switches[-1]
            self.switches.append(super().create_node("call_function", switch_gradients, (wanted,), {}))
        return super().create_node(*args, **kwargs)

    def proxy(self, node: fx.Node) -> fx.Proxy:
        return _Known(node, self)

    def decided(self, proxy: fx.Proxy, kind: type) -> Any:
        """Returns the number that a proxy stands for, and puts a check into the graph that it stays the same."""
        found = self.decisions.value(proxy.node)
        if not isinstance(found, (bool, int, float, str, type(None), tuple)):
            raise fx.proxy.TraceError("its control flow needs the values of a tensor")
        taken = bool(found) if kind is bool else found
        if self.decisions.depends_on_device(proxy.node):
            return taken
        layer = self.path[-1].removeprefix("network").removeprefix(".") or "the network"
        self.create_proxy("call_function", same_decision, (proxy, taken, layer), {})
        return taken

    def to_bool(self, obj: fx.Proxy) -> bool:
        """Returns which way control flow goes that depends on sizes."""
        return bool(self.decided(obj, bool))

    def iter(self, obj: Any) -> Any:
        """Gives the parts of a map whose number is known, as in `torch.max(*x.chunk(2, 1))`."""
        node, parts = obj.node, None
        if node.target in ("chunk", torch.chunk):
            parts = node.args[1] if len(node.args) > 1 else node.kwargs.get("chunks")
        elif node.target in ("split", torch.split) and len(node.args) > 1 and isinstance(node.args[1], (list, tuple)):
            parts = len(node.args[1])
        if parts is None and isinstance(found := self.decisions.value(node), (tuple, list)):
            if any(isinstance(part, Tensor) for part in found):
                self.decided(self.create_proxy("call_function", len, (obj,), {}), int)
            parts = len(found)
        return iter([obj[i] for i in range(parts)]) if isinstance(parts, int) else super().iter(obj)

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return (
            module_qualified_name in self.opaque
            or is_geometric(m)
            or isinstance(m, (_NormBase, nn.LayerNorm, nn.GroupNorm))
            # of torchvision and timm: what they drop is drawn anew in every step
            or type(m).__name__ in ("StochasticDepth", "DropPath")
            or isinstance(m, (BandLimitedActivation, TokenLayer, PolyphaseAnchor))
            or is_timm_activation(m)
            or (type(m) in _timm_leaves() and not any(map(is_geometric, m.modules())))
            or super().is_leaf_module(m, module_qualified_name)
        )

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        path = self.path_of_module(m)
        # a path is taken away only when its module has been traced: after an error the innermost one is left
        self.path.append(path)
        adapter = _adapters().get(type(m))
        if adapter is not None:
            forward = adapter.__get__(m)
        result = super().call_module(m, forward, args, kwargs)
        self.path.pop()
        return result


def is_geometric(module: nn.Module) -> bool:
    """Returns whether a module is a convolution, pool or blur: one that a policy may touch."""
    return isinstance(module, (_ConvNd, *POOLS, Pool, Subsampler)) or (
        # timm's layers of these names, whichever module they live in
        type(module).__name__ in ("BlurPool2d", "CondConv2d")
    )


def is_timm_activation(module: nn.Module) -> bool:
    """Returns whether a module is an activation of timm that is written as several steps."""
    known = type(module).__module__.startswith("timm.layers.activations")
    return known and type(module).__name__.removesuffix("Me") in ("Swish", "Mish", "HardSwish", "HardMish", "QuickGELU")


POOLS = (_MaxPoolNd, _AvgPoolNd, _LPPoolNd, nn.FractionalMaxPool2d, nn.FractionalMaxPool3d)


def _timm_leaves() -> set[type]:
    """Returns timm's own list of modules that cannot be traced; imports no timm for networks of other sources."""
    layers = sys.modules.get("timm.layers")
    return set(layers.get_notrace_modules()) if layers is not None else set()


def _adapters() -> dict[type, Callable[..., Any]]:
    """Returns, for modules whose control flow depends on the size of the map, a forward that can be traced.

    So for blocks of Swin whose attention takes the whole map, where that of timm takes its windows.
    """
    known = (
        ("vgg", "ConvMlp", _conv_mlp),
        ("swin_transformer", "SwinTransformerBlock", _swin_block),
        ("swin_transformer_v2", "SwinTransformerV2Block", _swin_v2_block),
    )
    homes = ((sys.modules.get(f"timm.models.{home}"), name, forward) for home, name, forward in known)
    return {getattr(home, name): forward for home, name, forward in homes if home is not None}


def switch_gradients(wanted: bool) -> bool:
    """Switches the recording of gradients; returns whether they were recorded before."""
    before = torch.is_grad_enabled()
    torch.set_grad_enabled(wanted)
    return before


FACTORIES = ("arange", "linspace", "zeros", "ones", "full", "eye", "empty", "rand", "randn", "tensor", "as_tensor")
_OF_LISTS = ("cat", "concat", "concatenate", "stack")
_POOLS = ("avg_pool1d", "avg_pool2d", "avg_pool3d")
"""Functions that take no node in place of a list of tensors or of a size, at least up to torch 2.8."""


@contextmanager
def traced_functions(tracer: fx.Tracer) -> Iterator[None]:
    """Makes functions of torch give nodes whose arguments may be nodes: sizes of the image, parts of a map."""

    def traced(original: Callable[..., Any]) -> Callable[..., Any]:
        def make(*args: Any, **kwargs: Any) -> Any:
            found: list[fx.Proxy] = []
            fx.node.map_aggregate((args, kwargs), lambda a: found.append(a) if isinstance(a, fx.Proxy) else None)
            return tracer.create_proxy("call_function", original, args, kwargs) if found else original(*args, **kwargs)

        return make

    def all_of(module: Any, names: Sequence[str]) -> AbstractContextManager[Any]:
        made: dict[str, Any] = {name: traced(getattr(module, name)) for name in names}
        patches: AbstractContextManager[Any] = patch.multiple(module, **made)
        return patches

    with all_of(torch, (*FACTORIES, *_OF_LISTS)), all_of(F, _POOLS):
        yield


@contextmanager
def without_checkpoints() -> Iterator[list[str]]:
    """Runs what a network checkpoints as if it did not; yields a list that says whether it did."""
    found: list[str] = []
    # what torch.utils.checkpoint.checkpoint calls, by whichever name it was imported; the last is of newer versions
    names = ("_checkpoint_without_reentrant_generator", "_checkpoint_without_reentrant_generator_impl")

    def run(function: Callable[..., Any], _: bool, *args: Any) -> Any:
        found.append("reentrant")
        return function(*args)

    def noted(original: Callable[..., Any]) -> Callable[..., Any]:
        def generator(*args: Any, **kwargs: Any) -> Any:
            found.append("not reentrant")
            return original(*args, **kwargs)

        return generator

    generators: dict[str, Any] = {name: noted(getattr(checkpoint, name)) for name in names if hasattr(checkpoint, name)}
    with patch.object(checkpoint.CheckpointFunction, "apply", run), patch.multiple(checkpoint, **generators):
        yield found


def _conv_mlp(module: Any, images: fx.Proxy) -> Any:
    grown = images.tracer.create_proxy("call_function", upsample_to_min_size, (images, module.input_kernel_size), {})
    return module.act2(module.fc2(module.drop(module.act1(module.fc1(grown)))))


def _swin_block(block: Any, tokens: Any) -> Any:
    if not isinstance(block.attn, AdaptiveWindowAttention):
        return type(block).forward(block, tokens)
    tokens = tokens + block.drop_path1(block.attn(block.norm1(tokens)))
    return tokens + block.drop_path2(block.mlp(block.norm2(tokens)))


def _swin_v2_block(block: Any, tokens: Any) -> Any:
    if not isinstance(block.attn, AdaptiveWindowAttention):
        return type(block).forward(block, tokens)
    tokens = tokens + block.drop_path1(block.norm1(block.attn(tokens)))
    return tokens + block.drop_path2(block.norm2(block.mlp(tokens)))


def upsample_to_min_size(images: Tensor, size: int) -> Tensor:
    """Returns maps of at least `size` pixels an axis: smaller ones are averaged up, as timm's VGG head does."""
    if all(pixels >= size for pixels in images.shape[2:]):
        return images
    height, width = (max(size, pixels) for pixels in images.shape[2:])
    return F.adaptive_avg_pool2d(images, (height, width))
