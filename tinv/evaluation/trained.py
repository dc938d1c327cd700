"""The network of a finished run, as it was trained."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from torch import nn

from tinv.errors import TinvError
from tinv.evaluation.networks import NetworkSpec
from tinv.models import create_backbone
from tinv.models.weights import load_file
from tinv.policies.conversion import ConversionPolicy
from tinv.runs.configuration import TinvCLI
from tinv.runs.folder import RunFolder
from tinv.tasks import Classification


@dataclass(frozen=True)
class TrainedNetwork:
    """The network of a run with its best weights, and what its data looks like.

    Attributes:
        network: Maps (N, C, H, W) to (N, num_classes).
        spec: Name, source and classes of the network.
        policy: Policy that it was trained under.
        size: (H, W) of its images in pixels.
        mean: Mean of each channel, subtracted from values in 0..1.
        std: Standard deviation of each channel, divided by.
    """

    network: nn.Module
    spec: NetworkSpec
    policy: ConversionPolicy
    size: tuple[int, int]
    mean: tuple[float, ...]
    std: tuple[float, ...]


def load_trained(run: Path) -> TrainedNetwork:
    """Returns the network of a run with the weights of its best epoch.

    Args:
        run: Folder of the run.

    Raises:
        TinvError: If the run has no configuration or no checkpoint, or trained no classifier.
    """
    folder = RunFolder(run)
    if not folder.config.is_file() or not folder.best.is_file():
        raise TinvError(f"{run} is no run with a best checkpoint (config.yaml, checkpoints/best.ckpt)")
    configuration = TinvCLI(["--config", str(folder.config), "--run_dir=null"])
    if not isinstance(configuration.model, Classification):
        raise TinvError(
            f"{run} trained {type(configuration.model).__name__}, which have no classes to measure; how they take "
            "shifts is in its results.json"
        )
    model, data = configuration.model, configuration.datamodule
    model.leave_out_weights()
    options, classes = dict(model.backbone_options), model.num_outputs(data)
    shape = model.input_shape or data.input_shape
    if classes is None or shape is None or len(shape) != 3:
        raise TinvError(f"{run} was trained on inputs of shape {shape}; only networks of images can be measured")
    channels, height, width = shape
    network = create_backbone(num_classes=classes, in_channels=channels, input_size=(height, width), **options)
    load_file(network, folder.best)
    mean, std = (tuple(value) * (channels if len(value) == 1 else 1) for value in (data.mean, data.std))
    policy = ConversionPolicy(**{key: options[key] for key in ConversionPolicy.__dataclass_fields__ if key in options})
    spec = NetworkSpec(options["name"], options["source"], num_classes=classes, in_channels=channels)
    return TrainedNetwork(network, spec, policy, (height, width), mean, std)
