"""The figures of the documentation are drawn by one command, and the numbers in them are what the layers compute."""

import runpy
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn import functional as F

DOCS = Path(__file__).parent.parent.parent / "docs"
FOLDER = DOCS / "figures"


@pytest.fixture
def figures(monkeypatch):
    monkeypatch.syspath_prepend(str(FOLDER))
    yield runpy.run_path(str(FOLDER / "__main__.py"))["FIGURES"]
    for name in ("style", "borders", "subsampling", "exactness"):
        sys.modules.pop(name, None)


def numbers(axes) -> list[float]:
    """The texts of axes that are numbers, in the order of drawing."""
    return [float(text.get_text()) for text in axes.texts if text.get_text().replace(".", "").isdigit()]


def curves(axes) -> dict[str, np.ndarray]:
    return {line.get_label(): np.asarray(line.get_ydata()) for line in axes.lines}


def test_one_command_draws_every_figure_that_the_pages_show(tmp_path):
    subprocess.run([sys.executable, str(FOLDER), str(tmp_path)], check=True, env={"PYTHONPATH": str(DOCS.parent)})
    drawn = {path.name for path in tmp_path.iterdir()}
    assert drawn == {path.name for path in (DOCS / "images").glob("*.svg")}
    page = (DOCS / "concepts.md").read_text()
    for name in drawn:
        assert f"(images/{name})" in page
        assert 5_000 < (tmp_path / name).stat().st_size < 100_000


def test_positions_that_see_a_pixel(figures):
    """Counted by sliding the kernel by hand."""
    for axes, width in zip(figures["coverage"]().axes, (0, 1, 2), strict=True):
        counts = np.zeros((5 + 2 * width, 5 + 2 * width))
        for row in range(len(counts) - 2):
            for column in range(len(counts) - 2):
                counts[row : row + 3, column : column + 3] += 1
        wanted = counts[width : width + 5, width : width + 5]
        assert numbers(axes) == wanted.flatten().tolist()
        assert axes.get_xlabel() == f"output {3 + 2 * width}x{3 + 2 * width}"


def test_what_the_border_holds(figures):
    got = np.array(numbers(figures["border_contents"]().axes[0])).reshape(5, 9)
    row = torch.arange(1.0, 6).view(1, 1, 5)
    for drawn, mode in zip(got, ("constant", "circular", "reflect", "replicate"), strict=False):
        assert drawn.tolist() == F.pad(row, (2, 2), mode=mode).flatten().tolist()
    assert got[4].tolist() == [0.5, 0.5, 1, 2, 3, 4, 5, 0.5, 0.5]


def test_only_zero_padding_leaves_an_edge_in_a_blank_image(figures):
    found = curves(figures["background"]().axes[0])
    assert np.ptp(found["background"]) == 0
    assert found["zeros"][0] < found["zeros"][1] == found["background"][1]


def test_stride_gives_the_example_of_mouton_et_al(figures):
    got = numbers(figures["stride"]().axes[0])
    signal, kernel = [0, 0, 0, 0, 1, 2, 0, 0, 0, 0], np.array([1, 0, 1])
    wanted = []
    for shift in (0, 1, 2):
        dense = np.convolve(np.roll(signal, shift), kernel, "valid").tolist()
        wanted += dense + dense[::2]
    assert got == wanted
    assert got[8:12] == [0, 1, 1, 0]
    assert got[20:24] == [0, 0, 2, 2]


def test_blur_keeps_shifted_edges_closer(figures):
    plain, blurred = np.array(numbers(figures["blur"]().axes[0])).reshape(2, 2, 4)
    assert plain.tolist() == [[0, 1, 0, 1], [1, 1, 1, 1]]
    assert np.abs(blurred[1] - blurred[0]).max() < np.abs(plain[1] - plain[0]).max()
    assert blurred.mean(axis=1).tolist() == [0.75, 0.75]


def test_adaptive_sampling_keeps_the_same_pixels(figures):
    axes = figures["adaptive"]().axes[0]
    first, second = np.array(numbers(axes)).reshape(2, 16)
    for part, shift in ((first, 0), (second, 1)):
        assert part[:8].tolist() == np.roll([1, 0, 3, 1, 2, 0, 1, 1], shift).tolist()
        assert part[8:12].tolist() == part[:8][::2].tolist()
        assert part[12:].tolist() == part[:8][1::2].tolist()
    kept = [text.get_text() for text in axes.texts if "norm" in text.get_text()]
    assert ["kept" in words for words in kept] == [True, False, False, True]
    assert first[8:12].tolist() == second[12:].tolist()


def test_larger_pools_keep_more_similarity(figures):
    heights = [bar.get_height() for bar in figures["pooling"]().axes[0].patches]
    assert heights == sorted(heights)
    assert abs(heights[0]) < 0.05
    assert heights[-1] > 0.5


def test_heads(figures):
    figure = figures["head"]()
    first, second = (np.array(numbers(axes)) for axes in figure.axes)
    assert np.roll(first.reshape(4, 4), 1, axis=1).tolist() == second.reshape(4, 4).tolist()
    assert (
        figure.axes[0].get_xlabel() == figure.axes[1].get_xlabel() == f"mean {first.mean():g}, maximum {first.max():g}"
    )
    cosine = first @ second / (np.linalg.norm(first) * np.linalg.norm(second))
    assert figure.get_supxlabel() == f"cosine of the flattened maps: {cosine:.2f}"


def test_exact_at_the_shifts_that_the_page_names(figures):
    circular, canvas = (curves(axes) for axes in figures["exactness"]().axes)
    for found, exact in ((circular, "same_circular"), (canvas, "full_background")):
        assert found[f"{exact}, aps"].max() < 1e-12
        assert found[exact][[4, 8]].max() < 1e-12
        assert found[exact][[1, 2, 3, 5, 6, 7]].min() > 0.01
        assert found["same_zero"][1:].min() > 0.01
