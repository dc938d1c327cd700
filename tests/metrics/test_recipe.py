"""The metric of docs/how-to/add-a-metric.md works as it is written there, in a file of its own and exported by tinv."""

import re
import sys
from pathlib import Path

import pytest
import torch
from tiny_run import fit, results
from torch import nn

import tinv.metrics
from tinv.translation import draw_shifts

TEXT = (Path(__file__).parent.parent.parent / "docs/how-to/add-a-metric.md").read_text()
[CODE] = re.findall(r"<!-- own_metrics.py -->\n```python\n(.*?)```", TEXT, re.DOTALL)


@pytest.fixture(autouse=True)
def own_metrics(monkeypatch):
    Path("own_metrics.py").write_text(CODE)
    monkeypatch.syspath_prepend(str(Path().resolve()))
    yield
    sys.modules.pop("own_metrics", None)


def test_it_is_short():
    assert len(CODE.splitlines()) <= 25


def test_it_measures_what_it_says():
    from own_metrics import ClassChange

    torch.manual_seed(0)
    images, index = torch.randn(12, 1, 6, 6), torch.arange(12)
    network, metric = nn.Sequential(nn.Flatten(), nn.Linear(36, 3)), ClassChange(max_shift=2, seed=3)
    with torch.no_grad():
        for part in index.split(5):
            metric.update(network, images[part], network(images[part]), index[part], part)
        shifts = draw_shifts(index, 2, seed=3).tolist()
        moved = torch.stack([image.roll((dy, dx), (1, 2)) for image, (dx, dy) in zip(images, shifts, strict=True)])
        changed = (network(moved).argmax(1) != network(images).argmax(1)).double().mean()
    assert float(metric.compute()["class_change"]) == pytest.approx(100 * float(changed))
    assert 0 < changed < 1
    figure, axes = metric.plot()
    assert axes.get_figure() is figure


@pytest.mark.parametrize("class_path", ["own_metrics.ClassChange", "tinv.metrics.ClassChange"])
def test_a_configuration_names_it(class_path, monkeypatch):
    from own_metrics import ClassChange

    # the one line that exports it
    monkeypatch.setattr(tinv.metrics, "ClassChange", ClassChange, raising=False)
    found = fit(f"--model.init_args.metrics=[{{class_path: {class_path}, init_args: {{max_shift: 8}}}}]")
    assert 0 <= results(found)["metrics"]["test/class_change/similar"] <= 100
    assert results(found)["units"]["test/class_change/similar"] == "percent"
    assert not list(found.glob("class_change*"))
