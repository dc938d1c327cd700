import subprocess
import sys
import time

import pytest

from tinv import __version__
from tinv.cli import main
from tinv.policies.cards import PADDING_CARDS, SUBSAMPLING_CARDS

QUICK = [
    ["--help"],
    ["--version"],
    ["list"],
    ["list", "backbones"],
    ["list", "experiments"],
    ["fitt"],
    ["fit", "--config", "configs/red_green.yaml", "--trainer.max_epoch=3"],
    ["fit", "--config", "configs/red_green.yaml", "--model.init_args.padding=full"],
    ["test", "--confg", "configs/red_green.yaml"],
]


@pytest.mark.parametrize("words", QUICK, ids=" ".join)
def test_what_needs_no_network_answers_at_once_and_without_torch(words):
    code = (
        "import sys; from tinv.cli import main; code = main(sys.argv[1:]); "
        "heavy = {'torch', 'lightning', 'numpy', 'pandas', 'matplotlib'} & set(sys.modules); "
        "assert not heavy, heavy; sys.exit(code)"
    )
    started = time.monotonic()
    done = subprocess.run([sys.executable, "-c", code, *words], capture_output=True, text=True)
    # far below the second that is promised, which leaves room for a busy machine
    assert time.monotonic() - started < 3
    assert "AssertionError" not in done.stderr
    assert done.returncode == (0 if words[0] in ("list", "--help", "--version") else 2)
    assert "Traceback" not in done.stderr


def test_help_names_every_command_and_key(capsys):
    assert main([]) == 0
    text = capsys.readouterr().out
    for word in ("fit", "validate", "test", "predict", "list", "report", "seed_everything", "run_dir", "ckpt_path"):
        assert f"  {word} " in text
    assert __version__ in text


def test_lists_name_what_there_is(capsys):
    assert main(["list"]) == 0
    text = capsys.readouterr().out
    for name in ("pooling_cnn", "RedGreen", "CIFAR100", "configs/rook.yaml", "full_background", "blur7"):
        assert name in text
    assert main(["list", "paddings"]) == 2
    assert "did you mean padding" in capsys.readouterr().err


@pytest.mark.parametrize(("subject", "cards"), [("padding", PADDING_CARDS), ("subsampling", SUBSAMPLING_CARDS)])
def test_whole_cards_fit_a_terminal_of_80_columns(capsys, monkeypatch, subject, cards):
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["list", subject, "--cards"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(map(len, lines)) <= 80
    said = " ".join(" ".join(lines).split())
    for name, card in cards.items():
        parts = (f"{name} what {card.what}", f"exact {card.exact}", f"cost {card.cost}", f"source {card.source}")
        assert " ".join(parts) in said


def test_lists_without_cards_say_so(capsys):
    assert main(["list", "backbones", "--cards"]) == 2
    assert "--cards is for padding, subsampling, activation, tokens; backbones have no cards" in capsys.readouterr().err


def test_timm_networks_can_be_listed(capsys):
    assert main(["list", "backbones", "--source", "timm", "--filter", "resnet18*"]) == 0
    assert "resnet18d" in capsys.readouterr().out.split()


def test_full_help_lists_every_option(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["fit", "--help"])
    assert stop.value.code == 0
    text = capsys.readouterr().out
    assert "--trainer.max_epochs" in text
    assert "--checkpoint.monitor" in text


def test_help_of_a_command_names_the_command(capsys):
    with pytest.raises(SystemExit) as stop:
        main(["predict", "--help"])
    assert stop.value.code == 0
    assert capsys.readouterr().out.startswith("usage: tinv predict ")


def test_an_unknown_command_gets_the_nearest_one(capsys):
    assert main(["fitt"]) == 2
    assert "unknown command 'fitt'; did you mean fit?" in capsys.readouterr().err


def test_an_old_name_is_noted_once(capsys):
    words = ["--config=configs/brown.yaml", "--model.init_args.length=0", "--data.init_args.root=absent"]
    assert main(["fit", *words]) == 2
    said = capsys.readouterr().err.splitlines()
    assert said[0] == "note: length is now descriptor_dim"
    assert len(said) == 2
    assert "descriptor_dim must be 1 or more" in said[1]
