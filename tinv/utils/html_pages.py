"""HTML pages that refer to no other file: their templates, the style and the script that they share, and pictures."""

from __future__ import annotations

import base64
from functools import cache
from typing import TYPE_CHECKING

from jinja2 import ChoiceLoader, Environment, PackageLoader, Template

from tinv.utils.io import png

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@cache
def page_template(package: str, name: str) -> Template:
    """Returns a template of the folder `html` of a package, which escapes whatever is put into it.

    It may include `style.css`, `sort.js` (tables that a click on a heading sorts) and what else this package's folder
    `html` holds.

    Args:
        package: Name of the package, such as `tinv.report`.
        name: Name of the template's file.
    """
    folders = ChoiceLoader([PackageLoader(package, "html"), PackageLoader("tinv.utils", "html")])
    return Environment(loader=folders, autoescape=True, trim_blocks=True, lstrip_blocks=True).get_template(name)


def figure_source(figure: Figure, dpi: int = 130) -> str:
    """Returns a figure as the source of an `img`: a PNG inside the page.

    Args:
        figure: The figure.
        dpi: Pixels an inch.
    """
    return picture_source(png(figure, dpi), "png")


def picture_source(content: bytes, kind: str) -> str:
    """Returns a picture as the source of an `img`.

    Args:
        content: The bytes of its file.
        kind: Its format: `png` or `jpeg`.
    """
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
