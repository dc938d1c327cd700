"""Networks in files of other programs: ONNX, and what `torch.export.save` writes."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tinv.errors import TinvError
from tinv.utils.io import regular

SUFFIXES = (".onnx", ".pt2")

ONNX_TYPES = {"tensor(float)": torch.float32, "tensor(float16)": torch.float16, "tensor(double)": torch.float64}
"""Types of images that an ONNX file may take: those of normalized images."""

Axis = int | None
"""Length of an axis; None where the file leaves it open."""


@dataclass(frozen=True)
class ModelFile:
    """A network in a file; call it with images, and it returns one vector for each. It runs on the CPU.

    Attributes:
        path: Path of the file.
        shape: (N, C, H, W) of its input; None for each axis that may have any length.
        dtype: Type of its input, to which images are converted.
        run: Calls it with a batch of exactly that shape.
    """

    path: Path
    shape: tuple[Axis, Axis, Axis, Axis]
    dtype: torch.dtype
    run: Callable[[Tensor], Any]

    @property
    def channels(self) -> int:
        """Channels of its images; 3 where the file leaves them open."""
        return self.shape[1] or 3

    @property
    def input_size(self) -> tuple[int, int] | None:
        """(H, W) of its images in pixels; None where the file leaves one of them open."""
        height, width = self.shape[2:]
        return None if height is None or width is None else (height, width)

    def check_size(self, size: Sequence[int]) -> None:
        """Refuses images (H, W) that are not as large as the file says.

        Raises:
            TinvError: Saying how large they have to be.
        """
        if any(own not in (None, given) for own, given in zip(self.shape[2:], size, strict=True)):
            wanted = "x".join("any" if axis is None else str(axis) for axis in self.shape[2:])
            raise TinvError(f"{self.path} takes images of {wanted} pixels, not {size[0]}x{size[1]}; set input_size")

    @torch.no_grad()
    def __call__(self, images: Tensor) -> Any:
        """Returns what the file makes of images (N, C, H, W), (N, F) for a network that classifies.

        A file for batches of one size gets pieces of that size, the last one filled with zeros, whose outputs are
        dropped.

        Raises:
            TinvError: For images of another size, or if the file cannot be run.
        """
        self.check_size(images.shape[2:])
        given = images.detach().to("cpu", self.dtype).contiguous()
        size = self.shape[0]
        if size is None:
            return self._output(given)
        pieces = []
        for piece in torch.split(given, size):
            missing = size - len(piece)
            whole = torch.cat([piece, piece.new_zeros(missing, *piece.shape[1:])]) if missing else piece
            output = self._output(whole)
            if not isinstance(output, Tensor) or not output.dim() or len(output) != size:
                return output  # what is wrong with it is said where outputs are checked
            pieces.append(output[: len(piece)])
        return torch.cat(pieces)

    def _output(self, images: Tensor) -> Any:
        try:
            output = self.run(images)
        except Exception as error:  # of another library
            reason = str(error).partition("\n")[0][:150]
            raise TinvError(
                f"{self.path} cannot be run on images of {'x'.join(map(str, images.shape))} ({reason})"
            ) from error
        return output.float() if isinstance(output, Tensor) else output


def load_model_file(path: str | Path, trust: bool = False) -> ModelFile:
    """Returns the network in a file, by its suffix.

    Args:
        path: An ONNX file (`.onnx`), which is read as data, or a file of `torch.export.save` (`.pt2`).
        trust: Whether the file may run code while it is read, which that of torch can.

    Raises:
        TinvError: If it cannot be read, takes no images (N, C, H, W), or is a `.pt2` that is not trusted.

    Examples:
        >>> load_model_file("absent.onnx")
        Traceback (most recent call last):
        tinv.errors.TinvError: there is no file absent.onnx
    """
    path = Path(path)
    if path.suffix.lower() not in SUFFIXES:
        raise TinvError(
            f"{path} is no file of a network that tinv reads; give one that ends in {' or '.join(SUFFIXES)}"
        )
    regular(path)
    return _load_onnx(path) if path.suffix.lower() == ".onnx" else _load_exported(path, trust)


def _load_onnx(path: Path) -> ModelFile:
    """Returns an ONNX file.

    It is a protocol buffer of a graph and numbers. Code of its own it can only run by custom operators, which lie in
    libraries that the caller has to register; none is registered here.
    """
    try:
        runtime = import_module("onnxruntime")
    except ImportError as error:
        raise TinvError(f"{path}: ONNX files need the package onnxruntime; pip install tinv[onnx]") from error
    options = runtime.SessionOptions()
    options.intra_op_num_threads = torch.get_num_threads()
    options.log_severity_level = 4  # what is wrong is raised too
    try:
        session = runtime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its classes of errors are not public
        reason = str(error).partition("\n")[0][:150]
        raise TinvError(f"{path} cannot be read as an ONNX file ({reason})") from error
    inputs, outputs = session.get_inputs(), session.get_outputs()
    _check_ends(path, [each.name for each in inputs], [each.name for each in outputs])
    if inputs[0].type not in ONNX_TYPES:
        raise TinvError(f"{path} takes {inputs[0].type}, not {' or '.join(ONNX_TYPES)}, as normalized images are")
    name = inputs[0].name

    def run(images: Tensor) -> Tensor:
        return torch.from_numpy(session.run(None, {name: images.numpy()})[0])

    return ModelFile(path, _image_shape(path, inputs[0].shape), ONNX_TYPES[inputs[0].type], run)


def _load_exported(path: Path, trust: bool) -> ModelFile:
    """Returns a file of `torch.export.save`.

    Reading one can run code that the file holds, and no option of torch.export.load prevents it (torch 2.14):
    weights and constants marked `use_pickle` go through torch.load(weights_only=False), opaque constants through
    pickle.loads (pt2_archive/_package.py), example inputs that weights_only refuses are read again without it
    (_export/serde/serialize.py), and symbolic sizes are text for sympy.sympify, which evaluates it as Python.
    """
    if not trust:
        raise TinvError(
            f"{path}: torch reads .pt2 files with pickle, which can run code that the file holds; if you trust where "
            "it is from, say --trust-model (trust=True), or give an ONNX file"
        )
    try:
        with _quiet("torch.export"):
            program = torch.export.load(path)
            module: Any = program.module()
    except Exception as error:  # damaged files raise many kinds of error
        reason = str(error).partition("\n")[0][:150] or type(error).__name__
        raise TinvError(f"{path} cannot be read as a file of torch.export ({reason})") from error
    signature = program.graph_signature
    _check_ends(path, list(signature.user_inputs), list(signature.user_outputs))
    [given] = [
        node.meta.get("val")
        for node in program.graph.nodes
        if node.op == "placeholder" and node.name in signature.user_inputs
    ]
    if not isinstance(given, Tensor) or not given.is_floating_point():
        raise TinvError(
            f"{path} takes {getattr(given, 'dtype', type(given).__name__)}, not normalized images of floats"
        )
    return ModelFile(path, _image_shape(path, given.shape), given.dtype, module)


@contextmanager
def _quiet(name: str) -> Iterator[None]:
    """Keeps a logger from printing the traceback of an error that is raised, or caught, afterwards."""
    logger = logging.getLogger(name)
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def _check_ends(path: Path, inputs: Sequence[str], outputs: Sequence[str]) -> None:
    """Refuses a network that does not map one batch of images to one tensor."""
    for what, names in (("input", inputs), ("output", outputs)):
        if len(names) != 1:
            listed = ", ".join(map(str, names)) or "none"
            raise TinvError(f"{path} has {len(names)} {what}s ({listed}); give a file of a network with one")


def _image_shape(path: Path, shape: Sequence[Any]) -> tuple[Axis, Axis, Axis, Axis]:
    """Returns the shape of the input; lengths that are names or symbols are open."""
    axes = [axis if isinstance(axis, int) and axis > 0 else None for axis in shape]
    text = "x".join("any" if axis is None else str(axis) for axis in axes)
    if len(axes) != 4:
        raise TinvError(f"{path} takes {text or 'a number'}, not images (N, C, H, W)")
    if axes[1] not in (None, 1, 3):
        last = axes[3] in (1, 3)
        hint = "its channels come last; export it with images (N, C, H, W)" if last else "images have 1 or 3 channels"
        raise TinvError(f"{path} takes {text}, whose second axis is no number of channels: {hint}")
    return (axes[0], axes[1], axes[2], axes[3])
