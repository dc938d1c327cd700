"""Training the last layer alone: what comes before it answers once for each image."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from tinv.errors import TinvError
from tinv.models.features import classifier_name, logits_and_features


class FrozenTrunk:
    """The answers of everything before the last layer, kept for each image of a set."""

    def __init__(self) -> None:
        self.head: nn.Linear | None = None
        # of each set: features (images, F), and which images have theirs
        self.features: dict[str, Tensor] = {}
        self.known: dict[str, Tensor] = {}

    def freeze(self, network: nn.Module, is_augmented: bool) -> None:
        """Leaves only the last layer to be trained.

        Raises:
            TinvError: If training images change from epoch to epoch, or the network does not end in a linear layer.
        """
        if is_augmented:
            raise TinvError(
                "model.init_args.frozen keeps what the network says of each image, but the training images change "
                "each epoch; turn the data's augmentation or train_max_shift off"
            )
        head = network.get_submodule(classifier_name(network))
        if not isinstance(head, nn.Linear):
            raise TinvError(
                f"model.init_args.frozen needs a linear last layer; {classifier_name(network)} is a "
                f"{type(head).__name__}"
            )
        self.head = head
        for parameter in network.parameters():
            parameter.requires_grad_(False)
        for parameter in head.parameters():
            parameter.requires_grad_(True)
        network.eval()

    def logits(self, network: nn.Module, name: str, images: Tensor, index: Tensor) -> Tensor:
        """Returns the logits (N, classes) of images, by way of the features if they are known already.

        Args:
            network: Maps images to logits, its last layer the one that is trained.
            name: Of the set of images.
            images: (N, C, H, W).
            index: (N,) their numbers in the set.
        """
        assert self.head is not None, "freeze comes first"
        known = _with_room(self.known, name, index, index.new_zeros(0, dtype=torch.bool))
        unknown = ~known[index]
        if unknown.any():
            with torch.no_grad():
                # of the images themselves, not of the batch: the same in every epoch and for every batch size
                features = logits_and_features(network, images[unknown])[1]
            self._keep(name, index[unknown], features)
        return self.head(self.features[name][index])  # type: ignore[no-any-return]

    def _keep(self, name: str, index: Tensor, features: Tensor) -> None:
        kept = _with_room(self.features, name, index, features.new_zeros(0, features.shape[1]))
        kept[index], self.known[name][index] = features, True


def _with_room(sets: dict[str, Tensor], name: str, index: Tensor, empty: Tensor) -> Tensor:
    """Returns the rows of a set, which begins empty, with room for those at `index`."""
    kept = sets.setdefault(name, empty)
    if (more := int(index.max()) + 1 - len(kept)) > 0:
        # by half as much again at least, so that it is not copied for every batch
        room = max(more, len(kept) // 2)
        sets[name] = kept = torch.cat([kept, kept.new_zeros(room, *kept.shape[1:])])
    return kept
