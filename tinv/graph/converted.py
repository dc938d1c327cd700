"""A network that runs by a changed graph: the module that `tinv.convert` returns."""

from __future__ import annotations

import copy
import linecache
import operator
import warnings
import weakref
from collections.abc import Callable
from typing import Any, cast

import torch
from torch import Tensor, fx, nn

from tinv.errors import TinvError
from tinv.graph.account import Conversion
from tinv.graph.autocast import autocast_restored, enter_autocast
from tinv.graph.geometry import GeometryInterpreter
from tinv.graph.meta_copy import copy_to_meta
from tinv.graph.network_graph import NetworkGraph
from tinv.graph.tracing import Mode, switch_gradients, trace
from tinv.nn.zero_response import norm_and_response, norm_response


class ConvertedNetwork(nn.Module):
    """A network under policies: the layers and weights of the original, run by its changed graph.

    Parameter names, shapes and order are those of the original, so state dicts load in and out. Attributes of the
    original that are plain values are kept; its methods other than `forward` are not, since they would bypass the
    changes. Layers are called one by one: hooks fire on layers and on the whole network, not on what holds several
    layers, of which a warning tells.

    Attributes:
        conversion: What was done.
        graphs: The torch.fx graph in training (True) and in evaluation (False).
    """

    conversion: Conversion
    graphs: dict[Mode, NetworkGraph]

    def __init__(
        self, layers: nn.Module, graphs: dict[Mode, NetworkGraph], conversion: Conversion, argument: str = "images"
    ) -> None:
        super().__init__()
        self.__dict__.update(layers.__dict__)
        self.original_class, self.argument = type(layers).__name__, argument
        self.conversion, self.graphs = conversion, graphs
        self._compile()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        # the batch may be given by the name that it had in the original
        kwargs = {"images" if key == self.argument else key: value for key, value in kwargs.items()}
        if len(args) + len(kwargs) != 1 or set(kwargs) - {"images"}:
            raise TinvError(
                f"a converted {self.original_class} takes one batch of images and nothing else; other arguments of the "
                "original keep their defaults"
            )
        return super().__call__(*args, **kwargs)

    def forward(self, images: Tensor) -> Any:
        given: Any = images
        if isinstance(given, fx.Proxy):
            return self._into(given)
        if not torch.compiler.is_compiling():
            self._warn_of_hooks()
        if not self._switches_gradients and not self._sets_precision:
            return self._programs[self.training](self, images)
        with torch.set_grad_enabled(torch.is_grad_enabled()), autocast_restored(images):
            return self._programs[self.training](self, images)

    def _into(self, images: fx.Proxy) -> Any:
        """Copies the graph into that of another tracer; tinv's layers stay single nodes in it."""
        tracer = cast(fx.Tracer, images.tracer)
        prefix = tracer.path_of_module(self)
        values: dict[fx.Node, Any] = {}
        for node in self.graphs[self.training].nodes:
            args, kwargs = fx.node.map_arg((node.args, node.kwargs), lambda n: values[n])
            if node.op == "output":
                return args[0]
            target = node.target
            if node.op in ("call_module", "get_attr"):
                target = f"{prefix}.{target}" if prefix else target
            if node.op == "placeholder":
                values[node] = images
            elif node.op == "call_module" and type(layer := self.get_submodule(node.target)).__module__.startswith(
                "torch.nn"
            ):
                values[node] = layer(*args, **kwargs)
            else:
                # a name of its own, or torchvision takes it for the name of a layer
                name = f"read_{str(target).replace('.', '_')}" if node.op == "get_attr" else None
                values[node] = tracer.create_proxy(node.op, target, args, kwargs, name=name)
        raise AssertionError("a graph ends with its output")

    def _warn_of_hooks(self) -> None:
        """Warns once of hooks that never fire."""
        for name, module in self._containers:
            if module._forward_hooks or module._forward_pre_hooks or module._backward_hooks:
                warnings.warn(
                    f"hooks of {name} do not fire: a converted network calls its layers one by one; register them on a "
                    f"layer inside of {name}, or on the whole network",
                    stacklevel=2,
                )
                self.__dict__["_containers"] = []
                return

    def _compile(self) -> None:
        graphs = {training: _shared_moments(graph) if training else graph for training, graph in self.graphs.items()}
        self._programs = {training: _program(graph, self.original_class) for training, graph in graphs.items()}
        self._switches_gradients = any(n.target is switch_gradients for g in self.graphs.values() for n in g.nodes)
        self._sets_precision = any(n.target is enter_autocast for g in self.graphs.values() for n in g.nodes)
        called = {str(n.target) for g in self.graphs.values() for n in g.nodes if n.op == "call_module"}
        self._containers = [
            (name, module)
            for name, module in self.named_modules()
            if name
            and not any(name == path or name.startswith(f"{path}.") for path in called)
            and list(module.children())
        ]

    def __getstate__(self) -> dict[str, Any]:
        return {key: value for key, value in self.__dict__.items() if key not in ("_programs", "_containers")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        super().__setstate__(state)  # type: ignore[no-untyped-call]
        self.__dict__.setdefault("argument", "images")
        self._compile()

    def __deepcopy__(self, memo: dict[int, Any]) -> ConvertedNetwork:
        copied = ConvertedNetwork.__new__(ConvertedNetwork)
        memo[id(self)] = copied
        # programs and graphs name layers and hold no weights, so that copies share them
        shared = ("graphs", "_programs", "conversion")
        for key, value in self.__dict__.items():
            copied.__dict__[key] = value if key in shared else copy.deepcopy(value, memo)
        return copied

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
        return str(self.conversion.policy)


def geometry_of(network: nn.Module, example: Tensor, count: bool = False) -> GeometryInterpreter:
    """Returns the geometry of a network in evaluation, converted or not; it is left as it is.

    Args:
        network: Takes one batch of images.
        example: Images (N, C, *spatial) of any values.
        count: Whether to count costs.

    Raises:
        LayerError: Naming a layer that cannot be traced, or cannot run on a map of its size.
    """
    meta_copy = copy_to_meta(network).eval()
    return GeometryInterpreter(graph_of(network, example), meta_copy, example.detach().to("meta"), count).run()


def graph_of(network: nn.Module, example: Tensor | None = None) -> NetworkGraph:
    """Returns the graph of a network in evaluation, converted or not; for the example see `trace`."""
    return network.graphs[False] if isinstance(network, ConvertedNetwork) else trace(network, example)[False]


_PROGRAMS = iter(range(10**9))


def _program(graph: fx.Graph, name: str) -> Callable[[nn.Module, Tensor], Any]:
    """Returns a graph as a function of the module that holds its layers and of the images."""
    code = graph.python_code("self")
    file = f"<tinv converted {name} {next(_PROGRAMS)}>"
    # tracebacks show the line
    linecache.cache[file] = (len(code.src), None, code.src.splitlines(keepends=True), file)
    namespace = dict(code.globals)
    exec(compile(code.src, file, "exec"), namespace)
    program = namespace["forward"]
    # copies of the network share the function; its lines go with the last of them
    weakref.finalize(program, linecache.cache.pop, file, None)
    return cast(Callable[[nn.Module, Tensor], Any], program)


def _shared_moments(graph: fx.Graph) -> fx.Graph:
    """Returns a graph for training in which norms that the background passes compute their moments once for both."""
    blanks = [n for n in graph.nodes if n.target is norm_response]
    if not blanks:
        return graph
    shared = fx.Graph()
    copies: dict[fx.Node, fx.Node] = {}
    shared.output(shared.graph_copy(graph, copies))
    for blank in (copies[n] for n in blanks):
        layer, source, images = cast(list[fx.Node], blank.args)
        for norm in [n for n in images.users if n.op == "call_module" and n.target == layer.target]:
            with shared.inserting_before(norm):
                getter = shared.create_node("get_attr", layer.target)
                both = shared.call_function(norm_and_response, (getter, images, source))
                norm.replace_all_uses_with(shared.call_function(operator.getitem, (both, 0)))
                blank.replace_all_uses_with(shared.call_function(operator.getitem, (both, 1)))
            shared.erase_node(norm)
            shared.erase_node(blank)
            break
    shared.lint()
    return shared
