"""Measures over shifted views, against slow and obvious references: one image, one view, one forward at a time."""

import itertools

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from torch import nn

from tinv.errors import TinvError
from tinv.metrics import (
    CenterAccuracy,
    DiagonalAccuracy,
    ShiftConsistency,
    TranslationSensitivityMap,
    WorstCaseAccuracy,
)
from tinv.metrics.views import UNLABELLED, center_view, shifted_views
from tinv.translation import draw_offsets, reduce_camera

CLASSES, COUNT, RANGE = 5, 24, 4
MODES = ["crop", "zero", "circular"]


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 16, 3, stride=2, padding=1), nn.ReLU(), nn.Conv2d(16, 16, 3, 2, 1), nn.ReLU()]
    built = nn.Sequential(*layers, nn.AdaptiveMaxPool2d(1), nn.Flatten(), nn.Linear(16, CLASSES)).eval()
    with torch.no_grad():
        # every class is the answer to some images
        answers = built(torch.randn(200, 3, 16, 18))
        built[-1].bias -= answers.mean(dim=0)
        for parameter in built[-1].parameters():
            parameter /= answers.std()
    return built


@pytest.fixture
def images(network) -> tuple[torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(1)
    # smooth ones, so that some answers outlast every shift
    made = nn.functional.interpolate(torch.randn(COUNT, 3, 3, 3, generator=draw), (16, 18), mode="bicubic")
    targets = torch.randint(CLASSES, (COUNT,), generator=draw)
    with torch.no_grad():
        # the network is right about some of them
        targets[: COUNT // 2] = network(made[: COUNT // 2]).argmax(dim=1)
    return made, targets


def view(image: torch.Tensor, x: int, y: int, mode: str) -> torch.Tensor:
    """The view of one image (C, H, W), pixel by pixel."""
    _, height, width = image.shape
    if mode == "crop":
        return image[:, y : y + height - RANGE, x : x + width - RANGE]
    dx, dy = x - RANGE // 2, y - RANGE // 2
    if mode == "circular":
        return image.roll((dy, dx), (1, 2))
    moved = torch.zeros_like(image)
    for row, column in itertools.product(range(height), range(width)):
        if 0 <= row - dy < height and 0 <= column - dx < width:
            moved[:, row, column] = image[:, row - dy, column - dx]
    return moved


def probabilities(network: nn.Module, image: torch.Tensor, x: int, y: int, mode: str) -> torch.Tensor:
    with torch.no_grad():
        return network(view(image, x, y, mode)[None]).double().softmax(dim=1)[0]


def run(metric, network, images, targets, batch_size=7, order=None):
    order = torch.arange(len(images)) if order is None else order
    with torch.no_grad():
        for index in order.split(batch_size):
            logits = torch.zeros(len(index), CLASSES)
            metric.update(network, images[index], logits, targets[index], index)
    return {key: float(value) for key, value in metric.compute().items()}


@pytest.mark.parametrize("mode", MODES)
def test_views_are_what_they_say(images, mode):
    offsets = torch.tensor(list(itertools.product(range(RANGE + 1), repeat=2)))[:COUNT]
    got = shifted_views(images[0], offsets, RANGE, mode)
    for image, (x, y), seen in zip(images[0], offsets.tolist(), got, strict=True):
        assert torch.equal(seen, view(image, x, y, mode))


@pytest.mark.parametrize("draw", ["image", "batch"])
@pytest.mark.parametrize("mode", MODES)
def test_consistency_equals_a_slow_reference(network, images, mode, draw):
    metric = ShiftConsistency(RANGE, mode, passes=3, draw=draw, seed=5)
    got = run(metric, network, *images, batch_size=7)
    pairs = []
    for number, (image, target) in enumerate(zip(*images, strict=True)):
        for turn in range(3):
            drawn_by = torch.tensor([number if draw == "image" else number // 7 * 7])
            said, outputs = [], []
            for which in (0, 1):
                [[x, y]] = draw_offsets(drawn_by, RANGE, 5, 2 * turn + which).tolist()
                assert 0 <= x < RANGE > y >= 0
                said.append(probabilities(network, image, x, y, mode))
                with torch.no_grad():
                    outputs.append(network(view(image, x, y, mode)[None])[0].double())
            top = [int(p.argmax()) for p in said]
            change = float((said[0][top[0]] - said[1][top[0]]).abs())
            cosine = float(nn.functional.cosine_similarity(*outputs, dim=0))
            pairs.append((top[0] == top[1], top[0] == target, top[1] == target, change, cosine))
    agree, first, second = (sum(float(pair[n]) for pair in pairs) / len(pairs) for n in range(3))
    both = sum(float(pair[1] and pair[2]) for pair in pairs) / len(pairs)
    chance = first * second + (1 - first) * (1 - second) / (CLASSES - 1)
    assert got["consistency"] == pytest.approx(100 * agree, abs=1e-6)
    assert got["consistency_of_correct"] == pytest.approx(100 * both / ((first + second) / 2), abs=1e-6)
    assert got["consistency_corrected"] == pytest.approx(100 * (agree - chance) / (1 - chance), abs=1e-6)
    change = 100 * sum(pair[3] for pair in pairs) / len(pairs)
    assert got["consistency_probability_change"] == pytest.approx(change, abs=1e-5)
    assert got["consistency_cosine"] == pytest.approx(sum(pair[4] for pair in pairs) / len(pairs), abs=1e-6)
    assert 0 < agree < 1  # else nothing was compared


@pytest.mark.parametrize("mode", MODES)
def test_a_border_is_that_of_images_with_zeros_around_them(network, images, mode):
    wide = nn.functional.pad(images[0], (2, 2, 2, 2))
    got = run(ShiftConsistency(RANGE, mode, passes=2, border=2), network, *images, batch_size=7)
    want = run(ShiftConsistency(RANGE, mode, passes=2), network, wide, images[1], batch_size=7)
    assert got == want


def test_a_border_gives_the_margins_that_views_need():
    crops, canvas = (ShiftConsistency(8, mode, border=4) for mode in ("crop", "zero"))
    assert (crops.crop_margin, canvas.canvas_margin) == (0, 0)
    assert (ShiftConsistency(8, "crop", border=3).crop_margin, ShiftConsistency(8, "zero", border=1).canvas_margin) == (
        2,
        3,
    )


@pytest.mark.parametrize("mode", MODES)
def test_diagonal_equals_a_slow_reference(network, images, mode):
    got = run(DiagonalAccuracy(RANGE, mode, step=2), network, *images)
    said = [
        (probabilities(network, image, i, i, mode), int(target))
        for image, target in zip(*images, strict=True)
        for i in (0, 2, 4)
    ]
    right = sum(int(p.argmax()) == target for p, target in said) / len(said)
    assert got["diagonal_acc"] == pytest.approx(100 * right, abs=1e-6)
    mean = sum(float(p[target]) for p, target in said) / len(said)
    assert got["diagonal_acc_probability"] == pytest.approx(100 * mean, abs=1e-5)


@pytest.mark.parametrize("mode", MODES)
def test_worst_case_equals_a_slow_reference(network, images, mode):
    got = run(WorstCaseAccuracy(RANGE, mode, step=2), network, *images)
    tops = [
        [int(probabilities(network, image, x, y, mode).argmax()) for y in (0, 2, 4) for x in (0, 2, 4)]
        for image in images[0]
    ]
    right = [all(top == target for top in answers) for answers, target in zip(tops, images[1].tolist(), strict=True)]
    assert got["worst_case_acc"] == pytest.approx(100 * sum(right) / COUNT, abs=1e-6)
    same = [len(set(answers)) == 1 for answers in tops]
    assert got["worst_case_consistency"] == pytest.approx(100 * sum(same) / COUNT, abs=1e-6)
    assert 0 < sum(same) < COUNT


METRICS = {
    "consistency": lambda: ShiftConsistency(RANGE, passes=2),
    "diagonal": lambda: DiagonalAccuracy(RANGE),
    "worst case": lambda: WorstCaseAccuracy(RANGE, step=2),
}


@pytest.mark.parametrize("name", METRICS)
def test_results_and_intervals_do_not_depend_on_batch_size_or_order(network, images, name):
    one = run(METRICS[name](), network, *images, batch_size=COUNT)
    other = run(METRICS[name](), network, *images, batch_size=5, order=torch.randperm(COUNT))
    assert one == pytest.approx(other, abs=1e-4)  # percent; probabilities of float32 batches differ in the last digit


def test_intervals_cover_what_they_should(network, images):
    """Against the normal approximation: a mean of 0/1 numbers."""
    metric = ShiftConsistency(RANGE, passes=1)
    metric.update(network, images[0], torch.zeros(COUNT, CLASSES), images[1], torch.arange(COUNT))
    found = {key: float(value) for key, value in metric.compute().items()}
    p = found["consistency"] / 100
    half = 1.96 * (p * (1 - p) / COUNT) ** 0.5 * 100
    assert found["consistency_low"] == pytest.approx(found["consistency"] - half, abs=5)
    assert found["consistency_high"] == pytest.approx(found["consistency"] + half, abs=5)


def test_without_labels_what_needs_them_is_left_out(network, images):
    unknown = torch.full((COUNT,), UNLABELLED)
    got = run(ShiftConsistency(RANGE), network, images[0], unknown)
    assert {key for key in got if not key.endswith(("_low", "_high"))} == {
        "consistency",
        "consistency_probability_change",
        "consistency_cosine",
    }
    assert set(run(WorstCaseAccuracy(RANGE, step=4), network, images[0], unknown)) == {
        "worst_case_consistency",
        "worst_case_consistency_low",
        "worst_case_consistency_high",
    }
    assert run(DiagonalAccuracy(RANGE), network, images[0], unknown) == {}
    assert run(CenterAccuracy(), network, images[0], unknown) == {}


def test_center_accuracy_is_of_the_labelled_images_in_any_batches():
    logits = torch.eye(CLASSES)[torch.tensor([0, 1, 2, 3, 4, 0, 1])]
    targets, index = torch.tensor([0, 1, 2, 0, 0, UNLABELLED, 1]), torch.arange(7)
    found = []
    for size in (7, 2):
        metric = CenterAccuracy()
        for part in index.split(size):
            metric.update(nn.Identity(), logits[part], logits[part], targets[part], part)
        found.append({key: float(value) for key, value in metric.compute().items()})
    assert found[0] == found[1]
    assert found[0]["acc"] == pytest.approx(100 * 4 / 6)
    assert 0 < found[0]["acc_low"] < found[0]["acc"] < found[0]["acc_high"] <= 100


def test_a_perfect_and_a_guessing_network(images):
    class Constant(nn.Module):
        def forward(self, x):
            return torch.eye(CLASSES)[:1].repeat(len(x), 1)

    got = run(ShiftConsistency(RANGE), Constant(), *images)
    assert got["consistency"] == 100
    assert got["consistency_corrected"] == 100
    assert got["consistency_probability_change"] == 0


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: ShiftConsistency(-1), "offset_range must be 0 or more"),
        (lambda: ShiftConsistency(4, "roll"), "unknown mode 'roll'"),
        (lambda: ShiftConsistency(4, passes=0), "passes must be 1 or more"),
        (lambda: ShiftConsistency(4, draw="set"), "unknown draw 'set'"),
        (lambda: DiagonalAccuracy(5, step=2), "offset_range=5 must be a multiple of step=2"),
        (lambda: WorstCaseAccuracy(4, step=0), "step must be 1 or more, not 0"),
    ],
)
def test_bad_options_are_named(build, message):
    with pytest.raises(TinvError, match=message):
        build()


def test_a_window_larger_than_the_image_is_said(network, images):
    with pytest.raises(TinvError, match="offset_range=16 leaves nothing of images of 16x18 pixels"):
        run(ShiftConsistency(16), network, *images)


def _two_processes(rank: int, folder: str) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    network, images, targets = _nine_images()
    index = torch.arange(9)[rank::2]  # 5 and 4 images
    metric = ShiftConsistency(RANGE, passes=2)
    with torch.no_grad():
        metric.update(network, images[index], torch.zeros(len(index), CLASSES), targets[index], index)
    found = metric.compute()
    if rank == 0:
        torch.save(found, f"{folder}/results.pt")
    dist.destroy_process_group()


def _nine_images() -> tuple[nn.Module, torch.Tensor, torch.Tensor]:
    draw = torch.Generator().manual_seed(1)
    images, targets = torch.randn(9, 3, 12, 12, generator=draw), torch.randint(CLASSES, (9,), generator=draw)
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, CLASSES, 3), nn.AdaptiveMaxPool2d(1), nn.Flatten()).eval(), images, targets


