"""The site is built without a warning, its generated pages are complete, and what readers are told to type is accepted.

Code blocks of pages in docs/ are checked by the word after the fence:

- ```python: the block is parsed, so that it can be pasted; under a comment such as <!-- own_policies.py --> it is a
  file that the commands of the page may name classes of;
- ```bash, or no word: every line that begins with `tinv ` goes through the parser of that command, and the files and
  keys that it names have to exist; other lines (pip, loops) and what follows `|`, `>` or `&&` are not looked at;
- any other word, such as ```text or ```yaml: shown, not checked. Usage lines with placeholders are of this kind.

Examples in docstrings, which the pages of the API show, are run by tests/test_docstrings.py.
"""

import ast
import itertools
import re
import shlex
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path

import pytest
from generate import pages
from generate.api import PACKAGES, entries
from generate.benchmarks import scripts
from generate.commands import command_parser
from generate.design import rooms
from generate.metrics import names, reported

import tinv.metrics
from tinv.cli.main import OTHER_COMMANDS, RUN_COMMANDS
from tinv.config import catalog, options
from tinv.errors import TinvError
from tinv.policies.cards import PADDINGS, SUBSAMPLINGS
from tinv.sweeps.schema import read_sweep

FIXED = {"tinv.data.PhotoPatches": {"train", "test"}}
"""Arguments of a base that a class sets itself, which the quick check of keys still knows."""

