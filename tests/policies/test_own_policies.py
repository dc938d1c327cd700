"""The policy of docs/how-to/add-a-policy.md, in a module that tinv knows nothing of, works wherever a name does."""

import json
import re
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image
from tiny_run import TINY, results
from torch import nn

import tinv
from tinv.cli import main

TEXT = (Path(__file__).parent.parent.parent / "docs/how-to/add-a-policy.md").read_text()
FILES = dict(re.findall(r"<!-- (\w+).py -->\n```python\n(.*?)```", TEXT, re.DOTALL))


@pytest.fixture(autouse=True)
def own_policies(monkeypatch):
    for name, code in FILES.items():
        Path(f"{name}.py").write_text(code)
    monkeypatch.syspath_prepend(str(Path().resolve()))
    yield
    for name in FILES:
        sys.modules.pop(name, None)


def test_as_objects_and_by_class_path_in_convert():
    from own_policies import MeanOfBlocks, SameChannelMean

    plain = nn.Sequential(nn.Conv2d(3, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 5, 3, stride=2, padding=1), nn.ReLU())
    images = torch.randn(2, 3, 12, 12)
    made = tinv.convert(plain, SameChannelMean(), MeanOfBlocks(), example_input=images)
    named = tinv.convert(plain, "own_policies.SameChannelMean", "own_policies.MeanOfBlocks", example_input=images)
    assert str(made.conversion.policy) == "padding=same_channel_mean, subsampling=MeanOfBlocks"
    assert made.conversion.policy == named.conversion.policy
    with torch.no_grad():
        got = made(images)
        assert torch.equal(got, named(images))
        wanted = images
        for conv in (plain[0], plain[2]):
            padded = wanted.mean((2, 3), keepdim=True).repeat(1, 1, 14, 14)
            padded[..., 1:-1, 1:-1] = wanted
            wanted = nn.functional.conv2d(padded, conv.weight, conv.bias).relu()
        torch.testing.assert_close(got, nn.functional.avg_pool2d(wanted, 2))


def test_in_inspect_with_a_verdict(capsys):
    words = ["resnet10t", "--input-size=32", "--padding=same_circular", "--subsampling=own_policies.MeanOfBlocks"]
    assert main(["inspect", *words, "--stem=convert", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert [axis["unit"] for axis in found["verdict"]["circular"]] == [32, 32]
    assert main(["inspect", "resnet10t", "--input-size=32", "--padding=own_policies.SameChannelMean"]) == 0
    assert "is not known to tinv" in " ".join(capsys.readouterr().out.split())


def test_in_measure(capsys):
    Path("photos").mkdir()
    for number in range(2):
        Image.effect_noise((64, 64), 50 + number).convert("RGB").save(f"photos/{number}.png")
    options = ["--num-classes=3", "--size=32", "--offset-range=4", "--metrics", "consistency", "--images=photos"]
    policy = "--subsampling=own_policies.MeanOfBlocks"
    assert main(["measure", "--backbone=resnet10t", *options, policy, "--out=out"]) == 0
    assert "MeanOfBlocks" in capsys.readouterr().out


@pytest.mark.parametrize("source", [[], ["--model.init_args.source=timm", "--model.init_args.backbone=resnet10t"]])
def test_in_a_configuration(source):
    Path("own.yaml").write_text(
        "model:\n  init_args:\n    padding: {class_path: own_policies.SameChannelMean}\n"
        "    subsampling: {class_path: own_policies.MeanOfBlocks}\n"
    )
    assert main(["fit", *TINY, "--config=own.yaml", "--trainer.max_epochs=1", "--run_dir=run", *source]) == 0
    config = results(Path("run"))["config"]["model"]["init_args"]
    assert config["subsampling"]["class_path"] == "own_policies.MeanOfBlocks"
    assert main(["test", "--ckpt_path=run/checkpoints/best.ckpt"]) == 0


def test_one_that_learns_is_trained_with_its_loss_by_the_configuration_alone(monkeypatch):
    from learned_policy import MaxOrMean, MixedPool

    plain = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    images = torch.randn(2, 3, 12, 12)
    made = tinv.convert(plain, "same_circular", MaxOrMean(), stem="convert", example_input=images)
    assert list(made.conversion.fresh) == ["policy_layers.0_subsample.share"]
    assert [shifts.unit for shifts in tinv.summary(made, images).verdict.circular] == [2, 2]
    with torch.no_grad():
        torch.testing.assert_close(made(images.roll(2, 3)), made(images))
    # a constant stays one, so that background padding knows the border
    assert tinv.convert(plain, "same_background", MaxOrMean(), stem="convert", example_input=images)
    told = []
    monkeypatch.setattr(MixedPool, "set_progress", lambda self, progress: told.append(progress))
    policy = "--model.init_args.subsampling=learned_policy.MaxOrMean"
    assert main(["fit", *TINY, policy, "--trainer.max_epochs=2", "--run_dir=run"]) == 0
    assert sorted(set(told)) == [step / 8 for step in range(8)]
    assert "train/policy_penalty" in Path("run/metrics.csv").read_text()


def test_in_a_sweep_and_its_report_beside_a_policy_with_a_name(capsys):
    Path("sweep.yaml").write_text(
        "name: own\nmethod: grid\n"
        'command: [tinv, fit, --config, configs/red_green.yaml, --trainer.max_epochs=1, "${args}"]\n'
        "parameters:\n  model.init_args.subsampling: {values: [keep, own_policies.MeanOfBlocks]}\n"
        + "".join(f"  {o[2:].split('=')[0]}: {{value: {o.split('=')[1]}}}\n" for o in TINY if "data" in o)
    )
    assert main(["sweep", "sweep.yaml", "--out", "out"]) == 0
    found = [json.loads(path.read_text()) for path in Path("out").rglob("results.json")]
    assert len(found) == 2
    assert main(["report", "out"]) == 0
    printed = capsys.readouterr().out
    assert "own_policies.MeanOfBlocks" in printed
    assert "missing" not in printed
    assert set(tinv.load_runs("out")["model.init_args.subsampling"]) == {"keep", "own_policies.MeanOfBlocks"}


def test_a_class_that_is_not_there_is_one_line(capsys):
    assert main(["inspect", "resnet10t", "--subsampling=own_policies.Median"]) == 2
    assert "subsampling: there is no 'Median' in own_policies" in capsys.readouterr().err
    assert main(["fit", *TINY, "--model.init_args.subsampling=own_policies.Median"]) == 2
    assert "own_policies" in capsys.readouterr().err
