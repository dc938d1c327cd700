"""Networks with CropSelect and CircularCanonical around them against the same networks on the centre crop.

Of photographs: accuracy, consistency under every move by one pixel, certificates against every move of up to 8 pixels,
and time an image. It writes docs/experiments/data/select.csv. The photographs are those of
ImageNet in folders of synsets; the networks are SqueezeNet 1.0 of torchvision and mobilenetv2_100 of timm with SAME
padding. Rows that the file has already are kept, so that a stopped run can be resumed.
Claims: no certificate is violated and no certified output changes.
Run: TINV_DATA=DIR python benchmarks/crop_selection.py
"""

from __future__ import annotations

import csv
import itertools
import os
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

from tinv.data.formats.images import find_images, subsample_evenly
from tinv.evaluation.images import ImageLayout, Photographs
from tinv.evaluation.networks import NetworkSpec
from tinv.metrics.views import bootstrap_means
from tinv.select import CenterCrop, CircularCanonical, CropSelect, RandomFilter, Selection
from tinv.translation import draw_shifts

WINDOW, ROOM, REACH = 280, 4, 8
"""Pixels a side of the window; that photographs have more on each side for moves by one pixel; and for certificates."""
IMAGES, CERTIFIED, TIMED = 400, 100, 50
MOVES = [(dy, dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
TABLE = Path(__file__).parents[1] / "docs" / "experiments" / "data" / "select.csv"
MAIN = ("centre crop", "random, suppress 4")
"""Conditions of every network; the first has all."""
BROKEN = ("certificates_violated", "certified_outputs_changed")
NETWORKS: dict[str, tuple[dict, int, tuple]] = {
    "SqueezeNet 1.0": (
        {"backbone": "squeezenet1_0", "source": "torchvision", "weights": "squeezenet1_0_imagenet.pth"},
        227,
        ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
    ),
    "MobileNetV2": (
        {
            "backbone": "mobilenetv2_100",
            "backbone_args": {"pad_type": "same"},
            "weights": "mobilenetv2_100_timm_same.pth",
        },
        224,
        ((0.5,) * 3, (0.5,) * 3),
    ),
}


def main() -> int:
    data = Path(os.environ["TINV_DATA"])
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True).stdout.strip()
    rows = written_before()
    there = there_now(rows)
    for name, (spec, crop, normalization) in NETWORKS.items():
        spec = {**spec, "weights": data / "weights" / spec["weights"]}
        network = NetworkSpec(**spec).plain((crop, crop)).eval()
        files = subsample_evenly(find_images(data / "imagenet_sample" / "val"), IMAGES)
        near, far = (
            Photographs(files, ImageLayout((WINDOW, WINDOW), 2 * room, "crop", *normalization), 5, 0)
            for room in (ROOM, REACH)
        )
        classes = near.class_map(1000)
        for condition, selection in conditions(network, crop).items():
            if (name, condition) in there or (name != "SqueezeNet 1.0" and condition not in MAIN):
                continue
            found = measured(selection, near, classes)
            if isinstance(selection, WithinCrop):
                found |= rolled(selection, near)
            if isinstance(selection, CropSelect):
                found |= certified(selection, far)
            rows += [
                {"network": name, "commit": commit, "images": IMAGES, "condition": condition, "number": number}
                | {key: written(value) for key, value in zip(("value", "low", "high"), values, strict=True)}
                for number, values in found.items()
            ]
            print(name, condition, {key: round(float(value[0]), 2) for key, value in found.items()}, flush=True)
            write(rows)
        rows = [row for row in rows if row["network"] != name or "milliseconds" not in str(row["number"])]
        timed = {key: part for key, part in conditions(network, crop).items() if (name, key) in there_now(rows)}
        choices = {key: part.select for key, part in timed.items() if isinstance(part, CropSelect)}
        for number, calls in (("milliseconds", timed), ("milliseconds_of_choice", choices)):
            for condition, value in milliseconds(calls, near).items():
                row = {"network": name, "commit": commit, "images": TIMED, "condition": condition}
                rows.append({**row, "number": number, "value": written(value), "low": "", "high": ""})
        write(rows)
    bad = [row for row in rows if row["number"] in BROKEN and float(str(row["value"])) != 0]
    print(f"{len(bad)} of the counts of broken certificates are not 0")
    return 1 if bad else 0


def written(value: float | None) -> object:
    return "" if value is None else round(float(value), 3)


def conditions(network: nn.Module, crop: int) -> dict[str, Selection]:
    """The modules that are compared, by the names of the table."""
    return {
        "centre crop": CenterCrop(network, crop),
        "random, suppress 0": CropSelect(network, crop, RandomFilter(9, 0), 0),
        "random, suppress 4": CropSelect(network, crop, RandomFilter(9, 0), 4),
        "circular, as it is": WithinCrop(nn.Identity(), network, crop),
        "circular, CircularCanonical": WithinCrop(CircularCanonical(nn.Identity()), network, crop),
    }


class WithinCrop(Selection):
    """Rolls the crop in the middle of an image by a move, then asks a canonical form of it."""

    def __init__(self, canonical: nn.Module, network: nn.Module, crop: int) -> None:
        super().__init__(network)
        self.canonical, self.crop = canonical, CenterCrop(nn.Identity(), crop)

    def forward(self, images: Tensor, move: tuple[int, int] = (0, 0)) -> Tensor:
        return self.network(self.canonical(self.crop(images).roll(move, (2, 3))))


def answers_to(selection: Selection, scenes: Tensor, move: tuple[int, int]) -> Tensor:
    """The answers (N,) once the photograph has moved by whole pixels, wrapped around for what is circular."""
    if isinstance(selection, WithinCrop):
        return selection(moved(scenes, (0, 0)), move).argmax(1)
    return selection(moved(scenes, move)).argmax(1)


def moved(scenes: Tensor, move: tuple[int, int]) -> Tensor:
    """The window once the photograph has moved by (down, right) whole pixels."""
    room = (scenes.shape[2] - WINDOW) // 2
    top, left = room - move[0], room - move[1]
    return scenes[:, :, top : top + WINDOW, left : left + WINDOW]


@torch.no_grad()
def measured(selection: Selection, photographs: Photographs, classes: Tensor) -> dict[str, tuple]:
    """Accuracy and consistencies in percent, with the ends of 95% bootstrap intervals over photographs."""
    rows = []
    for scenes, targets, _index in photographs.batches(torch.device("cpu")):
        answers = torch.stack([answers_to(selection, scenes, move) for move in MOVES], 1)
        centre, right = answers[:, 4:5], answers == classes[targets][:, None]
        same = answers == centre
        axes = same[:, [1, 3, 5, 7]].double().mean(1)
        diagonals = same[:, [0, 2, 6, 8]].double().mean(1)
        correct = right[:, 4]
        rows.append(torch.stack([correct, axes, diagonals, same.all(1), right.all(1)], 1).double())
    table = torch.cat(rows).numpy()
    names = ("top1", "one_pixel_axis", "one_pixel_diagonal", "never_changed", "right_at_all_nine")
    draws = bootstrap_means(table, 0)
    low, high = np.percentile(draws, [2.5, 97.5], axis=0)
    return {name: tuple(100 * part[number] for part in (table.mean(0), low, high)) for number, name in enumerate(names)}


@torch.no_grad()
def rolled(selection: WithinCrop, photographs: Photographs) -> dict[str, tuple]:
    """Photographs that keep their answer under one circular move each, drawn from all."""
    kept = []
    for scenes, _, index in photographs.batches(torch.device("cpu")):
        still = answers_to(selection, scenes, (0, 0))
        moves = draw_shifts(index, WINDOW // 2, seed=0).tolist()
        answers = [answers_to(selection, one, (dy, dx)) for one, (dx, dy) in zip(scenes.split(1), moves, strict=True)]
        kept.append(torch.cat(answers) == still)
    table = torch.cat(kept).double()[:, None].numpy()
    low, high = np.percentile(bootstrap_means(table, 0), [2.5, 97.5])
    return {"any_circular_move": (100 * table.mean(), 100 * low, 100 * high)}


@torch.no_grad()
def certified(selection: CropSelect, photographs: Photographs) -> dict[str, tuple]:
    """Certificates against all moves of up to REACH pixels, and of all photographs the crops that one pixel keeps."""
    kept, certificates, violated, changed, tried, exact = [], [], 0, 0, 0, 0
    for scenes, _, index in photographs.batches(torch.device("cpu")):
        start = selection.position(moved(scenes, (0, 0)))
        certificate = selection.certificate(scenes, WINDOW)
        certificates.append(certificate)
        follows = {
            move: (selection.position(moved(scenes, move)) == start + torch.tensor(move)).all(1) for move in MOVES
        }
        kept.append(torch.stack([follows[move] for move in ((0, 1), (1, 0), (0, -1), (-1, 0))], 1).double().mean(1))
        if int(index[-1]) >= CERTIFIED:
            continue
        stays = torch.full_like(certificate, REACH)
        for move in itertools.product(range(-REACH, REACH + 1), repeat=2):
            same = (selection.position(moved(scenes, move)) == start + torch.tensor(move)).all(1)
            distance = max(map(abs, move))
            stays = torch.where(same, stays, stays.clamp(max=distance - 1))
            covered = certificate >= distance
            violated += int((covered & ~same).sum())
            tried += int(covered.sum())
        exact += int((stays == certificate).sum())
        if int(index[-1]) < 20:  # outputs of a sample
            before = selection(moved(scenes, (0, 0)))
            for move in itertools.product((-4, -1, 0, 2, 5), repeat=2):
                covered = certificate >= max(map(abs, move))
                changed += int((selection(moved(scenes, move)) != before).any(1)[covered].sum())
    found = torch.cat(certificates)
    return {
        "kept_crop_one_pixel": (100 * float(torch.cat(kept).mean()), None, None),
        "certified_one_pixel": (100 * float((found >= 1).double().mean()), None, None),
        "mean_certificate": (float(found.double().mean()), None, None),
        "certified_moves_tried": (tried, None, None),
        "certificates_violated": (violated, None, None),
        "certificates_exact": (exact, None, None),
        "certified_outputs_changed": (changed, None, None),
    }


@torch.no_grad()
def milliseconds(calls: Mapping[str, Callable[[Tensor], Tensor]], photographs: Photographs) -> dict[str, float]:
    """Milliseconds an image, shown one by one to all in turn: medians, since the machine does other things too."""
    times: dict[str, list[float]] = {name: [] for name in calls}
    seen = 0
    for scenes, _, _ in photographs.batches(torch.device("cpu")):
        for scene in moved(scenes, (0, 0)).split(1):
            next(iter(calls.values()))(scene)  # whoever is first finds neither image nor weights in the cache
            for name, call in calls.items():
                started = time.perf_counter()
                call(scene)
                times[name].append(1000 * (time.perf_counter() - started))
        seen += len(scenes)
        if seen >= TIMED:
            break
    return {name: float(np.median(some)) for name, some in times.items()}


def there_now(rows: list[dict[str, object]]) -> set[tuple[object, object]]:
    """Networks and conditions that the table has."""
    return {(row["network"], row["condition"]) for row in rows}


def written_before() -> list[dict[str, object]]:
    if not TABLE.exists():
        return []
    with TABLE.open(newline="") as file:
        return list(csv.DictReader(file))


def write(rows: list[dict[str, object]]) -> None:
    with TABLE.open("w", newline="") as file:
        table = csv.DictWriter(file, rows[0].keys(), lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


if __name__ == "__main__":
    sys.exit(main())
