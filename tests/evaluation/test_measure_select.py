"""`tinv measure --select` and `tinv.measure(select=)`: a network inside a module of tinv.select beside itself."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

import tinv
from tinv.cli import main
from tinv.errors import TinvError, TinvWarning
from tinv.select import CenterCrop, CropSelect

SIZE, RANGE = 48, 9
QUICK = ["consistency", "ring"]


class Small(torch.nn.Module):
    """Reads the exact place of content: as far from invariant as a network can be."""

    def __init__(self, side: int = SIZE):
        super().__init__()
        torch.manual_seed(0)
        self.head = torch.nn.Linear(3 * side * side, 5)

    def forward(self, images):
        return self.head(images.flatten(1))


def write_images(size: int = 90, count: int = 6) -> Path:
    folder = Path("photos")
    draw = np.random.default_rng(0)
    for number in range(count):
        path = folder / str(number % 3) / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draw.integers(0, 256, (size, size, 3), dtype=np.uint8)).save(path)
    return folder


def measure(*options: str) -> int:
    size = [f"--input-size={SIZE}"] if not any("--input-size" in word for word in options) else []
    return main(
        [
            "measure", "--backbone=resnet10t", "--num-classes=3", "--offset-range=8", "--passes=2", *size,
            "--images=photos", "--out=out", *options,
        ]
    )  # fmt: skip


def test_both_networks_see_the_same_views_of_the_window():
    folder = write_images()
    network = Small()
    options = {"offset_range": 8, "passes": 2, "metrics": QUICK}
    found = tinv.measure(network, folder, input_size=SIZE, select="crop", select_range=RANGE, **options)
    window = SIZE + RANGE - 1
    selected = tinv.measure(CropSelect(network, SIZE), folder, input_size=window, **options)
    alone = tinv.measure(CenterCrop(network, SIZE), folder, input_size=window, **options)
    assert found.metrics == selected.metrics
    assert found.without == alone.metrics != found.metrics
    assert found.metrics["ring_consistency"] > found.without["ring_consistency"]
    table = found.table().set_index("name")
    assert table.loc["ring_consistency", "value"] == found.metrics["ring_consistency"]
    assert table.loc["ring_consistency", "without"] == found.without["ring_consistency"]
    assert found.select == {"select": "crop", "range": RANGE, "score": "random"}


@pytest.mark.parametrize(
    ("name", "options"), [("circular", {"select_score": "laplacian"}), ("anchor", {"select_patch": 8})]
)
def test_circular_selections_are_invariant_to_circular_shifts(name, options):
    images = torch.randn(6, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    found = tinv.measure(Small(), images, mode="circular", offset_range=8, metrics=QUICK, select=name, **options)
    assert found.metrics["consistency"] == found.metrics["ring_never_changed"] == 100
    assert found.without["ring_never_changed"] < 100


def test_batches_that_are_read_once_are_shown_to_both():
    images = torch.randn(6, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    options = {"mode": "circular", "offset_range": 8, "metrics": QUICK, "select": "circular"}
    once = tinv.measure(Small(), (part for part in images.split(2)), **options)
    whole = tinv.measure(Small(), images, **options)
    # batches of other sizes round in other ways
    assert once.metrics == pytest.approx(whole.metrics, abs=1e-5)
    assert once.without == pytest.approx(whole.without, abs=1e-5)
    assert once.without != pytest.approx(once.metrics, abs=1e-5)
    assert once.images == 6


def test_tensors_without_an_input_size_are_the_window():
    images = torch.randn(4, 3, 40, 40, generator=torch.Generator().manual_seed(0))
    options = {"mode": "circular", "offset_range": 8, "metrics": ["consistency"], "select": "crop"}
    assert tinv.measure(Small(36), images, select_range=5, **options).images == 4
    with pytest.raises(TinvError, match="select_range 41 leaves no crop of images of 40x40 pixels"):
        tinv.measure(Small(36), images, select_range=41, **options)


def test_the_command_prints_and_writes_two_columns(capsys):
    write_images()
    assert measure("--select=crop", f"--select-range={RANGE}", "--metrics", *QUICK) == 0
    said = capsys.readouterr().out
    heading = next(line for line in said.splitlines() if "measure" in line and "without" in line)
    assert "select crop" in heading
    written = json.loads(Path("out/measure.json").read_text())
    assert written["select"] == {"select": "crop", "range": RANGE, "score": "random"}
    assert written["metrics_without"].keys() == written["metrics"].keys()
    assert written["options"]["select_range"] == RANGE
    line = next(line for line in said.splitlines() if line.split()[:1] == ["ring_consistency"])
    assert f"{written['metrics_without']['ring_consistency']:.1f}" in line
    assert f"{written['metrics']['ring_consistency']:.1f}" in line
    page = Path("out/measure.html").read_text()
    assert "<button>without</button>" in page
    assert "<button>select crop</button>" in page
    assert main(["report", "out"]) == 0
    assert "select crop" in " ".join(capsys.readouterr().out.split())
    assert measure("--metrics", "consistency") == 0
    assert "metrics_without" not in json.loads(Path("out/measure.json").read_text())
    assert "<button>without</button>" not in Path("out/measure.html").read_text()


def test_without_chosen_measures_those_are_taken_that_need_no_layers():
    images = torch.randn(4, 3, 48, 48)
    with pytest.warns(TinvWarning, match="select circular is no layer: measured without comb, layers, attribution"):
        found = tinv.measure(Small(), images, mode="circular", offset_range=8, select="circular")
    assert "worst_case_consistency" in found.metrics
    assert found.gallery == []


def test_a_protocol_measures_both_too():
    images = torch.randn(3, 3, 224, 224)
    found = tinv.measure(Small(224), images, protocol="chaman2021", select="circular")
    assert found.metrics["consistency"] == 100 > found.without["consistency"]
    with pytest.raises(TinvError, match="protocol zhang2019 says which window is shown"):
        tinv.measure(Small(224), images, protocol="zhang2019", select="crop")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--select=corp"], "--select: unknown select 'corp'; did you mean crop"),
        (["--select-range=9"], "select_range is for select crop; leave it out"),
        (["--select=anchor", "--select-score=random"], "select_score is for select crop and circular; leave it out"),
        (["--select=crop", "--select-patch=8"], "select_patch is for select anchor; leave it out"),
        (["--select=crop", "--select-range=0"], "select-range must be 1 or more, not 0"),
        (["--select=crop", "--input-size=16", "--select-range=9"], "sees beyond a crop of 16 pixels"),
        (["--select=anchor", "--select-patch=13"], "PatchAnchor needs sizes that are multiples of its patch of 13"),
        (["--select=circular", "--metrics", "layers"], "layers cannot be measured with select circular"),
    ],
)
def test_what_makes_no_sense_is_refused(options, message, capsys):
    write_images()
    assert measure(*options) == 2
    assert message in " ".join(capsys.readouterr().err.split())
