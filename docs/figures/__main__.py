"""Draws all figures of docs/concepts.md: `python docs/figures [FOLDER]`, docs/images if no folder is given."""

import sys
from pathlib import Path

import matplotlib
from borders import background, border_contents, coverage
from exactness import exactness
from style import LOOK, save
from subsampling import adaptive, blur, head, pooling, stride

FIGURES = {
    "coverage": coverage,
    "border_contents": border_contents,
    "background": background,
    "stride": stride,
    "blur": blur,
    "adaptive": adaptive,
    "pooling": pooling,
    "head": head,
    "exactness": exactness,
}


def main(folder: Path) -> None:
    """Writes one SVG for each figure."""
    folder.mkdir(parents=True, exist_ok=True)
    with matplotlib.rc_context(LOOK):
        for name, draw in FIGURES.items():
            save(draw(), folder / f"{name}.svg")


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else Path(__file__).parent.parent / "images")
