import json
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from official_formats import write_brown, write_photographs

from tinv.data import Brown, PhotoPatches, photo_patches
from tinv.data.formats.patches import read_pairs, read_patch_set
from tinv.data.patch_data import resize_patches
from tinv.errors import TinvError


@pytest.fixture
def root(tmp_path) -> Path:
    for number, name in enumerate(("liberty", "notredame", "yosemite")):
        write_brown(tmp_path / name, points=60 + number)
    return tmp_path


def brown(root: Path, **options) -> Brown:
    return Brown(root=str(root), **{"num_pairs": 200, "num_test_pairs": 40, "batch_size": 32, "seed": 0, **options})


def test_training_pairs_show_one_point_and_no_point_twice_in_a_batch(root):
    data = brown(root)
    data.setup()
    points = data.training[0].points
    seen = []
    for batch in data.train_dataloader():
        pairs = torch.from_numpy(data.training[1])[batch.index]
        assert (points[pairs[:, 0]] == points[pairs[:, 1]]).all()
        assert batch.target.tolist() == points[pairs[:, 0]].tolist()
        assert len(batch.target.unique()) == len(batch.target)
        assert torch.equal(batch.first, data.training[0].patches[pairs[:, 0]])
        assert torch.equal(batch.second, data.training[0].patches[pairs[:, 1]])
        seen += batch.index.tolist()
    assert sorted(seen) == list(range(200))
    assert data.training[0].folder == root / "yosemite"
    assert data.test_sets == ("liberty", "notredame")


def test_smaller_sets_of_pairs_are_part_of_larger_ones_and_change_with_the_seed(root):
    drawn = {}
    for count, seed in ((50, 0), (200, 0), (50, 1)):
        data = brown(root, num_pairs=count, seed=seed)
        data.setup()
        drawn[count, seed] = data.training[1]
        assert data.provenance["train_pairs"] == count
    assert (drawn[50, 0] == drawn[200, 0][:50]).all()
    assert (drawn[50, 0] != drawn[50, 1]).any()


def test_batches_change_from_epoch_to_epoch_unless_told_not_to(root):
    def epochs(**options):
        data = brown(root, **options)
        orders = []
        for epoch in (0, 1):
            data.trainer = SimpleNamespace(current_epoch=epoch, training=True)
            orders.append(torch.cat([batch.index for batch in data.train_dataloader()]).tolist())
        return orders

    first, second = epochs()
    assert first != second
    assert epochs()[1] == second
    first, second = epochs(shuffle=False)
    assert first == second


def test_test_pairs_are_the_official_ones_in_order(root):
    data = brown(root)
    for loader, name in zip(data.test_dataloader(), data.test_sets, strict=True):
        patches = read_patch_set(root / name, data.cache_dir)
        pairs = torch.from_numpy(read_pairs(patches, 40))
        assert torch.equal(torch.cat([batch.target for batch in loader]), pairs[:, 2])
        assert torch.equal(torch.cat([batch.second for batch in loader]), patches.patches[pairs[:, 1]])


def test_validation_points_are_not_trained_on(root):
    data = brown(root, val_share=0.3, num_pairs=100)
    [loader] = data.val_dataloader()
    patches, train = data.training
    val = data.validation
    assert not set(patches.points[train[:, :2]].flat) & set(patches.points[val[:, :2]].flat)
    same = val[:, 2] >= 0
    assert same.sum() == (~same).sum() == 20  # half of num_test_pairs
    assert ((patches.points[val[:, 0]] == patches.points[val[:, 1]]) == same).all()
    assert sum(len(batch.index) for batch in loader) == 40
    assert brown(root).val_dataloader() == []


def test_patches_are_averaged_down(root):
    data = brown(root)
    patches = torch.arange(2 * 64 * 64).view(2, 64, 64).remainder(251).byte()
    found = data.prepare(patches)
    expected = patches.double().view(2, 32, 2, 32, 2).mean(dim=(2, 4))[:, None] / 255
    torch.testing.assert_close(found.double(), expected, rtol=0, atol=1e-6)
    assert brown(root, size=64).prepare(patches).shape == (2, 1, 64, 64)
    # any other size: the means of the pixels that one covers, and bilinear if it grows
    coarse = patches.double().view(2, 16, 4, 16, 4).mean(dim=(2, 4))[:, None] / 255
    torch.testing.assert_close(resize_patches(patches[:, None] / 255, 16).double(), coarse, rtol=0, atol=1e-6)
    assert resize_patches(patches[:, None] / 255, 96).shape == (2, 1, 96, 96)


def test_both_patches_of_a_pair_are_turned_and_mirrored_alike(root):
    class Training:
        training, current_epoch = True, 0

    data = brown(root, augment="fliprot")
    data.trainer = Training()
    batch = next(iter(data.train_dataloader()))
    batch = batch._replace(second=batch.first)
    found = data.on_after_batch_transfer(batch, 0)
    assert torch.equal(found.first, found.second)
    plain = data.prepare(batch.first)
    versions = torch.stack([plain, plain.transpose(2, 3), plain.flip(3), plain.transpose(2, 3).flip(3)])
    which = (versions == found.first).flatten(2).all(dim=2).int().argmax(dim=0)
    assert (versions[which, torch.arange(len(plain))] == found.first).all()
    assert len(which.unique()) == 4
    # neither the batch nor its size decides: the number of the pair does
    part = data.on_after_batch_transfer(type(batch)(*(value[3:9] for value in batch)), 0)
    assert torch.equal(part.first, found.first[3:9])
    Training.training = False
    assert torch.equal(data.on_after_batch_transfer(batch, 0).first, plain)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_pairs": 10_000}, r"yosemite: num_pairs=10000 asked for; choose 1 to 620, which is what there is"),
        ({"num_test_pairs": 50}, r"no list of pairs .*m50_50_50_0\.txt; there are 40"),
        ({"train": "london"}, "train: unknown train 'london'; choose from liberty"),
        ({"test": ["yosemite"]}, "train=yosemite is tested on too"),
        ({"batch_size": 1}, "batch_size must be 2 or more, not 1: negatives come from the batch"),
        ({"augment": "flip"}, "unknown augment 'flip'; did you mean fliprot"),
        ({"val_share": 1.0}, "val_share must be 0 or more and below 1"),
        ({"val_share": 0.001}, r"val_share=0.001 of the points of .*yosemite make no pairs; take more"),
        ({"size": 0}, "size must be 1 or more, not 0"),
        ({"num_workers": 2}, "num_workers must be 0"),
        ({"root": "nowhere"}, r"no yosemite data: looked for nowhere/yosemite; pass --data.init_args.download=true"),
    ],
)
def test_bad_options_are_one_line(root, options, message):
    with pytest.raises(TinvError, match=message):
        brown(**{"root": root, **options}).setup()