@pytest.mark.slow
def test_results_do_not_depend_on_the_number_of_processes(tmp_path):
    mp.spawn(_two_processes, args=(str(tmp_path),), nprocs=2)
    found = torch.load(tmp_path / "results.pt", weights_only=True)
    alone = run(ShiftConsistency(RANGE, passes=2), *_nine_images())
    assert {k: float(v) for k, v in found.items()} == pytest.approx(alone, abs=1e-4)


def large_scene(side: int = 40) -> torch.Tensor:
    return torch.randn(3, 3, side, side, generator=torch.Generator().manual_seed(4), dtype=torch.float64)


def test_camera_views_at_whole_pixels_are_crops_of_what_the_camera_sees():
    scene, offsets = large_scene(), torch.tensor([[0, 4], [3, 1], [2, 2]])
    assert torch.equal(
        shifted_views(scene, offsets, RANGE, "camera"), shifted_views(reduce_camera(scene), offsets, RANGE, "crop")
    )
    assert torch.equal(center_view(scene, RANGE, "camera"), center_view(reduce_camera(scene), RANGE, "crop"))


def test_camera_views_between_pixels_are_windows_of_the_larger_image():
    scene = large_scene()
    views = shifted_views(scene, torch.tensor([[0.5, 1.0]]).expand(3, 2), RANGE, "camera")
    assert torch.equal(views, reduce_camera(scene[:, :, 2:34, 1:33]))


