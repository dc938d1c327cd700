"""`tinv tiles`: the plan, the JSON, the proof, and bad input."""

import json

import pytest

from tinv.cli import main
from tinv.graph import tile_proof

SMALL = ["tiles", "resnet_cifar", "--source", "tinv", "--num-classes", "10", "--image", "200x230", "--tile", "120"]


def test_the_plan_of_a_classifier_is_that_of_its_trunk_and_is_tried(capsys):
    assert main(SMALL) == 0
    said = capsys.readouterr().out
    assert "resnet_cifar (tinv), its trunk before the head" in said
    assert "tiles begin at multiples of 4x4 pixels" in said
    assert "stitched tiles equal the whole" in said


def test_json_holds_every_tile(capsys):
    assert main([*SMALL, "--json", "true", "--proof", "false"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["image_size"] == [200, 230]
    assert "proof" not in found
    covered = sum(kept["size"][0] * kept["size"][1] for tile in found["tiles"] for kept in tile["kept"])
    assert covered == found["outputs"][0][0] * found["outputs"][0][1]


def test_stitched_tiles_that_differ_make_the_exit_code_1(capsys, monkeypatch):
    monkeypatch.setattr(tile_proof, "_error", lambda stitched, whole: 0.5)
    assert main(SMALL) == 1
    assert "stitched tiles DIFFER from the whole" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--tile", "24"], "tiles of 24 pixels are too small along axis 0"),
        (["--tile", "0"], "--tile 0 is not a size in pixels"),
        (["--image", "10x10x10"], "a size is two numbers above 0, height and width, not 10x10x10"),
        (["--padding", "same_circular"], "axis 0 is padded circularly"),
    ],
)
def test_bad_input_is_one_line(words, message, capsys):
    assert main([*SMALL, "--proof", "false", *words]) == 2
    error = capsys.readouterr().err
    assert error.startswith("tinv: error: ")
    assert message in error
