"""What the parsers' libraries say over many lines, on one line."""

from __future__ import annotations

import contextlib
import importlib
import inspect
import re

from tinv.errors import nearest, unknown


def short_message(message: str) -> str:
    """Returns, on one line, which key is wrong and why, out of what jsonargparse says over many lines."""
    key = ".init_args.".join(re.findall(r'Parser key "([\w.]+)"', message))
    where = f"{key}: " if key else ""
    if found := re.search(r"Option '([^']*)' is not accepted", message):
        owner = re.findall(r"class_path[ =]'([\w.]+)'", message[: found.start()] + message[found.end() :][:80])
        names: list[str] = []
        if owner:
            module, _, name = owner[-1].rpartition(".")
            with contextlib.suppress(ImportError, AttributeError, ValueError):  # of a class that tells no arguments
                names = list(inspect.signature(getattr(importlib.import_module(module), name)).parameters)
        return f"{where}unknown key {found.group(1)!r}{nearest(found.group(1), names)}"
    if found := re.search(r"module '([^']*)' has no attribute '([^']*)'", message):
        return f"{where}there is no {found.group(2)!r} in {found.group(1)}"
    problems = re.findall(r"Problem with given class_path '([^']*)':\s*(.*)", message)
    if problems := [(path, reason) for path, reason in problems if not reason.startswith("Parser key")]:
        return f"{where}{problems[-1][0]} cannot be made ({problems[-1][1]})"
    if "NestedArg(key='init_args'" in message:
        return f"{where}init_args are given without the class that they are of; give class_path with them"
    if found := re.search(r"NestedArg\(key='([\w.]+)', val='?([^']*?)'?\)", message):
        given = f"{found.group(1)}={found.group(2)}"
        return f"{where}{given} is not what can stand there; a part of an object needs its class_path"
    if found := re.search(r"Literal\[([^]]*)\](?:.|\n)*?(?:Got|Given) value: (.*)", message):
        choices = re.findall(r"'([^']*)'", found.group(1))
        return f"{where}{unknown('value', found.group(2), choices)}"
    if found := re.search(r"the following arguments are required: ([\w., ]+)", message):
        return f"{where}{found.group(1)} must be set; is a --config missing?"
    kinds = [kind for kind in re.findall(r"Expected a <class '(\w+)'>", message) if kind != "NoneType"]
    value = re.search(r"(?:Got|Given) value: (.*)", message)
    if kinds and value:
        return f"{where}{value.group(1)!r} is not of type {' or '.join(kinds)}"
    if found := re.search(r"Not of type (\w+): (.*)", message):
        return f"{where}is not of type {found.group(1)} ({found.group(2)})"
    lines = [line.strip(" -") for line in message.splitlines() if line.strip()]
    return f"{where}{lines[-1] if lines else message}"
