"""Files beside the code agree with it: workflows, templates, pre-commit, Docker, the citation and the changelog."""

import importlib.util
import re
import shlex
import tomllib
from pathlib import Path, PurePosixPath

import pytest
import yaml

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
TEMPLATES = sorted((ROOT / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
SHELL = {"cd", "test"}
COMMANDS = {"tinv", "ruff", "mypy"}
"""What may stand in a workflow or hook: the command of the package, and tools that the extra `dev` installs."""


def read(path: Path):
    """YAML with every scalar as a string, so that the key `on` is one."""
    return yaml.load(path.read_text(), Loader=yaml.BaseLoader)


# workflows


def problem(command: str, installed: set[str]) -> str:
    """What is wrong with one line of a workflow, '' if nothing is; `installed` collects what pip has installed."""
    words = [word for word in shlex.split(command.partition(" > ")[0], comments=True) if word]
    if words[0] in SHELL:
        return ""
    if words[:4] == ["python", "-m", "pip", "install"]:
        return pip_problem(words[4:], installed)
    if words[:2] == ["python", "-m"]:
        known = words[2] in installed or importlib.util.find_spec(words[2]) is not None
        return "" if known else f"no module {words[2]}"
    if words[0] == "python":
        return "" if (ROOT / words[1]).is_file() else f"no file {words[1]}"
    return "" if words[0] in COMMANDS else f"no command {words[0]}"


def pip_problem(words: list[str], installed: set[str]) -> str:
    while words:
        word, *words = words
        if word == "-c":
            name, *words = words
            if name != "lowest.txt" and not (ROOT / name).is_file():  # lowest.txt is made by the step before
                return f"no file {name}"
        elif word == "-e":
            target, *words = words
            extras = set(re.findall(r"\w+", target.removeprefix(".")))
            if extras - PROJECT["optional-dependencies"].keys():
                return f"no extra {extras}"
        else:
            installed.add(word)
    return ""


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_name_commands_and_files_that_exist(path):
    jobs = read(path)["jobs"].values()
    assert jobs
    for job in jobs:
        assert job["steps"]
        installed: set[str] = set()
        for step in job["steps"]:
            for line in step.get("run", "").splitlines():
                assert problem(line, installed) == "", line


@pytest.mark.parametrize(
    ("command", "found"),
    [
        ("python -m no_such_module", "no module no_such_module"),
        ("python scripts/absent.py > lowest.txt", "no file scripts/absent.py"),
        ("python -m pip install -c absent.txt -e .", "no file absent.txt"),
        ("python -m pip install -e '.[absent]'", "no extra {'absent'}"),
        ("absent --help", "no command absent"),
    ],
)
def test_what_does_not_exist_is_found(command, found):
    assert problem(command, set()) == found


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows_have_few_rights_no_secrets_and_pinned_actions(path):
    assert read(path)["permissions"] == {"contents": "read"}
    assert "secrets." not in path.read_text()
    actions = re.findall(r"uses: (\S+)", path.read_text())
    assert actions
    assert all(re.fullmatch(r"[\w-]+/[\w-]+@(release/)?v\d+", action) for action in actions)


def test_the_pythons_that_are_tested_are_those_that_are_declared():
    [tests] = [read(path) for path in WORKFLOWS if path.stem == "tests"]
    versions = tests["jobs"]["tested"]["strategy"]["matrix"]["python"]
    declared = [line.rpartition(" :: ")[2] for line in PROJECT["classifiers"] if re.search(r"Python :: 3\.\d+$", line)]
    assert versions == declared
    assert PROJECT["requires-python"] == f">={versions[0]}"
    assert tests["jobs"]["lowest"]["steps"][1]["with"]["python-version"] == versions[0]


def test_only_the_job_that_publishes_proves_who_it_is():
    [release] = [read(path) for path in WORKFLOWS if path.stem == "release"]
    assert release["on"] == {"push": {"tags": ["v*"]}}
    rights = {name: job.get("permissions", {}) for name, job in release["jobs"].items()}
    assert rights == {"build": {}, "publish": {"id-token": "write"}}
    assert release["jobs"]["publish"]["needs"] == "build"


# what contributors meet


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_issue_forms_have_what_the_host_requires(path):
    form = read(path)
    assert form["name"]
    assert form["description"]
    fields = [field for field in form["body"] if field["type"] != "markdown"]
    assert all(field["type"] == "textarea" and field["attributes"]["label"] for field in fields)
    assert len({field["id"] for field in fields}) == len(fields) >= 3


def test_hooks_run_tools_of_the_environment():
    [repository] = read(ROOT / ".pre-commit-config.yaml")["repos"]
    assert repository["repo"] == "local"
    entries = {hook["id"]: hook["entry"] for hook in repository["hooks"]}
    assert entries.keys() == {"ruff", "ruff-format", "mypy"}
    assert all(hook["language"] == "system" for hook in repository["hooks"])
    assert {problem(entry, set()) for entry in entries.values()} == {""}


def test_the_citation_has_the_version_and_license_of_the_package():
    citation = read(ROOT / "CITATION.cff")
    assert (citation["version"], citation["license"]) == (PROJECT["version"], PROJECT["license"])


def test_the_changelog_keeps_its_form():
    headings = re.findall(r"^(##+) (.*)$", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert headings[0] == ("##", "[Unreleased]")
    kinds = ["Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"]
    assert {text for level, text in headings if level == "###"} <= set(kinds)
    releases = [text for level, text in headings[1:] if level == "##"]
    assert all(re.fullmatch(r"\[\d+\.\d+\.\d+\] - \d{4}-\d\d-\d\d", release) for release in releases)


# the image


def docker_pattern(rule: str) -> re.Pattern[str]:
    """A line of .dockerignore as a regular expression; `*` and `?` stay inside a folder, `**` is any number of them."""
    text = str(PurePosixPath(rule.strip().lstrip("/")))
    parts = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    return re.compile("".join(parts.get(part) or re.escape(part) for part in re.split(r"(\*\*/|\*\*|\*|\?)", text)))


def is_sent(path: str, rules: list[str]) -> bool:
    """Whether Docker sends a file to the builder: the last line decides that fits the file or a folder it is in."""
    sent = True
    for rule in rules:
        if rule.strip() and not rule.startswith("#"):
            pattern = docker_pattern(rule.removeprefix("!"))
            if any(pattern.fullmatch(str(part)) for part in (PurePosixPath(path), *PurePosixPath(path).parents)):
                sent = rule.startswith("!")
    return sent


@pytest.mark.parametrize(
    ("path", "rules", "sent"),
    [
        ("a/b.py", [], True),
        ("a/b.py", ["*"], False),
        ("a/b.py", ["*", "!a"], True),
        ("a/b.py", ["*", "!a/*.py"], True),
        ("a/b.py", ["!a", "*"], False),
        ("a/b.py", ["*.py"], True),  # unlike git, a pattern starts at the top
        ("a/b.py", ["**/*.py"], False),
        ("b.py", ["**/*.py"], False),
        ("a/c/b.py", ["a/*.py"], True),
        ("a/c/b.py", ["a/**"], False),
        ("a/c/b.py", ["/a/c/"], False),
        ("ab", ["a?"], False),
        ("a/b", ["a?b"], True),
        ("a.b", ["a.b", "# a.b", ""], False),
        ("axb", ["a.b"], True),
    ],
)
def test_lines_of_dockerignore_are_read_as_docker_does(path, rules, sent):
    assert is_sent(path, rules) == sent


def test_everything_the_image_copies_exists_and_is_sent_to_the_builder():
    lines = [line.split() for line in (ROOT / "Dockerfile").read_text().splitlines()]
    sources = [word for words in lines if words[:1] == ["COPY"] for word in words[1:-1] if not word.startswith("--")]
    assert len(sources) > 5
    rules = (ROOT / ".dockerignore").read_text().splitlines()
    for source in sources:
        there = ROOT / source
        assert there.exists(), source
        files = [path for path in there.rglob("*") if path.is_file()] if there.is_dir() else [there]
        files = [path.relative_to(ROOT).as_posix() for path in files]
        kept = {path for path in files if is_sent(path, rules)}
        assert kept == {path for path in files if "__pycache__" not in path}
    assert not is_sent("runs/x/results.json", rules)


def test_the_image_is_given_all_that_the_wheel_is_built_from():
    text = (ROOT / "Dockerfile").read_text()
    build = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]["wheel"]
    needed = [*build["packages"], *build["force-include"], PROJECT["readme"], *PROJECT["license-files"]]
    copied = {word for line in text.splitlines() if line.startswith("COPY") for word in line.split()[1:-1]}
    assert set(needed) <= copied
