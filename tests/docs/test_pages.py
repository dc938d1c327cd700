"""Pages of the documentation link to what exists, and their commands and examples work."""

import re
import shlex
from pathlib import Path

import pytest

from tinv.config import options
from tinv.config.files import shipped_files, shipped_folder

DOCS = Path(__file__).parent.parent.parent / "docs"
ROOT = DOCS.parent
OUTSIDE = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "SECURITY.md")]
PAGES = sorted([DOCS / "concepts.md", DOCS / "glossary.md", *DOCS.glob("experiments/*.md"), *DOCS.glob("how-to/*.md")])
GENERATED = ("reference", "api")
"""Folders of pages that are made when the documentation is built."""


def text(page: str) -> str:
    return (DOCS / page).read_text()


def anchors(page: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)$", page.read_text(), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def commands(page: Path) -> list[str]:
    blocks = re.findall(r"^```\n(.*?)```", page.read_text(), re.DOTALL | re.MULTILINE)
    return [line for block in blocks for line in block.replace("\\\n", " ").splitlines() if line.startswith("tinv ")]


def test_there_are_pages():
    assert len(PAGES) > 15


@pytest.mark.parametrize("page", [*PAGES, *OUTSIDE], ids=lambda page: page.stem)
def test_links_lead_somewhere(page):
    for link in re.findall(r"\]\(((?!https?:)[^)]+)\)", page.read_text()):
        path, _, anchor = link.partition("#")
        target = (page.parent / path).resolve() if path else page
        if not set(GENERATED) & set(target.relative_to(ROOT).parts):
            # the page of a tutorial is made of its notebook
            notebook = target.with_suffix(".ipynb").is_file()
            assert target.is_file() or notebook, link
            assert not anchor or notebook or anchor in anchors(target), link


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_commands_name_options_that_exist(page):
    known = {"two_layer_net", "own_task.Regression", "own_policies.MeanOfBlocks"}
    for command in commands(page):
        words = shlex.split(command.partition("  #")[0])
        if words[1] == "fit" and not any(name in command for name in known):
            options.check(words[2:])
        for file in re.findall(r"(?:configs|sweeps)/[\w/]+\.yaml", command):
            folder, _, name = file.partition("/")
            assert (Path(shipped_folder(folder)) / name).is_file(), command


def test_an_option_that_does_not_exist_is_found():
    with pytest.raises(Exception, match="max_epoch"):
        options.check(["--config", "configs/rook.yaml", "--trainer.max_epoch=3"])


def test_every_experiment_and_every_sweep_stands_on_a_page_of_experiments():
    named = "".join(page.read_text() for page in DOCS.glob("experiments/*.md"))
    for folder in ("configs", "sweeps"):
        for path in shipped_files(folder):
            assert path.relative_to(shipped_folder(folder)).name in named, path


def test_the_python_examples_do_what_they_say(capsys):
    measured = ("(4, 3, 32, 32)", "worst_case_acc", "4 images", "tensor(", "mcs")
    for page, *wanted in (("how-to/convert.md", "convolutions padded"), ("how-to/measure.md", *measured)):
        blocks = re.findall(r"```python\n(.*?)```", text(page), re.DOTALL)
        for code, words in zip(blocks, wanted, strict=True):
            variables: dict = {}
            exec(compile(code, page, "exec"), variables)
            assert words in capsys.readouterr().out
    assert float(variables["similarity"].compute()["mcs"]) == pytest.approx(1, abs=1e-6)


def test_examples_of_files_are_those_that_are_shipped():
    sweep = (Path(shipped_folder("sweeps")) / "red_green.yaml").read_text()
    assert sweep in text("how-to/add-an-experiment.md")
    assert sweep.split("\n", 1)[1] in text("how-to/sweeps.md")
