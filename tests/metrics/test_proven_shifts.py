"""Shifts that the verdict proves to change nothing are run once, and the map is that of all shifts."""

import pytest
import torch
from torch import nn

import tinv
from tinv.errors import TinvWarning
from tinv.metrics import TranslationSensitivityMap
from tinv.metrics.shared_views import SharedViews


def plain() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(
        *(nn.Conv2d(2, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 6, 3, stride=2, padding=1), nn.ReLU()),
        *(nn.Conv2d(6, 6, 3, stride=2, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 4)),
    ).eval()


class Counted(nn.Module):
    """Counts the images that a network runs on; hidden from whoever traces it."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network, self.seen = network, []
        network.register_forward_hook(lambda module, given, answer: self.seen.append(len(given[0])))

    def __call__(self, images):
        return self.network(images)


def mapped(network, images, mode="circular", skip=True):
    shifts = TranslationSensitivityMap(4, 1, mode, skip_proven=skip)
    with torch.no_grad():
        logits = network(images)
        targets = torch.arange(len(images)) % 4
        for part in torch.arange(len(images)).split(3):
            shifts.update(network, images[part], logits[part], targets[part], part)
    return shifts.maps()


@pytest.mark.parametrize("shared", [False, True])
def test_a_proven_network_runs_one_shift_of_each_phase(shared):
    images = torch.randn(6, 2, 16, 16)
    network = tinv.convert(plain(), "same_circular", example_input=images)
    counter = Counted(network)
    by_phase = mapped(SharedViews(network) if shared else network, images)
    runs = sum(counter.seen)
    every = mapped(network, images, skip=False)
    for key, values in every.items():
        assert torch.allclose(by_phase[key], values, atol=1e-6)
    # 16 phases of a total stride of 4, the images unmoved, and the shift that is tried nevertheless
    assert runs <= 6 * 16 + 6 + 4
    assert sum(counter.seen) - runs == 6 * 81 + 6


@pytest.mark.parametrize(("padding", "mode"), [("same_zero", "circular"), ("same_circular", "zero")])
def test_nothing_is_skipped_without_a_proof(padding, mode):
    images = torch.randn(6, 2, 16, 16)
    network = tinv.convert(plain(), padding, example_input=images)
    counter = Counted(network)
    mapped(network, images, mode)
    assert sum(counter.seen) == 6 * 81 + 6


def test_a_verdict_that_the_network_contradicts_is_not_believed(monkeypatch):
    images = torch.randn(6, 2, 16, 16)
    network = tinv.convert(plain(), "same_circular", example_input=images)
    claim = tinv.summary(network, images).analysis
    monkeypatch.setattr("tinv.metrics.translation_map.analyze", lambda *_: claim)
    false = tinv.convert(plain(), "same_zero", example_input=images)
    with pytest.warns(TinvWarning, match="the verdict says .* but answers change"):
        found = mapped(false, images)
    every = mapped(false, images, skip=False)
    assert torch.allclose(found["mcs"], every["mcs"], atol=1e-6)
