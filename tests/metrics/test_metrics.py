import json

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tinv.artifacts import write_artifacts
from tinv.errors import TinvError
from tinv.metrics import Accuracy, MeanCosineSimilarity, TranslationSensitivityMap
from tinv.models import create_backbone
from tinv.translation import draw_shifts, translate

COUNT = 23


@pytest.fixture
def network() -> nn.Module:
    torch.manual_seed(0)
    return create_backbone("pooling_cnn", num_classes=5, in_channels=2, input_size=(20, 20), channels=[4, 4, 4]).eval()


@pytest.fixture
def canvas() -> tuple[torch.Tensor, torch.Tensor]:
    """Images (N, 2, 20, 20) with 4 blank pixels on every side, and classes."""
    generator = torch.Generator().manual_seed(2)
    images = F.pad(torch.randn(COUNT, 2, 12, 12, generator=generator), (4, 4, 4, 4))
    return images, torch.randint(0, 5, (COUNT,), generator=generator)


def run(metric, network, images, targets, batch_size, order=None):
    order = torch.arange(len(images)) if order is None else order
    with torch.no_grad():
        for part in order.split(batch_size):
            metric.update(network, images[part], network(images[part]), targets[part], part)
    return metric.compute()


def test_accuracy_is_a_count_weighted_percentage():
    accuracy = Accuracy()
    accuracy.update(torch.tensor([[1.0, 0], [0, 1], [0, 1]]), torch.tensor([0, 0, 1]))
    accuracy.update(torch.tensor([[1.0, 0]]), torch.tensor([1]))
    assert accuracy.compute().item() == 50


@pytest.mark.parametrize("output", ["logits", "softmax", "relu", "features"])
@pytest.mark.parametrize("kind", ["zero", "circular"])
def test_mean_cosine_similarity_equals_a_slow_reference(network, canvas, output, kind):
    images, targets = canvas
    got = run(MeanCosineSimilarity(4, output, kind, seed=5), network, images, targets, 6)["mcs"]

    def answer(image: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            if output == "features":
                return network.reduce(network.features(image[None]))[0]
            logits = network(image[None])[0]
        return {"softmax": logits.softmax(0), "relu": logits.relu(), "logits": logits}[output]

    total = 0.0
    for number, image in enumerate(images):
        dx, dy = draw_shifts(torch.tensor([number]), 4, seed=5)[0].tolist()
        moved = image.roll((dy, dx), (1, 2))  # the margin is blank, so both canvases give the same
        a, b = answer(image).double(), answer(moved).double()
        total += float(a @ b / (a.norm() * b.norm()))
    assert float(got) == pytest.approx(total / COUNT, abs=1e-6)


@pytest.mark.parametrize("metric", [MeanCosineSimilarity(4), TranslationSensitivityMap(4, 2)])
def test_results_do_not_depend_on_batch_size_or_order(network, canvas, metric):
    one = run(metric.clone(), network, *canvas, COUNT)
    many = run(metric.clone(), network, *canvas, 4, torch.randperm(COUNT))
    for key, value in one.items():
        assert float(many[key]) == pytest.approx(float(value), abs=1e-6)


def test_an_invariant_network_has_similarity_one_and_another_has_not(canvas):
    images, targets = canvas

    class Sum(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.stack([x.sum((1, 2, 3)), x.square().sum((1, 2, 3))], dim=1)

    assert float(run(MeanCosineSimilarity(4), Sum(), images, targets, 5)["mcs"]) == pytest.approx(1)
    flat = nn.Sequential(nn.Flatten(), nn.Linear(800, 3))
    assert float(run(MeanCosineSimilarity(4), flat, images, targets, 5)["mcs"]) < 0.9


@pytest.mark.parametrize("kind", ["zero", "circular"])
def test_translation_map_equals_one_forward_a_shift(network, canvas, kind):
    images, targets = canvas
    metric = TranslationSensitivityMap(4, 2, kind, images_per_pass=17)
    run(metric, network, images, targets, 6)
    maps = metric.maps()
    with torch.no_grad():
        before = network(images)
        for row, dy in enumerate(range(-4, 5, 2)):
            for column, dx in enumerate(range(-4, 5, 2)):
                after = network(translate(images, torch.tensor([[dx, dy]] * COUNT), kind))
                same = (after.argmax(1) == before.argmax(1)).double().mean() * 100
                right = (after.argmax(1) == targets).double().mean() * 100
                cosine = F.cosine_similarity(after, before).double().mean()
                assert float(maps["consistency"][row, column]) == pytest.approx(float(same))
                assert float(maps["acc"][row, column]) == pytest.approx(float(right))
                assert float(maps["mcs"][row, column]) == pytest.approx(float(cosine), abs=1e-6)
    centre = len(maps["mcs"]) // 2
    assert float(maps["consistency"][centre, centre]) == 100
    assert float(maps["mcs"][centre, centre]) == pytest.approx(1)


def test_translation_map_of_crops_looks_at_windows_of_larger_images(network, canvas):
    images, targets = canvas
    images = F.pad(images, (3, 3, 3, 3), mode="circular")  # the network takes one size
    metric = TranslationSensitivityMap(3, 3, "crop")
    with torch.no_grad():
        centre = network(images[:, :, 3:-3, 3:-3])
        metric.update(network, images, centre, targets, torch.arange(COUNT))
        # content moved by (dx, dy) = (-3, 3): the window lies further right and further up
        after = network(images[:, :, :-6, 6:])
    same = (after.argmax(1) == centre.argmax(1)).double().mean() * 100
    assert float(metric.maps()["consistency"][2, 0]) == pytest.approx(float(same))
    assert float(metric.maps()["consistency"][1, 1]) == 100


def test_translation_map_can_look_at_the_first_images_only(network, canvas):
    images, targets = canvas
    part, whole = TranslationSensitivityMap(4, 4, max_images=9), TranslationSensitivityMap(4, 4)
    run(part, network, images, targets, 4)
    run(whole, network, images[:9], targets[:9], 9)
    assert int(part.count) == 9
    torch.testing.assert_close(part.maps()["mcs"], whole.maps()["mcs"])


def test_translation_map_is_saved_as_arrays_and_picture(network, canvas, tmp_path):
    metric = TranslationSensitivityMap(2)
    run(metric, network, *canvas, 8)
    arrays, picture = write_artifacts(metric, tmp_path, "map")
    with np.load(arrays) as saved:
        assert saved["shifts"].tolist() == [-2, -1, 0, 1, 2]
        np.testing.assert_array_equal(saved["acc"], metric.maps()["acc"].numpy())
        assert int(saved["count"]) == COUNT
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["map.npz", "map.png"]


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: MeanCosineSimilarity(-1), "max_shift must be 0 or more"),
        (lambda: MeanCosineSimilarity(output="logit"), "did you mean logits"),
        (lambda: MeanCosineSimilarity(mode="circle"), "did you mean circular"),
        (lambda: TranslationSensitivityMap(8, 3), "max_shift=8 must be a multiple of step=3"),
        (lambda: TranslationSensitivityMap(mode="zeros"), "did you mean zero"),
    ],
)
def test_bad_options_are_named(build, message):
    with pytest.raises(TinvError, match=message):
        build()


