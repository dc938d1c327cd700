import hashlib
import json
import os
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from official_formats import write_image_folders
from PIL import Image
from torchvision.transforms import v2

from tinv.cli import main
from tinv.data import ImageNet
from tinv.data.imagenet import draw_per_class, read_class_list
from tinv.errors import TinvError


@pytest.fixture
def classes() -> list[str]:
    return write_image_folders(Path("imagenet"), classes=3, train=5, val=2)


def data(**kwargs) -> ImageNet:
    return ImageNet(**{"size": 32, "batch_size": 4, "num_workers": 0, **kwargs})


def pixels(loader) -> torch.Tensor:
    return torch.cat([batch.image for batch in loader])


def test_images_classes_and_shapes(classes):
    module = data(test_resolution=40)
    assert (module.num_classes, module.input_shape, module.crop_margin) == (3, (3, 32, 32), 8)
    [test] = module.test_dataloader()
    for loader, side, count in ((module.train_dataloader(), 32, 15), (module.val_dataloader(), 32, 6), (test, 40, 6)):
        batches = list(loader)
        assert len(batches) == len(loader)
        assert torch.cat([batch.index for batch in batches]).sort().values.tolist() == list(range(count))
        for batch in batches:
            assert batch.image.shape == (len(batch.index), side, side, 3)
            assert batch.image.dtype == torch.uint8
    ready = module.on_after_batch_transfer(batches[0], 0).image
    assert ready.shape == (4, 3, 40, 40)
    expected = v2.functional.normalize(batches[0].image.permute(0, 3, 1, 2) / 255, module.mean, module.std)
    torch.testing.assert_close(ready, expected)


def test_validation_images_are_the_middle_of_the_resized_photograph(classes):
    module = data(resize=40)
    found = next(iter(module.val_dataloader())).image[0]
    with Image.open(module.found["val"].path(0)) as file:
        image = v2.functional.resize(file.convert("RGB"), 40)
        expected = v2.functional.center_crop(image, [32, 32])
    # PIL rounds after each of the two axes
    assert (found.int() - torch.from_numpy(np.array(expected)).int()).abs().max() <= 1


@pytest.mark.parametrize("cache", [None, 48])
def test_batches_depend_on_nothing_but_seed_and_epoch(classes, cache):
    def images(seed=0, batch_size=4, workers=0) -> dict[int, torch.Tensor]:
        module = data(seed=seed, batch_size=batch_size, num_workers=workers, cache_resolution=cache, cache_dir="cache")
        module.prepare_data()
        found = {}
        for batch in module.train_dataloader():
            found |= dict(zip(batch.index.tolist(), batch.image, strict=True))
        return found

    first = images()
    for other in (images(batch_size=7), images(workers=2)):
        assert all(torch.equal(first[number], other[number]) for number in range(15))
    assert not torch.equal(first[0], images(seed=1)[0])


def test_epochs_differ(classes, monkeypatch):
    module = data(num_workers=2)
    loader = module.train_dataloader()
    first = {n: i for b in loader for n, i in zip(b.index.tolist(), b.image, strict=True)}
    monkeypatch.setattr(module, "trainer", SimpleNamespace(current_epoch=1, overfit_batches=0))
    second = {n: i for b in loader for n, i in zip(b.index.tolist(), b.image, strict=True)}
    assert not any(torch.equal(first[n], second[n]) for n in first)


def test_a_list_of_batches_holds_what_was_in_them(classes):
    """Workers use their memory again: what was handed out must not change."""
    write_image_folders(Path("many"), classes=2, train=60, val=1)
    ours = list(data(root="many", num_workers=1, batch_size=3).train_dataloader())
    here = list(data(root="many", num_workers=0, batch_size=3).train_dataloader())
    assert len(ours) == 40
    for one, other in zip(ours, here, strict=True):
        torch.testing.assert_close(one.image, other.image, rtol=0, atol=0)


def test_subsets_are_nested_seeded_and_the_same_whichever_other_classes_there_are(classes):
    def drawn(count, **kwargs) -> set[str]:
        return set(data(images_per_class=count, **kwargs)._files("train").listed().split())

    assert len(drawn(2)) == 6
    assert drawn(1) < drawn(2) < drawn(4) < drawn(5)
    assert drawn(2) == drawn(2, seed=7)  # the run's seed has no part in it
    assert any(drawn(2) != drawn(2, data_seed=seed) for seed in (1, 2))
    Path("two.txt").write_text("\n".join(classes[1:]))
    assert drawn(2, classes="two.txt") < drawn(2)


