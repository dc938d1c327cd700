import itertools

import pytest
import torch

from tinv.data import MovingShapes
from tinv.data.moving_shapes import FRAMES, JUMP, MOMENTS, PAUSE, ROWS, SHAPE, SIDE, draw_clips, moved
from tinv.errors import TinvError

CUES = ["place", "moment"]


def seen(clip: torch.Tensor) -> list[tuple[int, int, int]]:
    """(frame, first row, first column) of what can be seen in a clip (T, H, W, C)."""
    found = []
    for frame in range(FRAMES):
        lit = clip[frame].sum(dim=2).nonzero()
        if len(lit):
            found.append((frame, *lit.min(dim=0).values.tolist()))
            assert (lit.max(dim=0).values - lit.min(dim=0).values + 1).tolist() == [SHAPE, SHAPE]
    return found


@pytest.mark.parametrize("cue", CUES)
def test_the_class_is_the_direction_and_the_accident_gives_it_away(cue):
    clips = draw_clips(60, cue, (0, 0))
    for clip, target in zip(clips.image, clips.target.tolist(), strict=True):
        frames, rows, columns = zip(*seen(clip), strict=True)
        assert len(frames) == (3 if cue == "place" else 2)
        assert {b - a for a, b in itertools.pairwise(frames)} == {PAUSE}
        assert {b - a for a, b in itertools.pairwise(columns)} == {-JUMP if target else JUMP}
        assert len(set(rows)) == 1
        if cue == "place":
            assert (rows[0] >= ROWS) == bool(target)
            assert rows[0] < SIDE - ROWS or target
        else:
            assert (frames[0] >= MOMENTS) == bool(target)
            assert frames[-1] < FRAMES - MOMENTS or target


@pytest.mark.parametrize("cue", CUES)
def test_dissimilar_clips_are_the_same_at_the_other_border(cue):
    clips = draw_clips(40, cue, (0, 0))
    twins = moved(clips, cue)
    assert torch.equal(clips.target, twins.target)
    for clip, twin, target in zip(clips.image, twins.image, clips.target.tolist(), strict=True):
        by = [0, 0, 0]
        by[1 if cue == "place" else 0] = (ROWS if cue == "place" else MOMENTS) * (-1 if target else 1)
        assert [tuple(a + b for a, b in zip(place, by, strict=True)) for place in seen(clip)] == seen(twin)
    # they lie where the other class does
    other = {tuple(place[:2]) for clip in clips.image[1::2] for place in seen(clip)}
    axis = 1 if cue == "place" else 0
    assert {place[axis] for clip in twins.image[::2] for place in seen(clip)} <= {place[axis] for place in other} | set(
        range(SIDE - 2 * SHAPE, SIDE)
    )


def test_sets_differ_and_the_same_seed_gives_the_same_clips():
    def sets(**options):
        data = MovingShapes(num_train=20, num_val=20, num_test=20, **options)
        data.setup()
        return data.splits

    first, again, other = sets(), sets(), sets(data_seed=1)
    assert torch.equal(first.train.image, again.train.image)
    assert not torch.equal(first.train.image, other.train.image)
    assert not torch.equal(first.train.image, first.val.image)
    assert not torch.equal(first.val.image, first.test["similar"].image)
    assert sorted(first.test) == ["dissimilar", "similar"]


def test_clips_reach_the_network_as_floats():
    data = MovingShapes(num_train=4, num_val=2, num_test=2)
    data.setup()
    batch = data.on_after_batch_transfer(next(iter(data.train_dataloader())), 0)
    assert batch.image.shape == (4, *data.input_shape) == (4, 3, 16, 32, 32)
    assert batch.image.max() <= 1
    assert torch.equal(batch.image[1], data.splits.train.image[batch.index[1]].permute(3, 0, 1, 2) / 255)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"cue": "time"}, "unknown cue 'time'; choose from place, moment"),
        ({"canvas_size": 40}, "canvas_size is for images; leave it out for MovingShapes"),
        ({"train_max_shift": 2}, "train_max_shift is for images"),
        ({"num_test": 0}, "num_test must be 1 or more, not 0"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(TinvError, match=message):
        MovingShapes(**options)
