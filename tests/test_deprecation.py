"""Old names of modules can still be imported, say where they are now, and take nothing from the new names."""

import subprocess
import sys
from importlib import import_module
from typing import get_args

import pytest

import tinv
from tinv.deprecation import MODULES, moved, renamed


@pytest.fixture(autouse=True)
def function_is_put_back(monkeypatch):
    """Old modules of that name take the place of `tinv.measure` when they are imported."""
    monkeypatch.setattr(tinv, "measure", tinv.measure)


@pytest.mark.parametrize("old", sorted(MODULES))
def test_old_modules_are_importable(old):
    assert import_module(old).__name__ == old
    with pytest.raises(AttributeError):
        getattr(import_module(old), "nothing_of_that_name")  # noqa: B009


def test_their_names_are_those_of_the_new_modules():
    from tinv.evaluation.attribution import share
    from tinv.graph.exact_invariance import ExactInvariance

    with pytest.warns(DeprecationWarning, match=r"tinv.measure.attribution.share is now tinv.evaluation.attribution"):
        from tinv.measure.attribution import share as old
    assert old is share
    with pytest.warns(DeprecationWarning, match=r"tinv.policies.verdict.Verdict is now tinv.graph.exact_invariance"):
        from tinv.policies.verdict import Verdict as OldVerdict
    assert OldVerdict is ExactInvariance
    with pytest.warns(DeprecationWarning, match=r"file_batches.Middle is now .*image_preparation.ResizeCenterCrop"):
        from tinv.data.file_batches import Middle  # noqa: F401


def test_the_function_is_there_whatever_was_imported():
    import_module("tinv.measure.attribution")
    with pytest.raises(tinv.TinvError, match="offset_range must be a multiple of 4"):
        tinv.measure(len, "photos", offset_range=6)


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
    with pytest.raises(TypeError, match="size is the old name of count; keep one of them"):
        take(size=3, count=4)


def test_a_name_may_be_another_one_in_its_new_module():
    with pytest.warns(DeprecationWarning, match=r"here.Broken is now tinv.errors.TinvError"):
        assert moved("here", {"Broken": "tinv.errors:TinvError"})("Broken") is __import__("tinv").TinvError


@pytest.mark.parametrize(
    ("old", "new"), [("TranslationMap", "TranslationSensitivityMap"), ("UnmovedAccuracy", "CenterAccuracy")]
)
def test_metrics_by_their_old_names(old, new):
    import tinv.metrics

    with pytest.warns(DeprecationWarning, match=f"tinv.metrics.{old} is now .*{new}"):
        assert getattr(tinv.metrics, old) is getattr(tinv.metrics, new)


@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("MeanCosineSimilarity", {"canvas": "circular"}, {"mode": "circular"}),
        ("MeanCosineSimilarity", {"on": "relu"}, {"output": "relu"}),
        ("TranslationSensitivityMap", {"canvas": "crop"}, {"mode": "crop"}),
        ("ClipShiftMap", {"canvas": "circular"}, {"mode": "circular"}),
        ("ShiftConsistency", {"max_shift": 4, "motion": "zero"}, {"offset_range": 4, "mode": "zero"}),
        ("DiagonalAccuracy", {"max_shift": 4, "motion": "zero"}, {"offset_range": 4, "mode": "zero"}),
        ("WorstCaseAccuracy", {"max_shift": 4, "motion": "zero"}, {"offset_range": 4, "mode": "zero"}),
        ("LayerEquivariance", {"max_shift": 4, "motion": "zero"}, {"max_stride": 4, "mode": "zero"}),
        ("DescriptorShift", {"max_shift": 4, "motion": "circular"}, {"offset_range": 4, "mode": "circular"}),
    ],
)
def test_arguments_of_metrics_by_their_old_names(name, old, new):
    import tinv.metrics

    make = getattr(tinv.metrics, name)
    with pytest.warns(DeprecationWarning, match=f"{next(iter(old))} is now {next(iter(new))}"):
        made = make(**old)
    assert {key: getattr(made, key) for key in new} == new


def test_images_are_moved_by_the_old_name_of_the_mode():
    import torch

    from tinv.translation import translate

    image = torch.arange(4.0).view(1, 1, 2, 2)
    with pytest.warns(DeprecationWarning, match="canvas is now mode"):
        assert translate(image, torch.tensor([[1, 0]]), canvas="circular").flatten().tolist() == [1, 0, 3, 2]


