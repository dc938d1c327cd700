"""How well absolute position can be read from what a network makes of an image, at each distance from the border."""

from __future__ import annotations

import json
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor, nn

from tinv.data.formats.images import OnError, find_images, subsample_evenly
from tinv.errors import TinvError
from tinv.evaluation.images import ImageLayout, Photographs
from tinv.evaluation.networks import normalization_of
from tinv.evaluation.running import Precision, autocast, device_of, print_table
from tinv.metrics.views import bootstrap_means
from tinv.models.features import logits_and_features
from tinv.utils.arguments import NonNegativeInt, PositiveInt, Seed, checked
from tinv.utils.io import png, write_atomically, write_bytes_atomically
from tinv.utils.progress import progress

if TYPE_CHECKING:
    from matplotlib.figure import Figure

APART = 64
"""Pixels between the two places, an axis: a multiple of the stride of nearly every network."""


@dataclass(frozen=True)
class Readout:
    """The accuracy of the probe at one distance from the border.

    Attributes:
        distance: Blank pixels between the photograph and the border of the image, at the nearer corner.
        accuracy: Percentage of held-out photographs, in both places; 50 is chance.
        low: 2.5th percentile of that, by bootstrap over photographs.
        high: 97.5th percentile.
    """

    distance: int
    accuracy: float
    low: float
    high: float


class LocationProbe:
    """Reads from a frozen network where a photograph lies: near the top left corner or near the bottom right.

    A generalisation of the four-quadrant test (Kayhan & van Gemert, CVPR 2020, section 3) to any network: every
    photograph is laid on black at both places, `distance` pixels from the border, `APART` pixels from each other. A
    logistic regression on the input of the network's last layer learns the place from half of the photographs; the
    others, which it never saw, are scored. A network that does not encode absolute position gives 50%.

    Args:
        network: Maps (N, C, H, W) to (N, classes); used in evaluation mode.
        photographs: (N, C, h, w) as the network takes them, black being 0; at least 4.
        seed: Seed of the halves and the bootstrap.
        batch_size: Photographs a batch.

    Raises:
        TinvError: For fewer than 4 photographs.
    """

    def __init__(self, network: nn.Module, photographs: Tensor, seed: Seed = 0, batch_size: PositiveInt = 16) -> None:
        if len(photographs) < 4:
            raise TinvError(f"a location probe needs at least 4 photographs, not {len(photographs)}")
        self.network, self.photographs, self.seed, self.batch_size = network.eval(), photographs, seed, batch_size

    @torch.no_grad()
    def features(self, distance: int) -> tuple[np.ndarray, np.ndarray]:
        """Returns what the network makes of every photograph at the first and at the second place: (N, F) each."""
        channels, height, width = self.photographs.shape[1:]
        blank = 2 * distance + APART
        found: list[list[Tensor]] = [[], []]
        for part in torch.split(self.photographs, self.batch_size):
            for place, start in enumerate((distance, distance + APART)):
                laid = part.new_zeros(len(part), channels, height + blank, width + blank)
                laid[:, :, start : start + height, start : start + width] = part
                laid = laid.contiguous(memory_format=torch.channels_last)
                found[place].append(logits_and_features(self.network, laid)[1].double().cpu())
        first, second = (torch.cat(parts).numpy() for parts in found)
        return first, second

    def read(self, distance: int) -> Readout:
        """Returns how well the place is read at a distance of so many pixels from the border.

        Raises:
            TinvError: If the network's features are not finite.
        """
        from sklearn.exceptions import ConvergenceWarning
        from sklearn.linear_model import LogisticRegression
        from sklearn.preprocessing import StandardScaler

        places = self.features(distance)
        if not all(np.isfinite(features).all() for features in places):
            raise TinvError(
                f"the input of the network's last layer is not finite at {distance} pixels from the border; there is "
                "nothing to learn from it"
            )
        count = len(places[0])
        order = np.random.default_rng(self.seed).permutation(count)
        train, test = order[: count // 2], order[count // 2 :]
        scaler = StandardScaler().fit(np.concatenate([features[train] for features in places]))
        learner = LogisticRegression(max_iter=1000)
        with warnings.catch_warnings():
            # where nothing can be read there is nothing to converge to
            warnings.simplefilter("ignore", ConvergenceWarning)
            known = np.concatenate([scaler.transform(features[train]) for features in places])
            learner.fit(known, np.repeat([0, 1], len(train)))
        right = [learner.predict(scaler.transform(places[place][test])) == place for place in (0, 1)]
        scores = (right[0].astype(float) + right[1]) / 2
        low, high = np.percentile(bootstrap_means(scores[:, None], self.seed), [2.5, 97.5])
        return Readout(distance, 100 * float(scores.mean()), 100 * float(low), 100 * float(high))


@dataclass(frozen=True)
class LocationReport:
    """What `tinv.probe_location` found.

    Attributes:
        readouts: One for each distance from the border, smallest first.
        images: Photographs, half of them learned from.
        skipped: Paths of damaged files.
        partial: Layers that a policy asked for was not put on.
    """

    readouts: tuple[Readout, ...]
    images: int
    skipped: tuple[str, ...] = ()
    partial: tuple[str, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """Returns everything as JSON can hold it."""
        return asdict(self)

    def __str__(self) -> str:
        return "\n".join(
            f"{r.distance:>4} pixels from the border: {r.accuracy:5.1f}% ({r.low:.1f} .. {r.high:.1f})"
            for r in self.readouts
        )


@checked
def check_probe(
    input_size: int,
    max_images: int,
    distances: Sequence[NonNegativeInt],
    batch_size: PositiveInt = 1,
    workers: NonNegativeInt = 0,
) -> None:
    """Raises TinvError for a value of `probe_location` that is out of range."""
    if input_size < 8:
        raise TinvError(f"input_size must be 8 pixels or more, not {input_size}")
    if max_images < 4:
        raise TinvError(f"max_images must be at least 4, not {max_images}")
    if not distances:
        raise TinvError("distances is empty; name at least one number of pixels")


@checked
def probe_location(
    network: nn.Module,
    images: str | Path | Photographs,
    *,
    distances: Sequence[int] = (0, 16, 32, 64, 128),
    input_size: int = 64,
    max_images: PositiveInt = 200,
    mean: tuple[float, ...] | None = None,
    std: tuple[float, ...] | None = None,
    on_error: OnError = "raise",
    batch_size: PositiveInt = 16,
    workers: NonNegativeInt = 0,
    seed: Seed = 0,
    device: str = "auto",
    precision: Precision = "32",
    name: str = "",
) -> LocationReport:
    """Reads from a frozen network where a photograph lies on black, at growing distances from the border.

    Args:
        network: Maps images (N, C, H, W) of any size to (N, classes); set to evaluation mode, moved to the device.
        images: Folder of photographs, or photographs that were laid out already.
        distances: Blank pixels between the photograph and the border.
        input_size: Side of a photograph in pixels.
        max_images: Photographs, spread evenly over the folder; half to learn from, half to score.
        mean: Mean of each channel, subtracted from values in 0..1; None takes the network's own, else ImageNet's.
        std: Standard deviation of each channel, divided by; None as for `mean`.
        on_error: What a damaged file does.
        batch_size: Photographs a batch.
        workers: Processes that read; 0 reads in this one.
        seed: Seed of the halves and of the intervals.
        device: `auto` takes a GPU if there is one.
        precision: `32` or `bf16`.
        name: Name of the network, for the progress.

    Returns:
        The accuracy of the probe on held-out photographs at each distance, in percent; 50 is chance.

    Raises:
        TinvError: For a value out of range, fewer than 4 photographs, or a damaged file (unless skipped).
    """
    check_probe(input_size, max_images, distances, batch_size, workers)
    if not isinstance(images, Photographs):
        files = subsample_evenly(find_images(Path(images)), max_images)
        layout = ImageLayout((input_size,) * 2, 0, "circular", *normalization_of(network, mean, std))
        images = Photographs(files, layout, batch_size, workers, on_error)
    where = device_of(device)
    shown = images.all(where)
    with autocast(precision, where):
        reader = LocationProbe(network.to(where).to(memory_format=torch.channels_last), shown, seed, batch_size)
        apart = sorted(set(distances))
        readouts = tuple(reader.read(d) for d in progress(apart, f"probing {name}".strip(), len(apart)))
    partial = tuple(note.layer for note in getattr(getattr(network, "conversion", None), "partial", []))
    return LocationReport(readouts, len(shown), tuple(sorted(images.skipped)), partial)


def _name(padding: str, report: LocationReport) -> str:
    return f"{padding} (partial)" if report.partial else padding


def plot_locations(found: Mapping[str, LocationReport], title: str) -> Figure:
    """Returns the accuracy at each distance from the border as a figure: a line and a band (95%) a report.

    Args:
        found: Reports by the name of the policy.
        title: Name of the network.
    """
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6, 4), layout="constrained")
    axes = figure.subplots()
    distances = [readout.distance for readout in next(iter(found.values())).readouts]
    at = range(len(distances))
    for number, (padding, report) in enumerate(found.items()):
        accuracy, low, high = zip(*((r.accuracy, r.low, r.high) for r in report.readouts), strict=True)
        axes.plot(at, accuracy, "o-", color=f"C{number}", label=_name(padding, report), markersize=4)
        axes.fill_between(at, low, high, color=f"C{number}", alpha=0.15)
    axes.axhline(50, color="grey", linewidth=0.8, linestyle="--")
    axes.set_xticks(at, [str(distance) for distance in distances])
    axes.set(xlabel="distance from the border (pixels)", ylabel="probe accuracy (%)", ylim=(40, 102))
    axes.set_title(f"{title}: where a photograph lies")
    axes.spines[["top", "right"]].set_visible(False)
    axes.legend(frameon=False)
    return figure


