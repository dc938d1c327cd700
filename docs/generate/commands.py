"""The page of the commands, from the parsers that read them."""

from __future__ import annotations

import re
from importlib import import_module
from typing import Any, NoReturn

from jsonargparse import ArgumentParser

from generate.arguments import Argument, Switch, argument_table, of_parser
from generate.text import heading, table
from tinv.cli.main import OTHER_COMMANDS, RUN_COMMANDS
from tinv.cli.parser import CommandParser
from tinv.config.options import TOP_LEVEL
from tinv.runs.configuration import TinvCLI

INTRODUCTION = """# Commands

`tinv COMMAND [options]`; `tinv --help` lists the commands, `tinv COMMAND --help` the options of one. Exit codes and
messages are described under [Errors](errors.md).

"""

RUNS = """## tinv fit, validate, test, predict { #tinv-fit }

```text
tinv fit --config FILE [--config FILE]... [--key=value]...
tinv validate --ckpt_path RUN/checkpoints/best.ckpt [--config FILE]... [--key=value]...
tinv test --ckpt_path RUN/checkpoints/best.ckpt [--config FILE]... [--key=value]...
tinv predict --ckpt_path RUN/checkpoints/best.ckpt [--config FILE]... [--key=value]...
```

Every key of a configuration is an option: `--trainer.max_epochs=5`, `--model.init_args.padding=full_zero`. These are
the keys at the top level; those below `trainer`, `model` and `data` are listed under
[Configuration](configuration.md).

"""

OPTIONS = ("option", "value and range", "default", "what it is")


class _Stop(Exception):
    """Carries the parser of `tinv fit` out of the constructor that would go on to parse."""


class _Parser(TinvCLI):
    def parse_arguments(self, parser: ArgumentParser, args: Any) -> NoReturn:
        raise _Stop(parser)


def run_parser() -> ArgumentParser:
    """Returns the parser of `tinv fit`, `validate`, `test` and `predict`."""
    try:
        _Parser([])
    except _Stop as found:
        parser: ArgumentParser = found.args[0]
        return parser
    raise AssertionError("the command line was parsed")


def command_parser(command: str) -> Any:
    """Returns the parser of another command."""
    return import_module(f"tinv.cli.{command}").make_parser()


def page() -> str:
    """Returns the page."""
    commands = RUN_COMMANDS | OTHER_COMMANDS
    anchors = {name: f"[`tinv {name}`](#tinv-{'fit' if name in RUN_COMMANDS else name})" for name in commands}
    listed = table(("command", "what it does"), ((anchors[name], text) for name, text in commands.items()))
    return INTRODUCTION + listed + _runs() + "".join(map(_section, OTHER_COMMANDS))


def _runs() -> str:
    own = [option for option in of_parser(run_parser()) if "." not in option.name or "checkpoint." in option.name]
    kept = [
        option._replace(name=option.written, help=TOP_LEVEL.get(option.name, option.help))
        for option in own
        if option.name not in ("trainer", "model", "data")
    ]
    more = {"--debug": f"{TOP_LEVEL['debug']}; every command takes it", "--help": "print every option there is"}
    switches = [Argument(name, Switch, None, False, text) for name, text in more.items()]
    return RUNS + argument_table([*kept, *switches], OPTIONS)


def _section(command: str) -> str:
    found = command_parser(command)
    is_typed = isinstance(found, CommandParser)
    parser = found.parser if is_typed else found
    usage = re.sub(r"(?<=--)[a-z]\w*", lambda name: name[0].replace("_", "-"), parser.format_usage())
    text = " ".join((parser.description or "").split())
    options = []
    for option in of_parser(parser):
        written = option.written.replace("_", "-") if is_typed else option.written
        options.append(option._replace(name=written))
    epilog = f"{parser.epilog}\n\n" if parser.epilog else ""
    return (
        heading(2, f"tinv {command}", f"tinv-{command}")
        + f"{text}\n\n```text\n{usage.removeprefix('usage: ').strip()}\n```\n\n"
        + argument_table(options, OPTIONS)
        + epilog
    )