ROOT = Path(__file__).parents[2]
WRITTEN = [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").rglob("*.md"))]
FENCE = re.compile(r"(?:^<!-- (\w+)\.py -->\n)?^```(\w*)[^\n]*\n(.*?)^```", re.DOTALL | re.MULTILINE)


@pytest.fixture(scope="module")
def made() -> dict[str, str]:
    return pages()


def test_the_page_of_commands_has_every_command_and_option(made):
    text = made["reference/cli.md"]
    assert all(f"tinv {command}" in text for command in (*RUN_COMMANDS, *OTHER_COMMANDS))
    for command in OTHER_COMMANDS:
        parser = command_parser(command)
        known = {f"--{name.replace('_', '-')}" for name in getattr(parser, "hints", ())}
        known |= {word for action in getattr(parser, "_actions", ()) for word in action.option_strings if word != "-h"}
        section = text.partition(f"#tinv-{command} }}")[2].partition("\n## ")[0]
        assert len(known - {"--help"}) >= 2
        assert {word for word in known - {"--help"} if f"| `{word}` |" not in section} == set()


def test_the_page_of_keys_has_every_class_and_argument(made):
    text = made["reference/configuration.md"]
    classes = [f"tinv.data.{name}" for name in catalog.data_sets()]
    classes += ["tinv.tasks.Classification", "tinv.tasks.Descriptors"]
    classes += [f"tinv.metrics.{name}" for name in names() if catalog.class_arguments(f"tinv.metrics.{name}")]
    assert len(classes) > 20
    for path in classes:
        section = text.partition(f"### {path} {{")[2].partition("\n##")[0]
        # read from the source code, while the page is made by the parser of configurations
        missing = {name for name in catalog.class_arguments(path) or {} if f"| `{name}` |" not in section}
        assert missing == FIXED.get(path, set()), path
    trainer = text.partition("## Trainer")[2]
    assert {name for name in catalog.trainer_arguments() or {} if f"| `{name}` |" not in trainer} == set()
    assert {name for name in options.TOP_LEVEL if f"| `{name}` |" not in text} == set()
    assert "integer, 1 or more" in text


def test_the_pages_of_metrics_policies_and_networks_are_complete(made):
    metrics = made["reference/metrics.md"]
    for name in names():
        keys = [line.key for line in reported(getattr(tinv.metrics, name))]
        assert keys
        assert all(f"| `test/{key}` |" in metrics for key in keys)
    policies, networks = made["reference/policies.md"], made["reference/networks.md"]
    assert all(f"| `{name}` |" in policies for name in (*PADDINGS, *SUBSAMPLINGS))
    assert all(f"### `{name}`" in networks for name in catalog.own_backbones())
    assert "`mnasnet0_5`" in networks


def test_the_pages_of_design_and_benchmarks_are_complete(made):
    there = {path.stem for path in (ROOT / "tinv").iterdir() if path.name not in ("__init__.py", "__pycache__")}
    assert set(itertools.chain(*rooms())) >= {name for name in there if (ROOT / "tinv" / name).is_dir()}
    assert all(f"#room-{room.strip('_')} }}" in made["design.md"] for room in itertools.chain(*rooms()))
    files = {path.name for path in (ROOT / "benchmarks").glob("*.py")} - {"timing.py"}
    assert {script.name for script in scripts()} == files


def test_the_api_has_every_exported_class_and_function(made):
    text = "".join(made.values())
    for package in PACKAGES:
        assert entries(package)
        for entry in entries(package):
            assert text.count(f"::: {entry.path}\n") == 1
    assert all(f"tinv.{name}\n" in text for name in tinv.__all__ if not name.startswith("_"))


@pytest.mark.parametrize("path", WRITTEN, ids=lambda path: str(path.relative_to(ROOT)))
def test_code_blocks_can_be_typed(path, monkeypatch):
    monkeypatch.syspath_prepend(str(Path().resolve()))
    check_page(path.read_text())


def test_commands_of_a_page_may_name_its_own_files(monkeypatch):
    monkeypatch.syspath_prepend(str(Path().resolve()))
    code = "from tinv.policies import PaddingPolicy\n\n\nclass Own(PaddingPolicy):\n    pass\n"
    page = f"<!-- own_page.py -->\n```python\n{code}```\n\n```\ntinv inspect resnet18 --padding own_page.Own\n```\n"
    check_page(page)
    with pytest.raises(TinvError, match="NoSuch"):
        check_page(page.replace("own_page.Own", "own_page.NoSuch"))


def check_page(text: str) -> None:
    """Writes the files that a page holds, and checks the blocks of its code."""
    for name, language, block in FENCE.findall(text):
        if language == "python":
            ast.parse(block)
        if name:
            sys.modules.pop(name, None)
            Path(f"{name}.py").write_text(block)
        if language in ("bash", ""):
            for line in block.replace("\\\n", " ").splitlines():
                if line.startswith("tinv "):
                    check(line)


def check(line: str) -> None:
    """Gives the words of a command to what reads them, and runs nothing."""
    words = shlex.split(line, comments=True)[1:]
    words = list(itertools.takewhile(lambda word: word not in ("|", ">", "&&", "||", ";", "&"), words))
    command, rest = words[0], words[1:]
    if command in RUN_COMMANDS:
        options.check(rest)
    elif command == "sweep":
        own = list(itertools.takewhile(lambda word: word != "--", rest))
        args, further = command_parser(command).parse_known_args(own)
        assert all(word.startswith("--slurm-") for word in further), line
        options.check([*read_sweep(args.file).words, *rest[len(own) + 1 :]])
    else:
        parser = command_parser(command)
        parser.parse(rest) if hasattr(parser, "parse") else parser.parse_args(rest)


@pytest.mark.parametrize(
    "line",
    [
        "tinv fit --config configs/no_such.yaml",
        "tinv fit --config configs/red_green.yaml --model.init_args.pading=valid",
        "tinv sweep sweeps/red_green.yaml --out runs/x --jbos 2",
        "tinv inspect resnet18 --padding same_circlar",
        "tinv report",
        "tinv lists",
    ],
)
def test_a_command_that_is_not_accepted_is_found(line):
    with pytest.raises((Exception, SystemExit)):
        check(line)


class Loads(HTMLParser):
    """Collects the addresses that a page loads by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []

    def handle_starttag(self, tag, attrs):
        given = dict(attrs)
        if tag == "link" and given.get("rel") not in ("canonical", "next", "prev"):
            self.found.append(given.get("href") or "")
        if tag in ("script", "img", "iframe", "source", "video", "audio", "embed"):
            self.found.append(given.get("src") or "")


@pytest.fixture(scope="module")
def site(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(folder)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.mark.slow
def test_the_site_is_built_strictly_and_loads_nothing_from_elsewhere(site):
    built = list(site.rglob("*.html"))
    assert len(built) > 20
    loaded = []
    for path in built:
        reader = Loads()
        reader.feed(path.read_text())
        loaded += reader.found
    assert any(address.endswith(".js") for address in loaded)
    assert [address for address in loaded if re.match(r"(\w+:)?//", address)] == []
    for path in site.rglob("*.css"):
        assert not re.search(r"(@import|url\()\s*['\"]?(https?:)?//", path.read_text())


@pytest.mark.slow
def test_formulas_are_drawn_by_the_browser_and_sources_stay_out(site):
    text = (site / "reference" / "policies.html").read_text()
    assert "<math" in text
    assert "arithmatex" not in text
    assert not list(site.rglob("*.py"))