def test_a_list_file_gives_exactly_its_images_and_results_tell_their_checksum(classes):
    options = ["--data.init_args.size=32", "--data.init_args.num_workers=0", "--model.init_args.metrics=[]"]
    config = ["fit", "--config=configs/imagenet_shift.yaml", "--data.init_args.classes=null", "--trainer.max_epochs=1"]
    assert main([*config, *options, "--data.init_args.images_per_class=2", "--run_dir=drawn"]) == 0
    names = Path("drawn/train_list.txt").read_text()
    facts = json.loads(Path("drawn/results.json").read_text())["data"]
    assert facts["train_sha256"] == hashlib.sha256(names.encode()).hexdigest()
    assert (facts["train_images"], facts["val_images"], facts["classes"], facts["skipped"]) == (6, 6, 3, 0)
    Path("list.txt").write_text(names)
    assert main([*config, *options, "--data.init_args.train_list=list.txt", "--run_dir=listed"]) == 0
    listed = json.loads(Path("listed/results.json").read_text())
    assert listed["data"]["train_sha256"] == facts["train_sha256"]
    assert listed["metrics"] == json.loads(Path("drawn/results.json").read_text())["metrics"]


def test_imagenet_a_names_200_classes():
    names = read_class_list("imagenet_a_200")
    assert len(names) == 200
    assert names == sorted(names)
    assert all(name.startswith("n") and len(name) == 9 for name in names)


def test_any_v2_transforms_with_their_own_random_numbers(classes):
    chain = [v2.RandomCrop(24), v2.ColorJitter(brightness=0.5)]

    def images() -> dict[int, torch.Tensor]:
        return {int(b.index[0]): b.image[0] for b in data(train_transforms=chain, batch_size=1).train_dataloader()}

    first, second = images(), images()
    assert first[0].shape == (24, 24, 3)
    assert all(torch.equal(first[number], second[number]) for number in range(15))
    state = torch.get_rng_state()
    list(data(train_transforms=chain).train_dataloader())
    assert torch.equal(torch.get_rng_state(), state)
    with pytest.raises(TinvError, match="must end in uint8 images"):
        list(data(train_transforms=[v2.CenterCrop(24), v2.ToDtype(torch.float32)]).train_dataloader())
    with pytest.raises(TinvError, match="let train_transforms end in one size"):
        list(data(train_transforms=[v2.Identity()]).train_dataloader())


def test_without_augmentation_epochs_are_alike_and_a_trunk_may_be_frozen(classes):
    module = data(augment="none")
    assert not module.is_augmented
    assert torch.equal(pixels(data(augment="none", seed=3).val_dataloader()), pixels(module.val_dataloader()))
    run = ["fit", "--config=configs/data_efficiency.yaml", "--data.init_args.size=32", "--trainer.max_epochs=2"]
    run += ["--data.init_args.images_per_class=2", "--data.init_args.num_workers=0", "--model.init_args.frozen=true"]
    run += ["--model.init_args.backbone_args.depth=18"]
    assert main([*run, "--data.init_args.augment=none", "--run_dir=frozen"]) == 0


def damage(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:200])


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("cache", [None, 32])
def test_damaged_files_are_named_or_skipped_and_counted(classes, workers, cache):
    module = data(num_workers=workers, cache_resolution=cache, cache_dir="cache")
    bad = module._files("train").path(7)
    damage(bad)
    module.prepare_data()
    with pytest.raises(TinvError, match=f"{bad} cannot be read as an image .*; remove it, or .*on_error: skip"):
        list(module.train_dataloader())
    module = data(num_workers=workers, cache_resolution=cache, cache_dir="cache", on_error="skip")
    module.prepare_data()
    seen = [number for batch in module.train_dataloader() for number in batch.index.tolist()]
    assert sorted(seen) == [number for number in range(15) if number != 7]
    assert module.provenance["skipped"] == 1
    assert module.provenance["skipped_files"] == [str(bad)]


def test_a_whole_batch_of_damaged_files_is_left_out(classes):
    module = data(batch_size=1, on_error="skip")
    damage(module._files("val").path(0))
    assert [batch.index.tolist() for batch in module.val_dataloader()] == [[n] for n in range(1, 6)]


