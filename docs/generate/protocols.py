"""The page of the protocols, from their files."""

from __future__ import annotations

from generate.text import cell, code, heading, table
from tinv.evaluation.protocol import Protocol, list_protocols

INTRODUCTION = """# Protocols

Papers measure invariance in their own ways, and their numbers do not compare with each other: other photographs' sizes,
other shifts, other pairs. `tinv measure --protocol NAME` replays one of them on any network, with bootstrap intervals,
and writes its card into `measure.json`. In Python it is `tinv.measure(network, images, protocol="NAME")`.

```
tinv measure --backbone resnet18 --pretrained --images DIR --protocol zhang2019 --out runs/resnet18_zhang2019
```

Layout, shifts and metrics are the protocol's; options that would contradict it are refused. What the public code of a
paper does beside its question, such as one shift a batch of images, is off: `--as-published` turns it on. Shifts are
drawn for each image from the seed and its number, so that numbers depend on neither batch size nor workers, and are
not those of the paper's random numbers.

"""


def page() -> str:
    """Returns the page."""
    protocols = list_protocols()
    rows = ((f"[{code(p.name)}](#{p.name})", cell(p.what), code(p.mode), f"{p.input_size}") for p in protocols)
    overview = table(("name", "what is compared", "mode", "pixels"), rows)
    return INTRODUCTION + overview + "\n" + "".join(map(_section, protocols))


def _section(protocol: Protocol) -> str:
    size = f"{protocol.input_size} pixels a side are seen"
    if protocol.resize:
        size += f", the middle of photographs whose shorter side is {protocol.resize}"
    elif protocol.mode == "crop":
        size += f", windows of the middle {protocol.input_size + protocol.offset_range}"
    metrics = table(
        ("number", "metric", "options"),
        (
            (code(name), code(options["class"]), ", ".join(f"{k}: {v}" for k, v in options.items() if k != "class"))
            for name, options in protocol.metrics.items()
        ),
    )
    reports = table(("key", "what the paper calls it"), ((code(k), cell(text)) for k, text in protocol.reports.items()))
    notes = [
        *(f"Peculiarity of the public code: {one['what']}" + _switch(one) for one in protocol.peculiarities),
        *(f"Assumed here: {text}." for text in protocol.assumed),
    ]
    lines = "".join(f"- {note}\n" for note in notes)
    return (
        heading(2, protocol.name, protocol.name)
        + f"{protocol.what}\n\n{protocol.source}. {size}.\n\n{metrics}\n{reports}\n{lines}\n"
    )


def _switch(peculiarity: object) -> str:
    return " (`--as-published`)." if isinstance(peculiarity, dict) and "options" in peculiarity else "."