def test_a_failed_download_leaves_nothing(root, monkeypatch):
    def fails(address, download_root, extract_root, *args, **options):
        Path(extract_root).mkdir(parents=True)
        raise RuntimeError("no route")

    monkeypatch.setattr("torchvision.datasets.utils.download_and_extract_archive", fails)
    data = brown(root / "new", download=True)
    with pytest.raises(
        TinvError, match=r"^http.*yosemite.zip cannot be fetched \(no route\); fetch it by hand, unpack it to .*new"
    ):
        data.prepare_data()
    assert not (root / "new" / "yosemite").exists()


@pytest.fixture
def photographs(tmp_path) -> Path:
    pytest.importorskip("cv2", reason="needs OpenCV")
    write_photographs(tmp_path / "photographs", count=4)
    return tmp_path / "photographs"


def patches_of(root: Path, **options) -> PhotoPatches:
    small = {
        "num_images": 2,
        "num_test_images": 1,
        "num_copies": 3,
        "num_points": 30,
        "num_pairs": 30,
        "num_test_pairs": 20,
    }
    return PhotoPatches(root=str(root), **{**small, "batch_size": 8, "seed": 0, **options})


def test_photographs_become_sets_in_the_official_format(photographs):
    data = patches_of(photographs)
    data.prepare_data()
    data.setup()
    folders = data.folders()
    assert sorted(folders) == ["test_a", "test_b", "train"]
    for name, folder in folders.items():
        found = read_patch_set(folder, data.cache_dir)
        pairs = read_pairs(found, 20)
        assert (pairs[:, 2] >= 0).sum() == 10
        counts = np.unique(found.points, return_counts=True)[1]
        assert counts.min() >= 2, name
        assert counts.max() <= 4
    assert sum(len(batch.index) for batch in data.train_dataloader()) == 30


def test_patches_of_one_point_are_alike(photographs):
    """The known warp is undone rightly: patches of one point correlate, those of two do not."""
    data = patches_of(photographs, num_test_pairs=20)
    for name, folder in data.folders().items():
        found = read_patch_set(folder, data.cache_dir)
        pairs = read_pairs(found, 20)
        flat = found.patches.float().flatten(1)
        flat = (flat - flat.mean(dim=1, keepdim=True)) / flat.std(dim=1, keepdim=True)
        alike = (flat[pairs[:, 0]] * flat[pairs[:, 1]]).mean(dim=1).numpy()
        same = pairs[:, 2] >= 0
        assert np.median(alike[same]) > 0.7, name
        assert np.median(np.abs(alike[~same])) < 0.4


def test_the_sets_are_made_once_and_depend_on_what_made_them(photographs, monkeypatch):
    first = patches_of(photographs)
    made = first.folders()["train"]
    before = read_patch_set(made, first.cache_dir).patches.clone()
    with monkeypatch.context() as patched:
        patched.setattr(photo_patches, "find_points", None)
        again = patches_of(photographs, num_pairs=20, seed=5).folders()["train"]
    assert made == again
    other = patches_of(photographs, data_seed=1)
    assert other.folders()["train"] != made
    # made anew it is the same, to the last byte
    same = patches_of(photographs, cache_dir="elsewhere")
    assert torch.equal(read_patch_set(same.folders()["train"], same.cache_dir).patches, before)


def test_photographs_are_in_one_set_only(photographs):
    seen = []
    with pytest.MonkeyPatch.context() as patched:
        find = photo_patches.find_points
        patched.setattr(
            photo_patches, "find_points", lambda path, *args, **kw: seen.append(path) or find(path, *args, **kw)
        )
        patches_of(photographs).folders()
    assert len(seen) == len(set(seen)) == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"num_images": 3}, r"num_images=3 and twice num_test_images=1 asked for, .* holds 4"),
        ({"num_points": 0}, "num_points must be 1 or more, not 0"),
        (
            {"num_test_pairs": 4000},
            r"only \d+ points with \d+ pairs were found in 2 images for train, num_test_pairs=4000",
        ),
        ({"root": "nowhere"}, "no image data: looked for nowhere or data/nowhere; get it, .*--data.init_args.root"),
    ],
)
def test_too_little_to_make_patches_of_is_one_line(photographs, options, message):
    with pytest.raises(TinvError, match=message):
        patches_of(**{"root": photographs, **options}).setup()
    assert not [p for p in Path("cache").rglob("about.json") if "photographs" in json.loads(p.read_text())]


def test_without_opencv_one_line_says_what_to_install(photographs, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "cv2", None)
    with pytest.raises(TinvError, match=r"pip install 'tinv\[patches\]'"):
        patches_of(photographs).setup()
