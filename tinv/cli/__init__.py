"""The `tinv` command: one thin file a command, which parses, calls the library and prints."""

from tinv.cli.main import main

__all__ = ["main"]
