from pathlib import Path

import pytest
import torch
from lightning.pytorch import LightningDataModule, Trainer
from PIL import Image
from torch import nn

import tinv
from tinv.data import Digits, RedGreen
from tinv.errors import TinvError
from tinv.metrics import MeanCosineSimilarity, TranslationSensitivityMap
from tinv.models.features import as_logits
from tinv.tasks import Classification


def trainer(**options) -> Trainer:
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    return Trainer(**quiet, enable_model_summary=False, num_sanity_val_steps=0, **options)


def red_green(**options) -> RedGreen:
    return RedGreen(num_train=60, num_val=20, num_test=30, batch_size=20, **options)


@pytest.mark.parametrize("padding", ["full_zero", "same_circular"])
def test_twins_get_the_same_logits_before_and_after_training(padding):
    """16 rows are a multiple of the total stride 8: a theorem, not a statistic."""
    model, data = Classification("red_green_net", padding=padding), red_green()
    run = trainer(max_epochs=2)
    for epochs in (0, 2):
        if epochs:
            before = [parameter.clone() for parameter in model.network.parameters()]
            run.fit(model, datamodule=data)
            assert any((a != b).any() for a, b in zip(before, model.network.parameters(), strict=True))
        else:
            run.test(model, datamodule=data, verbose=False)  # builds the network
        similar, dissimilar = (data.prepare(s.image) for s in data.splits.test.values())
        with torch.no_grad():
            torch.testing.assert_close(model(similar), model(dissimilar), rtol=0, atol=1e-5)


def test_same_zero_tells_twins_apart():
    model, data = Classification("red_green_net", padding="same_zero"), red_green()
    trainer().test(model, datamodule=data, verbose=False)
    similar, dissimilar = (data.prepare(s.image) for s in data.splits.test.values())
    with torch.no_grad():
        assert (model(similar) - model(dissimilar)).abs().max() > 1e-4


def test_metrics_are_computed_on_every_test_set_and_named_after_it(tmp_path):
    metrics = [MeanCosineSimilarity(8, mode="circular"), TranslationSensitivityMap(8, 8, "circular", name="window")]
    model = Classification("red_green_net", padding="same_circular", metrics=metrics)
    [similar, dissimilar] = trainer().test(model, datamodule=red_green(), verbose=False)
    names = ["test/acc", "test/mcs", "test/window/acc", "test/window/acc_min", "test/window/consistency"]
    found = similar | dissimilar
    assert {f"{name}/{which}" for name in names for which in ("similar", "dissimilar")} <= found.keys()
    # shifts by the total stride change nothing
    assert found["test/window/consistency/similar"] == 100
    assert found["test/window/mcs/similar"] == pytest.approx(1, abs=1e-6)
    assert found["test/mcs/similar"] < 1
    saved = model.save_artifacts(tmp_path)
    assert sorted(path.name for path in saved) == [
        "window_dissimilar.npz",
        "window_dissimilar.png",
        "window_similar.npz",
        "window_similar.png",
    ]


@pytest.mark.parametrize("memory_format", ["contiguous", "channels_last"])
def test_memory_format_is_that_of_the_weights_and_changes_no_answer(memory_format):
    model = Classification("pooling_cnn", num_classes=4, input_shape=(3, 20, 20), memory_format=memory_format)
    torch.manual_seed(0)
    model.configure_model()
    weight = model.network.features.conv2.weight
    assert weight.is_contiguous(memory_format=getattr(torch, memory_format.replace("contiguous", "contiguous_format")))
    reference = Classification("pooling_cnn", num_classes=4, input_shape=(3, 20, 20))
    torch.manual_seed(0)
    reference.configure_model()
    x = torch.randn(2, 3, 20, 20)
    torch.testing.assert_close(model(x), reference(x))


def test_any_source_and_schedule_can_be_trained():
    model = Classification(
        "resnet18",
        source="timm",
        lr_scheduler=lambda optimizer: torch.optim.lr_scheduler.StepLR(optimizer, 1),
        metrics=[MeanCosineSimilarity(8, output="features")],
    )
    data = Digits(num_train=20, num_val=10, num_test=10)
    run = trainer(max_epochs=2)
    run.fit(model, datamodule=data)
    assert run.optimizers[0].param_groups[0]["lr"] == pytest.approx(1e-5)  # Adam's 1e-3, twice a tenth
    [found] = run.test(model, datamodule=data, verbose=False)
    assert -1 <= found["test/mcs"] <= 1


def test_data_that_says_nothing_of_itself_needs_the_shape_in_the_configuration():
    class Bare(LightningDataModule):
        def test_dataloader(self):
            return []

    with pytest.raises(TinvError, match=r"set model\.init_args\.num_classes and model.init_args.input_shape"):
        trainer().test(Classification("rook_net"), datamodule=Bare(), verbose=False)


def test_unknown_memory_formats_are_refused():
    with pytest.raises(TinvError, match="did you mean channels_last"):
        Classification("rook_net", memory_format="channel_last")


@pytest.mark.parametrize("shape", [(3,), (3, 0, 8), (3, 2, 8, 8, 8)])
def test_an_input_shape_that_no_image_has_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(TinvError, match=r"model\.init_args\.input_shape=\[3.*must be the channels"):
        Classification("pooling_cnn", num_classes=4, input_shape=shape).configure_model()


@pytest.mark.parametrize(
    ("output", "what"), [({"out": torch.zeros(2, 3)}, "a dict"), (torch.zeros(2, 3, 4, 4), "a tensor of 4 axes")]
)
def test_what_is_no_vector_of_logits_is_refused_by_its_kind(output, what):
    with pytest.raises(TinvError, match=f"the network returns {what}, not logits"):
        as_logits(output)
    task = Classification("rook_net")
    task.network = nn.Identity()
    task.network.forward = lambda images: output
    with pytest.raises(TinvError, match=f"the network returns {what}, not logits"):
        task(torch.zeros(2, 1, 8, 8))
    with pytest.raises(TinvError, match=f"the network returns {what}, not logits"):
        tinv.measure(task.network, photographs(), num_classes=3, input_size=8, offset_range=4, metrics=["consistency"])


def photographs() -> str:
    """A folder of two images, in the test's own working folder."""
    for number in range(2):
        Path("photographs").mkdir(exist_ok=True)
        Image.new("RGB", (12, 12), (90 * number, 9, 9)).save(f"photographs/{number}.png")
    return "photographs"
