"""`tinv.measure` on networks that are no modules, and on images that are no folder."""

import re
import warnings
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, TensorDataset
from torchvision.transforms import v2

import tinv
from tinv.errors import TinvError, TinvWarning

SMALL = {"mode": "circular", "offset_range": 8, "passes": 2}
QUICK = {**SMALL, "metrics": ["consistency"]}


def network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(32, 4))


def photos(sizes: list[tuple[int, int]] = [(40, 36)] * 5) -> list[Path]:
    Path("photos").mkdir()
    paths = [Path(f"photos/{number}.png") for number in range(len(sizes))]
    for number, (path, size) in enumerate(zip(paths, sizes, strict=True)):
        Image.effect_noise(size, 40 + 10 * number).convert("RGB").save(path)
    return paths


def test_a_function_has_the_numbers_of_its_module(images):
    net = network().eval()
    found = tinv.measure(lambda batch: net(batch), images, **QUICK)
    assert found.metrics == tinv.measure(net, images, **QUICK).metrics
    assert 0 < found.metrics["consistency"] <= 100


def test_what_needs_layers_is_left_out_by_default_and_refused_by_name(images):
    with pytest.warns(TinvWarning, match=r"no nn\.Module.*: measured without comb, layers, attribution"):
        found = tinv.measure(network().eval().forward, images, **SMALL)
    assert not found.attribution
    assert "map/consistency" in found.metrics
    for name in ("layers", "attribution", "lie"):
        with pytest.raises(TinvError, match=f"metrics: {name} cannot be measured of a function"):
            tinv.measure(lambda batch: batch, images, **{**QUICK, "metrics": ["consistency", name]})
    with pytest.raises(TinvError, match="plain is for the attribution"):
        tinv.measure(lambda batch: batch, images, plain=network(), **QUICK)


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (lambda batch: batch, "the network returns a tensor of 4 axes, not logits"),
        (lambda batch: [batch], "the network returns a list, not logits"),
        (lambda batch: batch.mean((2, 3)).numpy(), "the network returns an? ndarray, not logits"),
        (lambda batch: batch.mean((2, 3))[:0], "returns 0 vectors for a batch of 1 images"),
        (lambda batch: batch.mean((1, 2, 3))[:, None], "returns 1 number for each image"),
        (lambda batch: batch @ torch.zeros(3, 3), r"cannot take an image of 3x16x16 \(RuntimeError"),
        ("resnet18", "network is a str, which cannot be called"),
    ],
)
def test_networks_without_vectors_are_refused(images, function, message):
    with pytest.raises(TinvError, match=message):
        tinv.measure(function, images, **QUICK)


def test_the_first_image_without_finite_answers_is_named(images):
    def diverges(batch):
        return batch.mean((2, 3)) / (batch.amax((1, 2, 3)) < 90)[:, None]

    images[6:, 0, 0, 0] = 100
    with pytest.warns(TinvWarning, match="output for image 6 holds numbers that are not finite"):
        tinv.measure(diverges, images, **QUICK)
    paths = photos()
    with pytest.warns(TinvWarning, match=r"output for photos/0\.png holds numbers"):
        tinv.measure(lambda batch: batch.mean((2, 3)) * torch.nan, paths, input_size=16, **QUICK)


def test_the_number_of_classes_is_that_of_the_answers(images):
    targets = torch.arange(10) % 4
    assert tinv.measure(network(), (images, targets), num_classes=4, **QUICK).labelled
    with pytest.raises(TinvError, match="num_classes is 5, and the network returns 4 numbers"):
        tinv.measure(network(), images, num_classes=5, **QUICK)
    with pytest.raises(TinvError, match="the tensor of images holds class 4, and the network's are 0 to 3"):
        tinv.measure(network(), (images, targets + 1), **QUICK)


def test_a_tensor_and_a_loader_are_the_same(images):
    targets = torch.arange(10) % 4
    one = tinv.measure(network(), (images, targets), **QUICK)
    for size in (3, 10):
        loader = DataLoader(TensorDataset(images, targets), batch_size=size)
        assert tinv.measure(network(), loader, **QUICK).metrics == pytest.approx(one.metrics, abs=1e-4)
    batches = ((part, targets[:0]) for part in images.split(4))
    with pytest.raises(TinvError, match=r"targets of a batch of 4 images are a tensor \(0,\)"):
        tinv.measure(network(), batches, **QUICK)
    plain = tinv.measure(network(), (part for part in images.split(4)), **QUICK)
    assert not plain.labelled
    assert plain.metrics["consistency"] == pytest.approx(one.metrics["consistency"])
    assert plain.images == 10


def test_max_images_takes_some(images):
    assert tinv.measure(network(), images, max_images=3, **QUICK).images == 3
    found = tinv.measure(network(), DataLoader(TensorDataset(images), batch_size=2), max_images=3, **QUICK)
    assert found.images == 3
    assert found.metrics == pytest.approx(tinv.measure(network(), images[:3], **QUICK).metrics, abs=1e-4)


def test_one_image_has_degenerate_intervals(images):
    found = tinv.measure(network(), images[:1], **SMALL)
    assert found.metrics["consistency_low"] == found.metrics["consistency"] == found.metrics["consistency_high"]
    assert str(found)


def test_all_images_of_one_class_are_measured(images):
    found = tinv.measure(network(), (images, torch.zeros(10).long()), **QUICK)
    assert found.labelled
    assert 0 <= found.metrics["acc"] <= 100
    unknown = tinv.measure(network(), (images, torch.full((10,), -1)), **QUICK)
    assert not unknown.labelled


