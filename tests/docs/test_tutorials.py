"""The tutorials run from their first cell to their last and give what their pages show."""

import itertools
import json
import re

import pytest
import run_tutorials as run
from generate import images, pages

NAMES = run.names()
LARGEST = 300_000
"""Bytes of a notebook."""


def kinds(cell) -> set[str]:
    """What the outputs of a cell are: streams of text, tables, pictures."""
    outputs = cell.get("outputs", [])
    return {output.get("name", "result") for output in outputs} | {
        kind for output in outputs for kind in output.get("data", {})
    }


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_tutorial_runs_and_gives_what_its_page_shows(name, tmp_path):
    kept = run.read(name)
    folder = tmp_path / "empty"
    folder.mkdir()
    done = run.run(kept, folder)
    assert [kinds(cell) for cell in done.cells] == [kinds(cell) for cell in kept.cells]


def test_a_cell_that_fails_is_found(tmp_path):
    notebook = run.read(NAMES[0])
    cell = next(cell for cell in notebook.cells if cell.cell_type == "code")
    cell.source, notebook.cells = "assert 1 > 2", [cell]
    with pytest.raises(Exception, match="AssertionError"):
        run.run(notebook, tmp_path)


@pytest.mark.parametrize("name", NAMES)
def test_a_tutorial_is_kept_in_normal_form(name):
    kept = run.read(name)
    assert run.normal_form(kept) == kept
    code = [cell for cell in kept.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    text = (run.FOLDER / f"{name}.ipynb").read_text()
    assert len(text) < LARGEST
    outputs = json.dumps([cell.outputs for cell in code])
    assert not re.search(r'(?<![\w.])/(home|root|tmp|usr|work|private|Users)\b|"ename"|Warning', outputs)


@pytest.mark.parametrize("name", NAMES)
def test_a_tutorial_says_first_what_comes_of_it_and_how_long_it_takes(name):
    first = run.read(name).cells[0].source
    assert re.match(r"# .+\n\nAt the end of this tutorial you have ", first)
    [duration] = re.findall(r"It takes about (\w+ \w+) on one CPU core", first.replace("\n", " "))
    [line] = [line for line in (run.FOLDER / "index.md").read_text().splitlines() if f"({name}.md)" in line]
    assert duration in line


@pytest.mark.parametrize("name", NAMES)
def test_a_cell_that_is_said_to_print_prints_and_pictures_are_described(name):
    cells = run.read(name).cells
    for before, cell in itertools.pairwise(cells):
        if cell.cell_type == "code" and before.cell_type == "markdown" and before.source.rstrip().endswith(":"):
            assert cell.outputs or cell.source.startswith("%%writefile"), before.source
    for cell in cells:
        pictures = [kind for output in cell.get("outputs", []) for kind in output.get("data", {}) if "image/" in kind]
        assert len(pictures) <= 1
        assert bool(pictures) == ("alt" in cell.metadata)


def test_pages_hold_every_cell_and_output():
    for name in NAMES:
        page = pages()[f"tutorials/{name}.md"]
        assert f"({name}.ipynb){{ download }}" in page.split("\n\n")[1]
        for cell in run.read(name).cells:
            assert re.sub(r"%%.*\n", "", cell.source).splitlines()[-1].replace(".ipynb)", ".md)") in page
            for output in cell.get("outputs", []):
                if "text" in output and not cell.source.startswith("%%writefile"):
                    assert output.text.strip("\n") in page
        drawn = re.findall(r"!\[[^]]+\]\((.*?)\)", page)
        assert {f"tutorials/{picture}" for picture in drawn} == {path for path in images() if f"/{name}-" in path}
    assert all(content.startswith(b"\x89PNG") for content in images().values())


def test_the_policies_are_those_of_the_page_that_explains_them():
    cells = [cell.source for cell in run.read("own_policy").cells if "own_policies.py" in cell.source]
    code = cells[0].partition("\n")[2]
    page = (run.ROOT / "docs" / "how-to" / "add-a-policy.md").read_text()
    assert f"<!-- own_policies.py -->\n```python\n{code}\n```" in page
