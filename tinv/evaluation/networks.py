"""Which network is looked at, with which weights, and under which policy."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import torch
from torch import nn

from tinv.data.batching import check_normalization
from tinv.data.formats.images import IMAGENET_MEAN, IMAGENET_STD
from tinv.errors import TinvError
from tinv.models import Source, backbone_options, create_backbone, under_policies
from tinv.models.published import weights_name
from tinv.models.weights import differences, load_file, load_learned, warn_of_untrained
from tinv.policies.conversion import ConversionPolicy
from tinv.utils.arguments import PositiveInt, Seed, checked
from tinv.utils.memory import NO_MEMORY

Normalization = tuple[tuple[float, ...], tuple[float, ...]]


@dataclass(frozen=True)
class NetworkSpec:
    """A network as its source has it.

    Args:
        backbone: Name of the network: tinv list backbones --source SOURCE; of timm also hf-hub:OWNER/NAME or
            local-dir:FOLDER.
        source: Where the network comes from.
        backbone_args: Options of the network itself, such as `kernel_size`.
        num_classes: Output classes.
        in_channels: Channels of the images.
        pretrained: Whether the published weights of the source are loaded (downloaded once).
        weights: File of a state dict, or the name of weights that torchvision publishes, such as IMAGENET1K_V2;
            without any weights they are random.
        seed: Seed of random weights, shifts and intervals.
    """

    backbone: str
    source: Source = "timm"
    backbone_args: dict[str, Any] | None = None
    num_classes: PositiveInt = 1000
    in_channels: PositiveInt = 3
    pretrained: bool = False
    weights: Path | None = None
    seed: Seed = 0

    def plain(self, size: tuple[int, ...]) -> nn.Module:
        """Returns the network, with the weights asked for.

        Args:
            size: (H, W) in pixels, or (T, H, W).

        Raises:
            TinvError: If there is no such network, or the weights cannot be had.
        """
        if self.weights is not None and self.pretrained:
            raise TinvError("--weights and --pretrained both say which weights; give one of them")
        if self.source == "tinv" and len(size) != 2:
            raise TinvError(
                f"input_size must be two numbers, H and W, for {self.backbone}, not {'x'.join(map(str, size))}"
            )
        torch.manual_seed(self.seed)
        named = weights_name(self.source, self.backbone, self.weights)
        network = create_backbone(pretrained=self.pretrained or named is not None, weights=named, **self._options(size))
        if self.weights is not None and named is None:
            load_file(network, self.weights, without_learned=True)
        self._check_input(network, size)
        return network

    def _check_input(self, network: nn.Module, size: tuple[int, ...]) -> None:
        """Runs the network once, so that one that takes no images of this size is named before anything is measured."""
        training = network.training
        try:
            with torch.no_grad():
                network.eval()(torch.zeros(1, self.in_channels, *size))
        except TinvError:
            raise
        except Exception as error:  # what a network raises over its input
            own = getattr(network, "pretrained_cfg", {}).get("input_size")
            made_for = f"; it was made for {'x'.join(map(str, own))}" if own else ""
            shape, reason = "x".join(map(str, size)), str(error).partition("\n")[0]
            if NO_MEMORY.search(reason):
                raise
            taken = f"input_size {shape} with {self.in_channels} channels"
            raise TinvError(f"{self.backbone} cannot take {taken}{made_for} ({reason[:150]})") from error
        finally:
            network.train(training)

    def under(self, policy: ConversionPolicy, plain: nn.Module, size: tuple[int, ...]) -> nn.Module:
        """Returns the network under a policy, with the weights of the plain one; itself if the policy keeps all.

        Args:
            policy: The policy.
            plain: What `plain` returned.
            size: (H, W) in pixels, or (T, H, W).

        Raises:
            TinvError: If the network cannot take the policy.
        """
        network = plain if policy.keeps_all else self._under(policy, plain, size)
        is_file = self.weights is not None and weights_name(self.source, self.backbone, self.weights) is None
        learned = is_file and load_learned(network, cast(Path, self.weights), str(policy))
        if (self.pretrained or self.weights is not None) and not learned:
            warn_of_untrained(self.backbone, network)
        return network

    def _under(self, policy: ConversionPolicy, plain: nn.Module, size: tuple[int, ...]) -> nn.Module:
        if self.source != "tinv":
            return under_policies(plain, f"{self.source}'s {self.backbone}", self.in_channels, size, policy)
        # a network of ours may depend on the policy, and its head on the size of its last map
        options = {name: getattr(policy, name) for name in policy.__dataclass_fields__}
        network = create_backbone(**self._options(size), **options)
        # what the policy learns is not in the plain network
        weights = {**network.state_dict(), **plain.state_dict()}
        if wrong := differences(network.state_dict(), weights):
            raise TinvError(
                f"{self.backbone} under {policy} cannot have the weights of the plain network: {wrong}; "
                "choose a policy that keeps the size of its last map"
            )
        network.load_state_dict(weights)
        return network

    def _options(self, size: tuple[int, ...]) -> dict[str, Any]:
        return backbone_options(
            self.backbone_args,
            name=self.backbone,
            source=self.source,
            num_classes=self.num_classes,
            in_channels=self.in_channels,
            input_size=size,
        )


# a dataclass makes its __init__ itself
NetworkSpec.__init__ = checked(NetworkSpec.__init__)  # type: ignore[method-assign]


def normalization_of(
    network: nn.Module | None, mean: Sequence[float] | None, std: Sequence[float] | None
) -> Normalization:
    """Returns mean and standard deviation of the channels: as given, else the network's own, else those of ImageNet.

    Args:
        network: Network; one of timm, and one with named weights of torchvision, says how these were trained. None for
            one of which nothing is known.
        mean: Mean of each channel, or None.
        std: Standard deviation of each channel, or None.

    Raises:
        TinvError: For numbers that cannot be.
    """
    own: Any = getattr(network, "pretrained_cfg", {})
    found = tuple(mean or own.get("mean", IMAGENET_MEAN)), tuple(std or own.get("std", IMAGENET_STD))
    check_normalization(*found)
    return found
