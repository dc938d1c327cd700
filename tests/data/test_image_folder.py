"""Class folders of one's own: a training and a validation folder, or one folder that is split."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from official_formats import write_image_folders

from tinv.cli import main
from tinv.data import ImageFolder
from tinv.errors import TinvError, TinvWarning
from tinv.models import create_backbone

pytestmark = pytest.mark.filterwarnings("ignore::tinv.errors.TinvWarning")

FIT = [
    *("fit", "--config=configs/finetune.yaml", "--model.init_args.backbone=squeezenet1_1", "--trainer.max_epochs=1"),
    *("--data.init_args.size=32", "--data.init_args.test_resolution=64", "--data.init_args.num_workers=0"),
]


def one_folder(classes: int = 3, each: int = 10) -> list[str]:
    """Writes `photos/CLASS/*`; returns the names of the classes."""
    names = write_image_folders(Path("written"), classes=classes, train=each, val=1)
    shutil.move("written/train", "photos")
    return names


def data(root: str = "photos", **kwargs) -> ImageFolder:
    return ImageFolder(**{"root": root, "size": 32, "batch_size": 4, "num_workers": 0, **kwargs})


def images(module: ImageFolder, name: str) -> set[str]:
    return set(module._files(name).listed().split())


def test_two_folders_are_taken_as_they_are():
    names = write_image_folders(Path("photos"), classes=3, train=5, val=2)
    module = data()
    assert (module.num_classes, len(module._files("train")), len(module._files("val"))) == (3, 15, 6)
    assert module._files("val").classes == tuple(names)
    assert module.provenance["split"] is None
    assert module.save_artifacts(Path()) == []


def test_one_folder_is_split_by_a_seed_into_the_same_part_of_each_class():
    names = one_folder()
    with pytest.warns(TinvWarning, match=r"photos has no train and val: 6 of 30 images, drawn by data_seed=0"):
        train, val = images(module := data(), "train"), images(module, "val")
    assert train | val == {str(path.relative_to("photos")) for path in Path("photos").rglob("*.JPEG")}
    assert not train & val
    assert [sum(image.startswith(name) for image in val) for name in names] == [2, 2, 2]
    assert images(data(seed=7), "val") == val  # the run's seed has no part in it
    assert images(data(data_seed=1), "val") != val
    assert val < images(data(val_share=0.5), "val")
    shutil.rmtree(f"photos/{names[0]}")
    assert images(data(), "val") == {image for image in val if not image.startswith(names[0])}


@pytest.mark.parametrize(("each", "share", "expected"), [(2, 0.01, 1), (2, 0.99, 1), (4, 0.9, 3)])
def test_a_small_class_has_images_in_both_parts(each, share, expected):
    one_folder(classes=2, each=each)
    module = data(val_share=share)
    assert np.bincount(module._files("val").targets).tolist() == [expected] * 2
    assert np.bincount(module._files("train").targets).tolist() == [each - expected] * 2


def test_a_class_may_be_called_train():
    names = one_folder(classes=2)
    Path("photos", names[0]).rename("photos/train")
    assert data()._files("val").classes == (names[1], "train")


def test_pixels_are_normalized_as_the_weights_were():
    write_image_folders(Path("photos"))
    module = data(mean=(0.5, 0.5, 0.5), std=(0.25, 0.5, 1.0))
    batch = next(iter(module.val_dataloader()))
    found = module.on_after_batch_transfer(batch, 0).image
    expected = (batch.image.permute(0, 3, 1, 2) / 255 - 0.5) / torch.tensor([0.25, 0.5, 1.0]).view(3, 1, 1)
    torch.testing.assert_close(found, expected)


def missing_val() -> None:
    write_image_folders(Path("photos"))
    Path("photos/val").rename("photos/valid")


def one_class() -> None:
    one_folder(classes=1)


def nested() -> None:
    one_folder()
    Path("photos").rename("inner")
    shutil.move("inner", "photos/all")


def flat() -> None:
    [name] = one_folder(classes=1)
    Path("photos").rename("folder")
    Path("folder", name).rename("photos")


def different_classes() -> None:
    names = write_image_folders(Path("photos"))
    shutil.rmtree(f"photos/val/{names[0]}")


def single_image() -> None:
    names = one_folder()
    for path in sorted(Path("photos", names[1]).iterdir())[1:]:
        path.unlink()


@pytest.mark.parametrize(
    ("write", "options", "message"),
    [
        (
            missing_val,
            [],
            r"no folder photos/val beside photos/train; name it with data\.init_args\.val_folder ",
        ),
        (one_class, [], r"photos has one class folder \(n00000000\), and there is nothing to tell apart; add another"),
        (nested, [], r"photos has one class folder \(all\).*or name photos/all if its folders are the classes"),
        (flat, [], "photos holds images but no class folders; put those of each class in a folder of its own"),
        (different_classes, [], "different classes; only in photos/train: n00000000"),
        (single_image, [], "photos/n00000001 holds 1 image, too few to split in training and validation"),
        (lambda: None, [], "no image data: looked for photos or .*data.init_args.root=DIR"),
        (one_folder, ["val_share=0"], r"data\.init_args\.val_share must be more than 0 and less than 1, not 0"),
        (one_folder, ["val_share=1"], r"data\.init_args\.val_share must be more than 0 and less than 1, not 1"),
        (one_folder, ["data_seed=-1"], r"data\.init_args\.data_seed must be a seed"),
        (one_folder, ["std=[1, 0, 1]"], r"std 1.*,0.*,1.* is not three finite numbers above 0"),
    ],
)
def test_what_cannot_be_split_or_told_apart_is_one_line(write, options, message, capfd):
    write()
    given = [f"--data.init_args.{option}" for option in options]
    assert main([*FIT, "--model.init_args.pretrained=false", "--data.init_args.root=photos", *given]) == 2
    errors = [line for line in capfd.readouterr().err.splitlines() if line.startswith("tinv: error")]
    assert len(errors) == 1
    with pytest.raises(TinvError, match=message):
        raise TinvError(errors[0])
    assert not list(Path().glob("runs/*/*"))


def test_a_folder_and_a_file_of_weights_are_all_that_the_recipe_needs(capfd):
    one_folder(each=4)
    network = create_backbone("squeezenet1_1", "torchvision", num_classes=1000, input_size=(64, 64))
    torch.save(network.state_dict(), "weights.pth")
    words = [*FIT, "--data.init_args.root=photos", "--model.init_args.weights=weights.pth", "--run_dir=run"]
    assert main(words) == 0
    notes = [line for line in capfd.readouterr().err.splitlines() if line.startswith("note: ")]
    assert notes == [
        "note: photos has no train and val: 3 of 12 images, drawn by data_seed=0 (val_share=0.2), are validated and "
        "tested on",
        "note: weights.pth is for 1000 classes, here are 3: its last layer, classifier.1, is replaced by a new one",
    ]
    found = json.loads(Path("run/results.json").read_text())
    assert found["data"]["split"] == {"val_share": 0.2, "data_seed": 0}
    assert (found["data"]["train_images"], found["data"]["val_images"], found["data"]["classes"]) == (9, 3, 3)
    assert {"test/acc", "test/consistency", "test/consistency_low"} <= set(found["metrics"])
    assert len(Path("run/val_list.txt").read_text().splitlines()) == 3
    assert len(Path("run/train_list.txt").read_text().splitlines()) == 9


def test_a_run_is_tested_without_the_file_that_it_began_with(capfd):
    write_image_folders(Path("photos"))
    network = create_backbone("squeezenet1_1", "torchvision", num_classes=5, input_size=(64, 64))
    torch.save(network.state_dict(), "weights.pth")
    words = [*FIT, "--data.init_args.root=photos", "--model.init_args.weights=weights.pth", "--run_dir=run"]
    assert main(words) == 0
    Path("weights.pth").unlink()
    capfd.readouterr()
    assert main(["test", "--ckpt_path=run/checkpoints/best.ckpt", "--run_dir=again"]) == 0
    assert "last layer" not in capfd.readouterr().err
    again = json.loads(Path("again/results.json").read_text())
    assert again["metrics"] == json.loads(Path("run/results.json").read_text())["metrics"]
    assert main(["measure", "--run=run", "--images=photos/val", "--out=measured", "--metrics=consistency"]) == 0


def test_weights_of_another_network_are_one_line(capfd):
    write_image_folders(Path("photos"))
    other = create_backbone("squeezenet1_0", "torchvision", num_classes=3, input_size=(64, 64))
    torch.save(other.state_dict(), "weights.pth")
    assert main([*FIT, "--data.init_args.root=photos", "--model.init_args.weights=weights.pth"]) == 2
    message = capfd.readouterr().err
    assert "weights.pth holds the weights of another network: features." in message
    assert "; set backbone to the network it is of" in message