def test_fractional_views_at_whole_pixels_are_circular_ones():
    scene, offsets = large_scene(9), torch.tensor([[0, 4], [3, 1], [2, 2]])
    whole = shifted_views(scene, offsets, RANGE, "circular")
    assert torch.equal(shifted_views(scene, offsets, RANGE, "fractional"), whole)
    assert torch.equal(shifted_views(scene, offsets.double(), RANGE, "fractional"), whole)
    near = shifted_views(scene, offsets + 1e-9, RANGE, "fractional")
    assert (near - whole).abs().max() < 1e-6


def test_what_comes_in_on_the_mean_canvas_has_the_mean_colour_of_the_image():
    scene = large_scene(8)
    moved = shifted_views(scene, torch.tensor([[4, 2]]).expand(3, 2), RANGE, "mean")
    colour = scene.mean(dim=(2, 3), keepdim=True)
    assert torch.allclose(moved[:, :, :, :2], colour.expand(-1, -1, 8, 2))
    assert torch.allclose(moved[:, :, :, 2:], scene[:, :, :, :-2])


@pytest.mark.parametrize("mode", ["crop", "zero", "mean", "circular", "camera"])
def test_parts_of_a_pixel_that_a_mode_does_not_know_are_refused(mode):
    with pytest.raises(TinvError, match=f"mode {mode} moves images by .* pixels alone; use mode fractional"):
        shifted_views(large_scene(), torch.tensor([[0.25, 0.0]]).expand(3, 2), RANGE, mode)


@pytest.mark.parametrize("mode", ["crop", "zero", "mean", "circular", "camera", "fractional"])
def test_the_map_sees_the_views_that_the_other_measures_see(mode):
    """Shift (dx, dy) of the map is the view at offset max_shift -+ (dx, dy): either the window or the image moves."""
    seen: list[torch.Tensor] = []

    def network(views):
        seen.append(views.clone())
        return views.mean(dim=(2, 3))

    scene = large_scene(24)
    measure = TranslationSensitivityMap(2, 2, mode, images_per_pass=3)
    measure.update(network, scene, torch.zeros(3, 3), torch.zeros(3, dtype=torch.long), torch.arange(3))
    for view, (dy, dx) in zip(seen, itertools.product((-2, 0, 2), (-2, 0, 2)), strict=True):
        sign = -1 if mode in ("crop", "camera") else 1
        offsets = torch.tensor([[2 + sign * dx, 2 + sign * dy]]).expand(3, 2)
        assert torch.allclose(view, shifted_views(scene, offsets, RANGE, mode), atol=1e-12)