def test_bad_input_is_one_line_that_names_it(classes, capsys):
    Path("few.txt").write_text(f"{classes[0]}\nn99999999\n")
    Path("empty.txt").write_text("\n# nothing\n")
    Path("absent_images.txt").write_text(f"{classes[0]}/train_0000.JPEG\n{classes[0]}/gone.JPEG\n")
    Path("one_class.txt").write_text(f"{classes[0]}/train_0000.JPEG\n")
    Path("flat/train").mkdir(parents=True)
    Path("flat/val").mkdir()
    Image.new("RGB", (9, 9)).save("flat/val/a.png")
    Image.new("RGB", (9, 9)).save("flat/train/a.png")
    write_image_folders(Path("differ"), classes=2)
    Path("differ/val/n00000001").rename("differ/val/n00000005")
    write_image_folders(Path("hollow"), classes=2)
    for file in Path("hollow/train/n00000001").iterdir():
        file.unlink()
    for options, message in (
        (["root=nowhere"], "no image data: looked for nowhere or data/nowhere; get it"),
        (["images_per_class=9"], "images_per_class=9: imagenet/train/n00000000 holds 5"),
        (["images_per_class=0"], "images_per_class must be 1 or more, not 0"),
        (["classes=few.txt"], "few.txt names classes that imagenet/val has no folder of: n99999999"),
        (["classes=empty.txt"], "empty.txt names no classes"),
        (["classes=imagenet_a_100"], "neither a file of class names nor a known list (imagenet_a_200)"),
        (["train_list=nowhere.txt"], "no list of images nowhere.txt"),
        (["train_list=absent_images.txt"], f"names images that are not in imagenet/train: {classes[0]}/gone.JPEG"),
        (["train_list=one_class.txt"], "have different classes; only in imagenet/val: n00000001, n00000002"),
        (["root=differ"], "only in differ/train: n00000001; only in differ/val: n00000005"),
        (["root=hollow"], "the class folder hollow/train/n00000001 holds no images"),
        (["root=flat"], "holds images but no class folders"),
        (["test_resolution=16"], "test_resolution=16 must be at least 32 pixels"),
        (["images_per_class=1", "train_list=one_class.txt"], "give one of them"),
        (["on_error=ignore"], "on_error"),
    ):
        with pytest.raises(TinvError) as error:
            data(**{k: int(v) if v.isdigit() else v for k, v in (option.split("=") for option in options)}).setup()
        assert message in str(error.value)
    words = ["fit", "--config=configs/imagenet_shift.yaml", "--data.init_args.classes=null", "--run_dir=bad"]
    words += ["--data.init_args.size=32", "--data.init_args.num_workers=0"]
    for option, message in (
        ("test_resolution=40", "offset_range=64 needs test images 64 pixels larger"),
        ("images_per_class=9", "images_per_class=9: imagenet/train/n00000000 holds 5"),
    ):
        assert main([*words, f"--data.init_args.{option}"]) == 2
        captured = capsys.readouterr().err
        assert message in captured
        assert captured.count("\n") == 1
        assert not Path("bad").exists()


def test_draws_need_enough_images(classes):
    files = data()._files("train")
    with pytest.raises(TinvError, match="holds 5; use that many or fewer"):
        draw_per_class(files, 6, 0)


def test_classes_of_several_words_and_names_that_are_no_utf8():
    names = [b"golden retriever", b"golden", b"caf\xe9", b"wren"]
    for part in (b"train", b"val"):
        for name in names:
            folder = b"photos/" + part + b"/" + name
            os.makedirs(folder)
            for number in range(3):
                Image.new("RGB", (8, 8)).save(os.fsdecode(folder + b"/%d.png" % number))
    Path("few.txt").write_bytes(b"\xef\xbb\xbfgolden retriever\r\n\r\n# all\r\nwren a small bird\r\ncaf\xe9\nwren\n")
    chosen = ImageNet(root="photos", classes="few.txt", size=8, images_per_class=2, num_workers=0)
    chosen.setup()
    assert [os.fsencode(name) for name in chosen.found["train"].classes] == sorted(
        [b"golden retriever", b"wren", b"caf\xe9"], key=os.fsdecode
    )
    assert len(chosen.found["train"]) == 6
    assert len(chosen.provenance["train_sha256"]) == 64
    [path] = chosen.save_artifacts(Path())
    again = ImageNet(root="photos", train_list=str(path), classes="few.txt", size=8, num_workers=0)
    assert again.provenance["train_sha256"] == chosen.provenance["train_sha256"]
