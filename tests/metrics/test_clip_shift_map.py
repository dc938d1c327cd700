import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tinv.artifacts import write_artifacts
from tinv.errors import TinvError
from tinv.metrics import ClipShiftMap


@pytest.fixture
def network() -> nn.Module:
    return nn.Sequential(nn.Conv3d(2, 4, 3, padding=1), nn.ReLU(), nn.Flatten(), nn.Linear(4 * 6 * 5 * 7, 3)).eval()


@pytest.fixture
def clips() -> torch.Tensor:
    return torch.randn(9, 2, 6, 5, 7, generator=torch.Generator().manual_seed(0))


def shifted(clip: torch.Tensor, dt: int, dx: int, mode: str) -> torch.Tensor:
    """One clip (C, T, H, W) moved, frame by frame and column by column."""
    if mode == "circular":
        return clip.roll((dt, dx), (1, 3))
    out = torch.zeros_like(clip)
    for frame in range(clip.shape[1]):
        for column in range(clip.shape[3]):
            if 0 <= frame - dt < clip.shape[1] and 0 <= column - dx < clip.shape[3]:
                out[:, frame, :, column] = clip[:, frame - dt, :, column - dx]
    return out


@pytest.mark.parametrize("mode", ["zero", "circular"])
@pytest.mark.parametrize("batch", [9, 4])
def test_maps_are_those_of_one_clip_at_a_time(network, clips, mode, batch, tmp_path):
    targets = torch.arange(9) % 3
    metric = ClipShiftMap(max_frames=2, max_shift=4, frame_step=1, step=2, mode=mode)
    with torch.no_grad():
        for part in torch.arange(9).split(batch):
            metric.update(network, clips[part], network(clips[part]), targets[part], part)
        found = metric.maps()
        logits = network(clips)
        for row, dt in enumerate(range(-2, 3)):
            for column, dx in enumerate((-4, -2, 0, 2, 4)):
                said = torch.cat([network(shifted(clip, dt, dx, mode)[None]) for clip in clips])
                answers = said.argmax(dim=1)
                expected = {
                    "acc": 100 * (answers == targets).double().mean(),
                    "consistency": 100 * (answers == logits.argmax(dim=1)).double().mean(),
                    "mcs": F.cosine_similarity(said.double(), logits.double()).mean(),
                }
                for key, value in expected.items():
                    assert float(found[key][row, column]) == pytest.approx(float(value), abs=1e-5)
    results = metric.compute()
    assert float(results["clip_map/mcs_time"]) == pytest.approx(float(found["mcs"][:, 2].mean()))
    assert float(results["clip_map/consistency_space"]) == pytest.approx(float(found["consistency"][2].mean()))
    assert float(results["clip_map/acc"]) == pytest.approx(float(found["acc"].mean()))
    assert [path.name for path in write_artifacts(metric, tmp_path, "clip_map")] == ["clip_map.npz", "clip_map.png"]
    with np.load(tmp_path / "clip_map.npz") as arrays:
        assert arrays["frames"].tolist() == [-2, -1, 0, 1, 2]
        assert arrays["pixels"].tolist() == [-4, -2, 0, 2, 4]
        assert np.allclose(arrays["mcs"], found["mcs"])


def test_accuracy_is_of_the_clips_that_have_a_class(network, clips):
    """Of none it is left out, and not 0."""
    index, logits = torch.arange(9), network(clips)
    right = logits.argmax(dim=1)
    some, none = ClipShiftMap(1, 2), ClipShiftMap(1, 2)
    some.update(network, clips, logits, torch.where(index < 4, right, -1), index)
    none.update(network, clips, logits, torch.full((9,), -1), index)
    assert some.maps()["acc"][1, 1] == 100
    assert set(none.maps()) == {"consistency", "mcs"}
    assert not any("/acc" in name for name in none.compute())


def test_only_the_first_clips_are_used_if_so_told(network, clips):
    few, all_of_few = ClipShiftMap(1, 2, max_clips=4), ClipShiftMap(1, 2)
    targets, index = torch.zeros(9, dtype=torch.long), torch.arange(9)
    few.update(network, clips, network(clips), targets, index)
    all_of_few.update(network, clips[:4], network(clips[:4]), targets[:4], index[:4])
    torch.testing.assert_close(few.maps(), all_of_few.maps())


@pytest.mark.parametrize(
    ("shape", "message"),
    [
        ((3, 32, 32), "clip_map is for clips; use TranslationSensitivityMap"),
        ((3, 4, 32, 32), "clip_map: max_frames=4 moves clips of 4 out of sight"),
        ((3, 16, 32, 8), "clip_map: max_shift=8 moves clips of 8 out of sight"),
    ],
)
def test_what_cannot_be_measured_is_said_before_any_training(network, shape, message):
    with pytest.raises(TinvError, match=message):
        ClipShiftMap().check(network, shape)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"max_frames": 3, "frame_step": 2}, "max_frames=3 must be a multiple of frame_step=2"),
        ({"max_shift": -1}, "max_shift must be 0 or more, not -1"),
        ({"mode": "crop"}, "unknown mode 'crop'"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(TinvError, match=message):
        ClipShiftMap(**options)
