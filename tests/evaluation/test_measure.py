"""`tinv measure` on tiny photographs in the formats that folders hold."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from tiny_run import fit

import tinv
from tinv.cli import main
from tinv.errors import TinvError, TinvWarning
from tinv.metrics import CenterAccuracy, ShiftConsistency
from tinv.models import create_backbone
from tinv.models.weights import load_file

MODES = ["RGB", "L", "P", "RGBA", "CMYK", "LA", "1"]


def write_images(folder: Path, count: int = 6, size: tuple[int, int] = (70, 60)) -> Path:
    """Writes photographs of several modes into a flat folder."""
    folder.mkdir(parents=True)
    draw = np.random.default_rng(0)
    for number in range(count):
        small = Image.fromarray(draw.integers(0, 256, (6, 7, 3), dtype=np.uint8))
        image = small.resize(size, Image.Resampling.BICUBIC)
        mode = MODES[number % len(MODES)]
        suffix = ".jpg" if mode in ("RGB", "L", "CMYK") else ".png"
        image.convert(mode).save(folder / f"{number:02}{suffix}")
    return folder


def measure(*options: str) -> int:
    return main(
        [
            "measure", "--backbone=resnet10t", "--num-classes=3", "--size=48", "--offset-range=8", "--batch-size=4",
            "--passes=2", "--images=photos", "--out=out", *options,
        ]
    )  # fmt: skip


def report() -> dict:
    return json.loads(Path("out/measure.json").read_text())


def test_a_flat_folder_is_measured_without_labels(capsys):
    write_images(Path("photos"))
    assert measure() == 0
    found = report()
    assert (found["images"], found["labelled"], found["skipped"]) == (6, False, [])
    names = {key for key in found["metrics"] if not key.endswith(("_low", "_high"))}
    assert {"consistency", "consistency_cosine", "worst_case_consistency"} <= names
    assert {name for name in names if "acc" in name or "correct" in name} == set()
    with np.load("out/map.npz") as arrays:
        assert {"consistency", "mcs"} <= set(arrays.files)
        assert "acc" not in arrays.files
    assert Path("out/map.png").exists()
    assert Path("out/layers.png").exists()
    assert len(found["layers"]["errors"]) > 10
    said = capsys.readouterr().out
    assert "consistency_cosine" in said
    assert "results: out/measure.json" in said


def test_class_folders_are_labels(capsys):
    for name in ("ant", "bee", "cat"):
        write_images(Path("photos") / name, 2)
    assert measure("--metrics", "consistency", "diagonal") == 0
    found = report()
    assert found["labelled"]
    assert {"acc", "acc_low", "acc_high", "diagonal_acc", "consistency_corrected"} <= found["metrics"].keys()
    assert not Path("out/map.png").exists()
    assert measure("--num-classes=4", "--metrics", "consistency") == 0
    assert "3 class folders, the network 4 classes: measured without labels" in capsys.readouterr().err
    assert "acc" not in report()["metrics"]


def test_some_classes_of_imagenet_are_labels_for_a_network_of_all_of_them(monkeypatch, capsys):
    """Such as Imagenette, or ImageNet-A: n02102040 is class 217 of the 1,000, and 0 of the folder."""
    folders = {"n01440764": 0, "n02102040": 217, "n03417042": 569}
    for name in folders:
        write_images(Path("photos") / name, 2)
    seen = []
    update = CenterAccuracy.update

    def spy(self, network, images, logits, targets, index):
        seen.extend(targets.tolist())
        update(self, network, images, logits, targets, index)

    monkeypatch.setattr(CenterAccuracy, "update", spy)
    assert measure("--num-classes=1000", "--metrics", "consistency") == 0
    assert seen == [number for number in folders.values() for _ in range(2)]
    assert report()["labelled"]
    Path("photos/n02102040").rename("photos/spaniel")
    assert measure("--num-classes=1000", "--metrics", "consistency") == 0
    assert "3 class folders, the network 1000 classes: measured without labels" in capsys.readouterr().err


def test_what_is_not_defined_is_left_out(monkeypatch):
    """Such as agreement among right answers where none is right; JSON has no NaN."""
    write_images(Path("photos"))
    numbers = {"consistency": torch.tensor(50.0), "consistency_of_correct": torch.tensor(float("nan"))}
    monkeypatch.setattr(ShiftConsistency, "compute", lambda self: numbers)
    assert measure("--metrics", "consistency") == 0
    assert "NaN" not in Path("out/measure.json").read_text()
    assert report()["metrics"] == {"consistency": 50.0}  # nor an accuracy, since there are no classes


def test_a_network_without_finite_answers_writes_json(tmp_path):
    """JSON knows no NaN, and neither does the page that reads it."""

    class Diverged(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = torch.nn.Conv2d(3, 2, 3)

        def forward(self, images):
            return self.conv(images).amax((2, 3)) * float("nan")

    network = Diverged()
    parts = ["consistency", "attribution", "attribution_by_conversion", "layers"]
    with pytest.warns(TinvWarning, match="not defined"):
        found = tinv.measure(
            network, write_images(Path("photos")), num_classes=2, input_size=32, offset_range=4, metrics=parts
        )
    found.save(tmp_path)
    assert "NaN" not in (tmp_path / "measure.json").read_text()
    assert set(found.attribution_by_conversion["consistency"].values()) == {None}
    assert found.attribution["conditions"]["valid"]["on_stride"] is None


def test_a_measure_that_a_network_does_not_take_is_named():
    class Switch(torch.nn.Conv2d):
        def forward(self, images):
            return super().forward(images if images.sum() > 0 else -images).amax((2, 3))

    images, options = write_images(Path("photos")), {"num_classes": 2, "input_size": 32, "offset_range": 4}
    network = torch.nn.Sequential(Switch(3, 2, 3))
    tinv.measure(network, images, metrics=["consistency"], **options)
    with pytest.raises(TinvError, match=r"metrics: layers cannot be measured: .*; leave this metric out"):
        tinv.measure(network, images, metrics=["consistency", "layers"], **options)


@pytest.mark.slow
def test_circular_padding_and_adaptive_subsampling_leave_nothing(capsys):
    """Exactly invariant to every circular shift, and the explanation says so of the unconverted network's weights."""
    write_images(Path("photos"))
    options = ["--mode=circular", "--size=64", "--backbone=resnet18", "--source=torchvision"]
    policies = ["--padding=same_circular", "--subsampling=aps", "--stem=convert"]
    assert measure(*options, *policies, "--metrics", "consistency", "map", "attribution") == 0
    found = report()
    assert found["metrics"]["consistency"] == 100
    assert found["metrics"]["consistency_cosine"] == pytest.approx(1, abs=1e-5)
    assert found["metrics"]["map/consistency"] == 100
    assert found["attribution"]["consistency"]["both"] == 100
    assert list(found["attribution"]["consistency"]) == [
        "unconverted",
        "padding same_circular",
        "subsampling aps",
        "both",
    ]
    text = capsys.readouterr().out
    assert "With both, nothing is left." in text or "nothing to attribute" in text