def test_metrics_of_the_old_interface_report_and_are_written(tmp_path):
    import torch

    from tinv.artifacts import write_artifacts
    from tinv.metrics import CenterAccuracy, InvarianceMetric

    class Old(InvarianceMetric):
        def update(self, network, images, logits, targets, index):
            pass

        def results(self):
            return {"old": torch.tensor(7.0)}

        def save(self, folder, stem):
            return [folder / f"{stem}.txt"]

    old = Old()
    old.update(None, None, None, None, None)
    with pytest.warns(DeprecationWarning, match="Old.results is now compute"):
        assert old.compute() == {"old": 7}
    with pytest.warns(DeprecationWarning, match="Old.save is now arrays and plot"):
        assert write_artifacts(old, tmp_path, "old") == [tmp_path / "old.txt"]
    new = CenterAccuracy()
    new.update(None, None, torch.eye(2), torch.arange(2), torch.arange(2))
    with pytest.warns(DeprecationWarning, match="CenterAccuracy.results is now compute"):
        assert new.results() == new.compute()


@pytest.mark.parametrize(
    ("module", "old", "new"),
    [
        ("tinv.nn", "AdaptivePolyphase", "tinv.nn.subsampling:AdaptivePolyphaseSampling"),
        ("tinv.policies", "AdaptivePolyphase", "tinv.nn.subsampling:AdaptivePolyphaseSampling"),
        ("tinv.policies", "fit", "tinv.nn.padding:pad_or_crop_like"),
        ("tinv.policies", "analyse", "tinv.graph.analysis:analyze"),
        ("tinv.policies", "Verdict", "tinv.graph.exact_invariance:ExactInvariance"),
        ("tinv.policies", "Settings", "tinv.policies.conversion:ConversionPolicy"),
        ("tinv.policies.subsampling", "AdaptivePolyphaseSampling", "tinv.policies.subsampling:APS"),
        ("tinv.policies.judge", "InvarianceAnalyzer", "tinv.graph.invariance_analyzer:InvarianceAnalyzer"),
    ],
)
def test_old_names_stand_for_the_new_ones(module, old, new):
    home, _, name = new.partition(":")
    with pytest.warns(DeprecationWarning, match=old):
        found = getattr(import_module(module), old)
    assert found is getattr(import_module(home), name)


def test_layers_take_arguments_by_their_old_names():
    import torch

    from tinv.nn import AdaptivePolyphaseSampling, BlurPool, Pool, Subsampler, pad

    with pytest.warns(DeprecationWarning, match="content is now padding_mode"):
        layers = [BlurPool(3, content="circular"), AdaptivePolyphaseSampling(2, content="circular")]
    assert {layer.padding_mode for layer in layers} == {"circular"}
    with pytest.warns(DeprecationWarning, match="padding_mode='zeros'"):
        assert BlurPool(3, 2, "zero").padding_mode == "zeros"
    with pytest.warns(DeprecationWarning, match="amounts is now widths"):
        assert pad(torch.zeros(1, 1, 2), amounts=[(1, 2)]).shape == (1, 1, 5)
    with pytest.warns(DeprecationWarning, match="count_padding is now count_include_pad"):
        assert not Pool("average", 3, count_padding=False).count_include_pad
    with pytest.warns(DeprecationWarning, match="padding_content is now padding_mode"):
        own = type("Own", (Subsampler,), {"padding_content": "reflect"})
    assert own.padding_mode == "reflect"


def test_the_old_name_of_a_policy_is_taken_with_a_warning():

    import tinv
    from tinv.policies.cards import SUBSAMPLINGS, Subsampling
    from tinv.policies.subsampling import subsampling_policy

    with pytest.warns(DeprecationWarning, match="dense is now subsampling=dilated"):
        assert subsampling_policy("dense") == subsampling_policy("dilated")
    with pytest.warns(DeprecationWarning, match="dense"):
        assert str(tinv.ConversionPolicy(subsampling="dense")) == "subsampling=dilated"
    assert "dense" in get_args(Subsampling)  # what configurations and commands accept
    assert "dense" not in SUBSAMPLINGS


def test_the_account_of_a_conversion_has_its_old_names():
    from tinv.graph.account import Conversion
    from tinv.policies.conversion import ConversionPolicy

    found = Conversion(ConversionPolicy())
    found.skip("conv1", "as it should be")
    with pytest.warns(DeprecationWarning, match="left is now skipped"):
        assert found.left == found.skipped
    assert found.price == found.cost_summary
