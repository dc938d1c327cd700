import itertools

import numpy as np
import pytest

from tinv.data.patch_pairs import UniquePointBatchSampler, all_pairs, assign_to_batches, batch_count, draw_pairs
from tinv.errors import TinvError

POINTS = np.array([9, 4, 4, 7, 9, 9, 4, 9, 1])  # 1 and 7 have one patch only


def test_all_pairs_are_those_of_a_double_loop():
    expected = {(a, b) for a, b in itertools.combinations(range(len(POINTS)), 2) if POINTS[a] == POINTS[b]}
    found = all_pairs(POINTS)
    assert {(a, b) for a, b in found.tolist()} == expected
    assert len(found) == len(expected)
    assert len(all_pairs(np.array([5, 6]))) == 0
    assert len(all_pairs(np.array([], dtype=np.int64))) == 0


def test_drawn_pairs_are_different_nested_and_of_one_point():
    points = np.repeat(np.arange(50), 4)
    most = draw_pairs(points, 300, seed=3)  # all there are
    assert len({frozenset(pair) for pair in most.tolist()}) == 300
    assert (points[most[:, 0]] == points[most[:, 1]]).all()
    for count in (1, 20, 299):
        assert (draw_pairs(points, count, seed=3) == most[:count]).all()
    assert (draw_pairs(points, 20, seed=4) != most[:20]).any()
    # either patch may be the anchor
    assert 0.3 < (most[:, 0] < most[:, 1]).mean() < 0.7


def test_points_are_as_likely_however_many_patches_they_have():
    points = np.concatenate([np.repeat(np.arange(100), 2), np.repeat(np.arange(100, 200), 12)])
    drawn = np.concatenate([points[draw_pairs(points, 20, seed)[:, 0]] for seed in range(60)])
    assert 0.42 < (drawn < 100).mean() < 0.58  # 1 in 67 if all pairs were as likely


@pytest.mark.parametrize("count", [0, 10])
def test_more_pairs_than_there_are_say_how_many_there_are(count):
    with pytest.raises(TinvError, match=rf"num_pairs={count} asked for; choose 1 to 9"):
        draw_pairs(POINTS, count, seed=0)
    assert len(draw_pairs(POINTS, 9, seed=0)) == 9


@pytest.mark.parametrize(("pairs", "points", "size"), [(1000, 400, 64), (1000, 37, 64), (50, 50, 64), (64, 64, 64)])
def test_no_point_is_twice_in_a_batch_and_every_pair_is_in_one(pairs, points, size):
    shown = np.random.default_rng(0).integers(points, size=pairs)
    batches = assign_to_batches(shown, size, np.random.default_rng(1))
    assert sorted(np.concatenate(batches).tolist()) == list(range(pairs))
    assert len(batches) == batch_count(shown, size)
    for batch in batches:
        assert len(np.unique(shown[batch])) == len(batch) <= size
    sizes = {len(batch) for batch in batches}
    assert max(sizes) - min(sizes) <= 1


def test_batches_are_dealt_anew_from_other_numbers_only():
    shown = np.arange(100) // 2
    once, again, other = (assign_to_batches(shown, 10, np.random.default_rng(seed)) for seed in (0, 0, 1))
    assert all((a == b).all() for a, b in zip(once, again, strict=True))
    assert any((a != b).any() for a, b in zip(once, other, strict=True))


def test_ranks_share_the_batches_of_one_process(monkeypatch):
    shown = np.arange(103)
    whole = [set(b.tolist()) for b in UniquePointBatchSampler(shown, 20, lambda: np.random.default_rng(0))]
    parts = []
    for rank in (0, 1):
        monkeypatch.setattr("tinv.data.patch_pairs.rank_and_ranks", lambda rank=rank: (rank, 2))
        dealt = UniquePointBatchSampler(shown, 10, lambda: np.random.default_rng(0))
        parts.append([set(batch.tolist()) for batch in dealt])
        assert len(dealt) == len(parts[-1]) == len(whole)
    assert [a | b for a, b in zip(*parts, strict=True)] == whole
