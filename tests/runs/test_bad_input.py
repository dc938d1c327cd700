"""Every kind of bad input: one line that names the culprit and the cure, exit code 2, no traceback, nothing left."""

from pathlib import Path

import pytest
from tiny_run import TINY, fit

from tinv.cli import main

MODEL = "--model.init_args."
CASES = {
    "option": (["--trainer.max_epoch=3"], "unknown option --trainer.max_epoch; did you mean --trainer.max_epochs"),
    "model key": (["--model.init_args.paddin=valid"], "unknown option --model.init_args.paddin; did you mean"),
    "data key": (["--data.init_args.batchsize=3"], "did you mean --data.init_args.batch_size"),
    "top-level": (["--seed=3"], "unknown option --seed"),
    "policy": ([MODEL + "padding=same_zer"], "unknown padding 'same_zer'; did you mean same_zero"),
    "subsampling": ([MODEL + "subsampling=blur8"], "unknown subsampling 'blur8'; did you mean blur"),
    "type": (["--trainer.max_epochs=many"], "trainer.max_epochs: 'many' is not of type int"),
    "nested type": (["--data.init_args.batch_size=ten"], "data.init_args.batch_size: 'ten' is not of type int"),
    "literal": ([MODEL + "memory_format=chan"], "model.init_args.memory_format: unknown memory_format 'chan'; choose"),
    "optimizer": ([MODEL + "optimizer.class_path=torch.optim.Adm"], "there is no 'Adm' in torch.optim"),
    "optimizer key": ([MODEL + "optimizer.init_args.lrr=1"], "unknown key 'lrr'; did you mean lr"),
    "class": (["--model.class_path=tinv.tasks.Classify"], "there is no 'Classify' in tinv.tasks"),
    "backbone": ([MODEL + "backbone=red_gren_net"], "did you mean red_green_net"),
    "published": (["--published=red"], "unknown published 'red'"),
    "batch size": (["--data.init_args.batch_size=0"], "--data.init_args.batch_size must be 1 or more, not 0"),
    "word": (["padding=valid"], "'padding=valid' is not an option; options look like --key=value"),
    "file": (["--config=configs/red_gren.yaml"], "no configuration file configs/red_gren.yaml; did you mean"),
    "monitor": (["--checkpoint.monitor=val/los"], "could not find the monitored key"),
    "early": (["--trainer.callbacks.init_args.monitor=val/los"], "Early stopping conditioned on metric `val/los`"),
    "resume": (["--ckpt_path=last"], "no stopped run of this configuration in runs/red_green"),
    "start from": (["--ckpt_path=x.ckpt"], "fit resumes a stopped run"),
    "place": (["--runs=taken"], "cannot write to the run folder taken/red_green/"),
    "metric": (
        [MODEL + "metrics=[{class_path: tinv.metrics.MeanCosineSimilarity, init_args: {max_shift: 3}}]"],
        "metric mcs: max_shift=3 would push images off the canvas, which leaves 0 pixels a side",
    ),
    "metric of clips": (
        [MODEL + "metrics=[{class_path: tinv.metrics.ClipShiftMap}]"],
        "metric clip_map is for clips; use TranslationSensitivityMap for images",
    ),
    "metric of images": (
        [
            "--config=configs/moving_shapes.yaml",
            "--data.init_args.num_train=4",
            MODEL + "metrics=[{class_path: tinv.metrics.LayerEquivariance}]",
        ],
        "metric layer_error is for images; use ClipShiftMap for clips",
    ),
    "kernel": (
        [
            "--config=configs/digits_grid.yaml",
            MODEL + "backbone_args.kernel_size=9",
            MODEL + "backbone_args.pool_padding=valid",
        ],
        "layer pool2: max pool: its kernel of 9x9 is larger than the map",
    ),
    "factor": (
        ["--config=configs/digits_grid.yaml", MODEL + "backbone_args.subsampling_factor=3"],
        "subsampling_factor must be 1, 2, 4 or 8, not 3",
    ),
    "backbone key": (
        ["--config=configs/digits_grid.yaml", MODEL + "backbone_args.kernel_sise=3"],
        "unknown option --model.init_args.backbone_args.kernel_sise; did you mean --model.init_args.backbone_args.k",
    ),
    "wrong gradients": (
        ["--config=configs/moving_shapes.yaml", "--data.init_args.num_train=4", "--trainer.precision=bf16-mixed"],
        "trainer.precision=bf16-mixed: on a CPU torch's bfloat16 gradients of 3D convolutions such as network.",
    ),
    "data missing": (["--config=configs/mnist_grid.yaml"], "no MNIST data: looked for data/MNIST/raw/train-images"),
}  # fmt: skip


