import pytest
import torch
from lightning.pytorch import Trainer
from torch import nn
from torch.nn import functional as F

from tinv.data import MovingShapes
from tinv.errors import TinvError
from tinv.models import create_backbone
from tinv.tasks import Classification


class Block(nn.Module):
    """Two 3x3x3 convolutions and a shortcut, padded by hand as the published full-conv network."""

    def __init__(self, inputs: int, outputs: int, stride: int, pads: tuple[int, int, int]) -> None:
        super().__init__()
        self.conv1 = nn.Conv3d(inputs, outputs, 3, stride=stride, padding=pads, bias=False)
        self.bn1 = nn.BatchNorm3d(outputs)
        self.conv2 = nn.Conv3d(outputs, outputs, 3, padding=pads, bias=False)
        self.bn2 = nn.BatchNorm3d(outputs)
        self.shortcut = None
        if stride != 1 or inputs != outputs:
            projection = nn.Conv3d(inputs, outputs, 1, stride=stride, bias=False)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm3d(outputs))
        more = [pad - 1 for pad in pads]  # beyond same padding, a convolution
        self.ring = [side for extra in reversed(more) for side in ([3 * extra] * 2 if stride == 2 else [2 * extra] * 2)]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out = self.bn2(self.conv2(F.relu(self.bn1(self.conv1(x)))))
        x = F.pad(x, self.ring)
        return F.relu(out + (x if self.shortcut is None else self.shortcut(x)))


class FullResNet18(nn.Module):
    """The full-conv 3D ResNet-18 written out; time is padded in full too if so asked, and then strided in the stem."""

    def __init__(self, time: bool) -> None:
        super().__init__()
        pads = (2 if time else 1, 2, 2)
        self.conv1 = nn.Conv3d(3, 64, 7, stride=(2 if time else 1, 2, 2), padding=(6 if time else 3, 6, 6), bias=False)
        self.bn1 = nn.BatchNorm3d(64)
        blocks, inputs = [], 64
        for outputs, stride in ((64, 1), (64, 1), (128, 2), (128, 1), (256, 2), (256, 1), (512, 2), (512, 1)):
            blocks.append(Block(inputs, outputs, stride, pads))
            inputs = outputs
        self.blocks = nn.Sequential(*blocks)
        self.fc = nn.Linear(512, 5)

    def forward(self, clips: torch.Tensor) -> torch.Tensor:
        maps = F.max_pool3d(F.relu(self.bn1(self.conv1(clips))), 3, stride=2, padding=1)
        return self.fc(self.blocks(maps).mean(dim=(2, 3, 4)))


@pytest.mark.slow
@pytest.mark.parametrize("axes", ["space", "space+time"])
def test_full_convolution_is_the_published_network(axes):
    time = axes == "space+time"
    stem = "strided" if time else "dense"
    ours = create_backbone(
        "resnet3d", num_classes=5, input_size=(8, 40, 40), padding="full_zero", axes=axes, temporal_stem=stem
    )
    theirs = FullResNet18(time)
    torch.manual_seed(0)
    state = [
        value.normal_(std=0.1).abs() if "running_var" in key else value for key, value in ours.state_dict().items()
    ]
    assert len(state) == len(theirs.state_dict())
    theirs.load_state_dict(dict(zip(theirs.state_dict(), state, strict=True)))
    ours.load_state_dict(dict(zip(ours.state_dict(), state, strict=True)))
    clips = torch.randn(1, 3, 8, 40, 40)
    with torch.no_grad():
        found, expected = (network.eval()(clips) for network in (ours, theirs))
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("depth", [18, 34, 50])
def test_shapes_and_sizes_are_those_of_hara(depth):
    built = create_backbone("resnet3d", num_classes=101, input_size=(16, 112, 112), depth=depth)
    # of Hara, Kataoka & Satoh (2018), with a layer for UCF101's classes
    millions = {18: 33.2, 34: 63.5, 50: 46.4}[depth]
    assert sum(parameter.numel() for parameter in built.parameters()) / 1e6 == pytest.approx(millions, abs=0.15)
    assert built.stem[0].stride == (1, 2, 2)
    strided = create_backbone("resnet3d", input_size=(16, 32, 32), num_classes=2, temporal_stem="strided")
    assert strided.stem[0].stride == (2, 2, 2)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"depth": 20}, "unknown depth '20'; choose from 18, 34, 50"),
        ({"temporal_stem": "stride"}, "unknown temporal_stem 'stride'; did you mean strided"),
    ],
)
def test_bad_options_are_named(options, message):
    with pytest.raises(TinvError, match=message):
        create_backbone("resnet3d", num_classes=2, input_size=(8, 32, 32), **options)


@pytest.mark.parametrize(
    ("cue", "padding", "axes", "alike"),
    [
        ("place", "full_zero", "space", True),
        ("place", "same_circular", "space", True),
        ("place", "same_zero", "space", False),
        ("moment", "full_zero", "space+time", True),
        ("moment", "same_circular", "space+time", True),
        ("moment", "full_zero", "space", False),
    ],
)
def test_twins_of_clips_get_the_same_logits_where_the_policy_treats_their_axis(cue, padding, axes, alike):
    """24 rows and 12 frames are multiples of the total strides 8 and 4: a theorem, not a statistic."""
    model = Classification("moving_shapes_net", padding=padding, axes=axes, memory_format="channels_last")
    data = MovingShapes(cue=cue, num_train=4, num_val=2, num_test=12, batch_size=4)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_checkpointing": False, "accelerator": "cpu"}
    torch.manual_seed(0)
    Trainer(**quiet, enable_model_summary=False).test(model, datamodule=data, verbose=False)
    similar, dissimilar = (data.prepare(clips.image) for clips in data.splits.test.values())
    with torch.no_grad():
        gap = (model(similar) - model(dissimilar)).abs().max()
    assert gap < 1e-5 if alike else gap > 1e-4
