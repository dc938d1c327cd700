import pytest

from tinv.data import HMDB51, UCF101, ImageFolder, ImageNet
from tinv.errors import TinvError

MODULES = [ImageFolder, ImageNet, UCF101, HMDB51]


@pytest.mark.parametrize("module", MODULES)
@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("batch_size", 0, "batch_size must be 1 or more, not 0"),
        ("num_workers", -1, "num_workers must be 0 or more, not -1"),
        ("on_error", "ignore", "ignore"),
    ],
)
def test_values_out_of_range_are_named(module, key, value, message):
    with pytest.raises(TinvError, match=message):
        module(**{key: value})


@pytest.mark.parametrize("module", MODULES)
def test_the_seed_is_the_runs_unless_one_is_given(module, monkeypatch):
    monkeypatch.setenv("PL_GLOBAL_SEED", "7")
    assert module().seed == 7
    assert module(seed=3).seed == 3


@pytest.mark.parametrize("module", MODULES)
def test_a_cache_folder_may_begin_with_the_home(module, monkeypatch, tmp_path):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert module(cache_dir="~/caches").cache_dir == tmp_path / "caches"