def test_crops_need_room(images):
    net = network()
    with pytest.raises(TinvError, match=r"images are 16x16 pixels, and mode crop cuts.*say input_size 8x8"):
        tinv.measure(net, images, offset_range=8, metrics=["consistency"])
    with pytest.raises(TinvError, match=r"16x16 pixels, and have to be 20x20: input_size 12x12 and 8 more an axis"):
        tinv.measure(net, images, offset_range=8, metrics=["consistency"], input_size=12)
    with pytest.raises(TinvError, match=r"have to be 12x12: input_size 12x12, for mode circular"):
        tinv.measure(net, images, input_size=12, **QUICK)
    assert tinv.measure(net, images, offset_range=8, metrics=["consistency"], input_size=8).images == 10


def test_content_at_the_edge_of_a_zero_canvas_is_refused(images):
    zero = {**QUICK, "mode": "zero"}
    images[:4, ..., :4, :] = images[:4, ..., -4:, :] = images[:4, ..., :4] = images[:4, ..., -4:] = 0
    assert tinv.measure(network(), images[:4], **zero).images == 4
    with pytest.raises(TinvError, match="image 4 of the tensor of images has content in its outer 4 pixels"):
        tinv.measure(network(), images, **zero)


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ([], "images is an empty list"),
        (iter(()), "the data loader holds no image"),
        (torch.zeros(0, 3, 8, 8), "the tensor of images holds no image"),
        (3, "images is a int; give a folder"),
        (torch.zeros(3, 8, 8), "3 axes, not images"),
        (torch.zeros(2, 3, 8, 8, dtype=torch.uint8), "the tensor of images holds uint8; give images as the network"),
        ([{"image": 1}], "the data loader holds a dict, not a tensor"),
        ([torch.zeros(2, 3, 16, 16), torch.zeros(2, 3, 18, 18)], r"image 2 of the data loader is 3x18x18, .* 3x16x16"),
        (["photos/0.png", "absent.png"], "there is no file absent.png"),
        ((torch.zeros(3, 3, 8, 8), torch.zeros(2).long()), "there are 3 images and 2 classes"),
    ],
)
def test_what_holds_no_images_is_refused(wrong, message):
    photos()
    with pytest.raises(TinvError, match=message):
        tinv.measure(network(), wrong, **{**QUICK, "offset_range": 4})


def test_a_list_of_paths_has_the_numbers_of_its_folder():
    paths = photos()
    listed = tinv.measure(network(), [str(path) for path in paths], input_size=16, **QUICK)
    assert listed.metrics == tinv.measure(network(), "photos", input_size=16, **QUICK).metrics


def test_a_transform_takes_the_place_of_the_layout():
    paths = photos()
    seen = []

    def transform(picture):
        seen.append((picture.mode, picture.size))
        return v2.functional.to_dtype(v2.functional.pil_to_tensor(picture.resize((16, 16))), torch.float32, scale=True)

    found = tinv.measure(network(), paths, transform=transform, **QUICK)
    assert found.images == 5
    assert seen == [("RGB", (40, 36))] * 5
    small = tinv.measure(network(), "photos", transform=transform, batch_size=2, **QUICK)
    assert small.metrics == pytest.approx(found.metrics, abs=1e-4)
    given = torch.stack([transform(Image.open(path)) for path in paths])
    assert tinv.measure(network(), given, **QUICK).metrics == found.metrics
    paths[1].write_bytes(b"no image")
    with pytest.raises(TinvError, match=r"photos/1\.png cannot be read as an image.*on_error: skip"):
        tinv.measure(network(), paths, transform=transform, **QUICK)
    skipped = tinv.measure(network(), paths, transform=transform, on_error="skip", **QUICK)
    assert (skipped.images, skipped.skipped) == (4, ["photos/1.png"])


@pytest.mark.parametrize(
    ("transform", "message"),
    [
        (v2.Compose([v2.PILToTensor()]), r"returns torch\.uint8 of 3 axes for photos/0\.png"),
        (lambda picture: picture, r"returns Image for photos/0\.png, not a float tensor"),
        (lambda picture: 1 / 0, r"transform cannot take photos/0\.png \(ZeroDivisionError"),
        (
            v2.Compose([v2.PILToTensor(), v2.ToDtype(torch.float32, scale=True)]),
            r"photos/1\.png came out of the transform as 3x20x24, the images before it as 3x16x16",
        ),
    ],
)
def test_transforms_that_give_no_images_of_one_size_are_named(transform, message):
    paths = photos([(16, 16), (24, 20)])
    with pytest.raises(TinvError, match=message):
        tinv.measure(network(), paths, transform=transform, **QUICK)


def test_what_has_no_effect_is_refused(images):
    with pytest.raises(TinvError, match="mean is for files in tinv's own layout; tensors and batches are taken as"):
        tinv.measure(network(), images, mean=(0.5, 0.5, 0.5), **QUICK)
    with pytest.raises(TinvError, match="transform is for files, and images is a Tensor"):
        tinv.measure(network(), images, transform=lambda picture: picture, **QUICK)


def test_random_numbers_are_left_alone(images):
    paths = photos()
    state = torch.get_rng_state()
    transform = v2.Compose([v2.Resize((16, 16)), _floats])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        tinv.measure(lambda batch: batch.mean((2, 3)), images, **QUICK)
        tinv.measure(lambda batch: batch.mean((2, 3)), paths, transform=transform, **QUICK)
    assert torch.equal(state, torch.get_rng_state())


def _floats(picture):
    return v2.functional.to_dtype(v2.functional.pil_to_tensor(picture), torch.float32, scale=True)


def test_messages_are_one_line(images):
    with pytest.raises(TinvError) as caught:
        tinv.measure(network(), images)
    assert not re.search("\n", str(caught.value))