@pytest.mark.parametrize("case", CASES)
def test_bad_input_is_one_clear_line(case, capsys):
    Path("taken").write_text("a file where a folder should be")
    options, message = CASES[case]
    own = any("configs/digits" in o or "configs/mnist" in o for o in options)
    # what is not logged is known when an epoch has ended
    assert main(["fit", *([] if own else TINY), *options]) == (1 if case in ("monitor", "early") else 2)
    errors = [line for line in capsys.readouterr().err.splitlines() if not line.startswith("epoch ")]
    assert len(errors) == 1, errors
    assert errors[0].startswith("tinv: error: ")
    assert message in errors[0]
    if case not in ("monitor", "early"):  # found when the first epoch ends
        assert not Path("runs").exists() or not list(Path("runs").glob("*/*"))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("model:\n  class_path: [tinv\n", "bad.yaml, line 3, column 1: not valid YAML"),
        ("modle: 3\n", "bad.yaml, line 1: unknown key modle; did you mean model"),
        (
            "model:\n  init_args:\n    backbon: x\n",
            "bad.yaml, line 3: unknown key model.init_args.backbon; did you mean",
        ),
        (
            "model:\n  init_args:\n    padding: ful_zero\n",
            "bad.yaml, line 3: model.init_args.padding: unknown padding 'ful_zero'",
        ),
        (
            "trainer:\n  max_epoch: 3\n",
            "bad.yaml, line 2: unknown key trainer.max_epoch; did you mean trainer.max_epochs",
        ),
        ("just words\n", "bad.yaml: holds no `key: value` lines"),
        (
            "model:\n  init_args:\n    metrics:\n      - class_path: tinv.metrics.MeanCosineSimilarity\n"
            "        init_args: {max_shft: 3}\n",
            "unknown key 'max_shft'; did you mean max_shift?",
        ),
    ],
)
def test_a_bad_file_is_named(text, message, capsys):
    Path("bad.yaml").write_text(text)
    assert main(["fit", *TINY, "--config=bad.yaml"]) == 2
    assert message in capsys.readouterr().err


def test_debug_shows_the_traceback(capsys):
    assert main(["fit", *TINY, "--seed=3", "--debug"]) == 2
    assert "Traceback" in capsys.readouterr().err


def test_no_configuration_at_all(capsys):
    assert main(["fit"]) == 2
    assert "data, model must be set; is a --config missing?" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["test", "validate", "predict"])
def test_scoring_needs_a_checkpoint(command, capsys):
    assert main([command, *TINY]) == 2
    assert f"{command} needs a checkpoint: --ckpt_path" in capsys.readouterr().err
    assert main([command, *TINY, "--ckpt_path=absent.ckpt"]) == 2
    assert "no checkpoint absent.ckpt" in capsys.readouterr().err
    Path("junk.ckpt").write_bytes(b"not a checkpoint")
    assert main([command, *TINY, "--ckpt_path=junk.ckpt"]) == 2
    assert "junk.ckpt cannot be read as a checkpoint" in capsys.readouterr().err


def test_a_checkpoint_of_another_network_says_what_differs(capsys):
    folder = fit("--trainer.max_epochs=1")
    checkpoint = f"--ckpt_path={folder}/checkpoints/best.ckpt"
    assert main(["test", "--config=configs/digits_grid.yaml", checkpoint]) == 2
    message = capsys.readouterr().err
    assert "best.ckpt is a checkpoint of another network: network.features.conv1.bias is missing" in message
    assert "more" in message


def test_a_precision_that_lightning_would_change_is_refused(capsys):
    assert main(["fit", *TINY, "--trainer.precision=16-mixed", "--trainer.accelerator=cpu"]) == 2
    assert "trainer.precision=16-mixed: a CPU has no mixed precision in float16" in capsys.readouterr().err
    assert not Path("runs").exists()
