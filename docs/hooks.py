"""What mkdocs.yml adds to MkDocs: pages made from the code and the notebooks, and formulas as MathML."""

import html
import re
from typing import Any

from generate import images, pages
from latex2mathml.converter import convert
from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files

FORMULA = re.compile(r'<(span|div) class="arithmatex">\\[(\[](.*?)\\[)\]]</\1>', re.DOTALL)


def on_files(files: Files, config: MkDocsConfig, **_: Any) -> Files:
    """Adds the pages that are made from the code and the notebooks."""
    for path, content in (pages() | images()).items():
        files.append(File.generated(config, path, content=content))
    return files


def on_page_content(text: str, **_: Any) -> str:
    """Turns formulas into MathML, which browsers draw themselves: no script and no font has to be loaded."""

    def math(found: re.Match[str]) -> str:
        return convert(html.unescape(found[2]), display="inline" if found[1] == "span" else "block")

    return FORMULA.sub(math, text)
