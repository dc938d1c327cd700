"""Old names of modules can still be imported, say where they are now, and take nothing from the new names."""

import subprocess
import sys
from importlib import import_module

import pytest

from tinv.deprecation import MODULES, moved, renamed


@pytest.mark.parametrize("old", sorted(MODULES))
def test_old_modules_are_importable(old):
    assert import_module(old).__name__ == old
    with pytest.raises(AttributeError):
        getattr(import_module(old), "nothing_of_that_name")  # noqa: B009


def test_their_names_are_those_of_the_new_modules():
    from tinv.evaluation.attribution import share
    from tinv.graph.verdict import Verdict

    with pytest.warns(DeprecationWarning, match=r"tinv.measure.attribution.share is now tinv.evaluation.attribution"):
        from tinv.measure.attribution import share as old
    assert old is share
    with pytest.warns(DeprecationWarning, match=r"tinv.policies.verdict.Verdict is now tinv.graph.verdict.Verdict"):
        from tinv.policies.verdict import Verdict as OldVerdict
    assert OldVerdict is Verdict
    with pytest.warns(DeprecationWarning, match=r"file_batches.Middle is now tinv.data.image_preparation.Middle"):
        from tinv.data.file_batches import Middle  # noqa: F401


def test_the_function_is_there_whatever_was_imported():
    import tinv.measure.attribution

    with pytest.raises(tinv.TinvError, match="max_shift must be a multiple of 4"):
        tinv.measure(None, "photos", max_shift=6)


def test_nothing_of_torch_is_imported():
    code = "import sys, tinv, tinv.policies.pooling, tinv.measure; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "False\n"


def test_an_argument_by_its_old_name_is_taken_with_a_warning():
    @renamed(size="count")
    def take(count: int = 0) -> int:
        return count

    with pytest.warns(DeprecationWarning, match="size is now count"):
        assert take(size=3) == 3
    assert take(count=4) == 4


def test_a_name_may_be_another_one_in_its_new_module():
    with pytest.warns(DeprecationWarning, match=r"here.Broken is now tinv.errors.TinvError"):
        assert moved("here", {"Broken": "tinv.errors:TinvError"})("Broken") is __import__("tinv").TinvError