def test_results_do_not_depend_on_the_batch_size():
    write_images(Path("photos"), 5)
    numbers = []
    for size in (2, 5):
        assert measure(f"--batch-size={size}", "--metrics", "consistency", "worst_case", "--mode=zero") == 0
        numbers.append(report()["metrics"])
    assert numbers[0] == pytest.approx(numbers[1], abs=1e-3)


def test_weights_of_a_file_are_loaded_and_others_are_refused(capsys):
    write_images(Path("photos"))
    torch.manual_seed(3)
    network = create_backbone("resnet10t", "timm", num_classes=3)
    torch.save({"state_dict": {f"module.{k}": v for k, v in network.state_dict().items()}}, "wrapped.pth")
    torch.save(network.state_dict(), "plain.pth")
    found = []
    for name in ("wrapped.pth", "plain.pth"):
        assert measure(f"--weights={name}", "--metrics", "consistency") == 0
        found.append(report()["metrics"])
    assert found[0] == found[1]
    capsys.readouterr()
    assert measure("--weights=plain.pth", "--num-classes=5") == 2
    assert "plain.pth holds the weights of another network: fc.weight is 3x512, here 5x512" in capsys.readouterr().err
    assert measure("--weights=plain.pth", "--pretrained") == 2
    assert "give one of them" in capsys.readouterr().err
    Path("noise.pth").write_bytes(b"no weights")
    assert measure("--weights=noise.pth") == 2
    assert "noise.pth cannot be read as weights" in capsys.readouterr().err
    torch.save([1, 2], "list.pth")
    with pytest.raises(TinvError, match="cannot be read as weights: it holds a list"):
        load_file(network, Path("list.pth"))