def _two_processes(rank: int, folder: str) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", f"file://{folder}/meet", rank=rank, world_size=2)
    torch.manual_seed(0)
    network = create_backbone(
        "pooling_cnn", num_classes=5, in_channels=2, input_size=(20, 20), channels=[4, 4, 4]
    ).eval()
    images, targets = torch.load(f"{folder}/images.pt", weights_only=True)
    found = {}
    for metric in (MeanCosineSimilarity(4), TranslationSensitivityMap(4, 4)):
        run(metric, network, images, targets, 3, torch.arange(len(images))[rank::2])
        found.update({key: float(value) for key, value in metric.compute().items()})
    if rank == 0:
        with open(f"{folder}/found.json", "w") as file:
            json.dump(found, file)
    torch.distributed.destroy_process_group()


@pytest.mark.slow
def test_results_do_not_depend_on_the_number_of_processes(network, canvas, tmp_path):
    torch.save(list(canvas), tmp_path / "images.pt")
    torch.multiprocessing.spawn(_two_processes, (str(tmp_path),), nprocs=2)
    found = json.loads((tmp_path / "found.json").read_text())
    for metric in (MeanCosineSimilarity(4), TranslationSensitivityMap(4, 4)):
        for key, value in run(metric, network, *canvas, COUNT).items():
            assert found[key] == pytest.approx(float(value), abs=1e-6)


def test_similarity_over_the_largest_components_of_the_unmoved_image():
    network = nn.Sequential(nn.Conv2d(1, 6, 3, stride=2, padding=1), nn.AdaptiveMaxPool2d(1), nn.Flatten()).double()
    images, index = torch.rand(5, 1, 12, 12, dtype=torch.float64), torch.arange(5)
    metric = MeanCosineSimilarity(4, mode="circular", top_k=2)
    with torch.no_grad():
        logits = network(images)
        metric.update(network, images, logits, index, index)
        moved = network(translate(images, draw_shifts(index, 4, 0), "circular"))
    expected = []
    for first, second in zip(logits, moved, strict=True):
        largest = sorted(range(6), key=lambda k: -float(first[k]))[:2]
        expected.append(torch.cosine_similarity(first[largest], second[largest], dim=0))
    assert float(metric.compute()["mcs"]) == pytest.approx(float(torch.stack(expected).mean()))
    whole = MeanCosineSimilarity(4, mode="circular", top_k=60)
    with torch.no_grad():
        whole.update(network, images, logits, index, index)
    assert float(whole.compute()["mcs"]) == pytest.approx(float(torch.cosine_similarity(logits, moved).mean()))