def print_locations(found: Mapping[str, LocationReport], title: str) -> None:
    """Prints the accuracy at each distance from the border, a line a report; see `plot_locations`."""
    first = next(iter(found.values()))
    heading = f"{title}: probe accuracy (%), {first.images} photographs, 50 is chance"
    columns = ["distance (pixels)", *(str(readout.distance) for readout in first.readouts)]
    rows = [[_name(padding, one), *(f"{r.accuracy:.1f}" for r in one.readouts)] for padding, one in found.items()]
    print_table(heading, columns, rows)


def save_locations(found: Mapping[str, LocationReport], folder: Path, title: str, **more: Any) -> None:
    """Writes `location.json`, then `location.png`; see `plot_locations`.

    Args:
        found: Reports by the name of the policy.
        folder: Folder to write to, which is there.
        title: Name of the network.
        **more: Further content of `location.json`.

    Raises:
        OSError: If the disk does not take them.
    """
    first = next(iter(found.values()))
    content = {
        **more,
        "images": first.images,
        "skipped": list(first.skipped),
        "partial": {padding: list(one.partial) for padding, one in found.items() if one.partial},
        "location": {padding: [vars(readout) for readout in one.readouts] for padding, one in found.items()},
    }
    # first of all, so that a figure that cannot be drawn costs no numbers
    write_atomically(folder / "location.json", json.dumps(content, indent=2) + "\n")
    write_bytes_atomically(folder / "location.png", png(plot_locations(found, title), dpi=130))