@pytest.mark.slow
def test_the_network_of_a_run_is_measured_as_it_was_trained(capsys):
    folder = fit("--model.init_args.padding=full_zero")
    write_images(Path("photos"))
    words = ["measure", f"--run={folder}", "--images=photos", "--out=out", "--max-shift=8", "--mode=zero"]
    assert main([*words, "--metrics", "consistency", "map", "layers"]) == 0
    assert report()["options"]["backbone"] == "red_green_net"
    assert report()["options"]["padding"] == "full_zero"
    # a full convolution has no bias here: shifts by multiples of the total stride change nothing
    assert max(error["error"] for error in report()["layers"]["errors"]) < 1e-5
    for option in ("--padding=valid", "--mean=0.5", "--num_classes=2"):
        assert main([*words, option]) == 2
        name = option.partition("=")[0].replace("_", "-")
        assert f"--run says which network, weights, policies, mean and std; leave {name} out" in capsys.readouterr().err
    # --size is the old name of --input-size
    assert main([*words, "--metrics", "consistency", "--size=40"]) == 0
    assert report()["options"]["input_size"] == [40, 40]
    assert main(["measure", "--run=photos", "--images=photos", "--out=out"]) == 2
    assert "photos is no run with a best checkpoint" in capsys.readouterr().err


def test_a_run_with_more_classes_than_its_data_is_measured_and_one_of_clips_is_refused(capsys):
    write_images(Path("photos"), 2)
    words = ["--images=photos", "--out=out", "--metrics=consistency", "--max-shift=8", "--mode=zero"]
    folder = fit("--model.init_args.num_classes=5", "--trainer.max_epochs=1")
    assert main(["measure", f"--run={folder}", *words]) == 0
    assert report()["options"]["num_classes"] == 5
    clips = ["--data.init_args.num_train=4", "--data.init_args.num_val=4", "--data.init_args.num_test=4"]
    small = ["--trainer.max_epochs=1", "--data.init_args.batch_size=4", "--run_dir=clips"]
    assert main(["fit", "--config=configs/moving_shapes.yaml", *clips, *small]) == 0
    assert main(["measure", "--run=clips", *words, "--out=other"]) == 2
    assert "only networks of images can be measured" in capsys.readouterr().err


def test_damaged_files_are_named_and_skipped_only_when_asked(capsys):
    write_images(Path("photos"))
    whole = Path("photos/00.jpg").read_bytes()
    Path("photos/00.jpg").write_bytes(whole[: len(whole) // 2])
    assert measure("--metrics", "consistency") == 2
    assert "photos/00.jpg cannot be read as an image" in capsys.readouterr().err
    assert measure("--metrics", "consistency", "--on-error=skip") == 0
    assert report()["skipped"] == ["photos/00.jpg"]
    assert report()["images"] == 5


def test_bad_input_is_one_line(capsys):
    write_images(Path("photos"))
    Path("empty").mkdir()
    Path("classes/ant").mkdir(parents=True)
    for options, message in (
        (["--images=absent"], "no folder of images absent"),
        (["--images=empty"], "empty holds no images"),
        (["--images=classes"], "the class folder classes/ant holds no images"),
        (["--offset-range=6"], "offset_range must be a multiple of 4"),
        (["--mode=zero", "--offset-range=48"], "leaves no room"),
        (["--size=big"], "--input-size big is not a size"),
        (["--mean=1,2"], "is not three finite numbers"),
        (["--mean=nan,nan,nan"], "--mean[0]: 'nan' is not of type float"),
        (["--std=0,1,1"], "is not three finite numbers above 0"),
        (["--backbone=resnet10"], "unknown backbone of source timm 'resnet10'"),
        (["--backbone=r3d_18", "--source=torchvision"], "r3d_18 cannot take input_size 48x48 with 3 channels"),
        (["--backbone=vit_tiny_patch16_224"], "it was made for 3x224x224"),
        (["--device=abacus"], "device abacus"),
        (["--max-images=0"], "--max-images must be 1 or more, not 0"),
    ):
        assert measure(*options) == 2, options
        captured = capsys.readouterr()
        assert message in captured.err
        assert captured.err.count("\n") == 1


def test_a_full_disk_costs_no_numbers(monkeypatch, capsys):
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    write_images(Path("photos"), 2)
    monkeypatch.setattr("tinv.evaluation.invariance_report.write_atomically", full)
    assert measure("--metrics=consistency") == 2
    said = capsys.readouterr()
    assert "consistency_cosine" in said.out
    assert "cannot write to out (No space left on device)" in said.err
