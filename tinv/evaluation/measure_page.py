"""One HTML page that shows a measurement: numbers, map, layers, attribution, and images that change their answer.

It stands in this room, not beside the report of runs, since `InvarianceReport.save` writes it and imports run one way.
"""

from __future__ import annotations

import io
import json
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from PIL import Image
from torch import Tensor

from tinv.evaluation.gallery import GALLERY_IMAGES, Answer, Flip
from tinv.evaluation.measured_numbers import Number, numbers_figure, numbers_of
from tinv.evaluation.shares_figure import shares_figure
from tinv.policies.conversion import ConversionPolicy
from tinv.utils.html_pages import figure_source, page_template, picture_source

if TYPE_CHECKING:
    from matplotlib.figure import Figure

THUMBNAIL = 160
"""Largest side of the pictures of the gallery, in pixels."""
JPEG_QUALITY = 80

CAPTIONS = {
    "map": (
        "Map of shifts",
        "Each cell is a shift of the image by (dx, dy) pixels. A network that is invariant has one color everywhere.",
    ),
    "layers": (
        "Layers",
        "Relative equivariance error of every layer: the image moved before the layer, against its map moved after it. "
        "The first layer that leaves 0 is where equivariance is lost.",
    ),
    "lie_layers": (
        "Layers, by the Lie derivative",
        "What each part of the network adds to the squared rate at which its logits change when the image begins to "
        "move. Shares add up to the whole.",
    ),
    "ring": (
        "Rings of shifts",
        "How many images keep their answer, or a right one, when they are moved by any shift of a growing ring.",
    ),
    "comb": (
        "Consistency over the shift",
        "Peaks at the multiples of the total stride are the sign of aliasing: the network is more consistent under "
        "shifts by whole strides than under others of about the same length.",
    ),
}
"""Heading and explanation of the figures of metrics that are known; others have the metric's name."""


ATTRIBUTIONS = {
    "attribution": "Which part breaks it",
    "attribution_by_conversion": "The same weights, made exact in part",
}
"""Headings of the attributions, by their keys in `measure.json`."""


def measure_page(found: Mapping[str, Any], figures: Mapping[str, Figure], gallery: Sequence[Flip] | None) -> str:
    """Returns one HTML page that refers to no other file; `html/measure.html` beside this file is its template.

    Args:
        found: What `measure.json` holds. Everything but `metrics` may be absent.
        figures: Figures of the metrics, by name.
        gallery: Images that change their answer; None if they were not looked for.
    """
    numbers = numbers_of(found.get("metrics") or {}, found.get("units") or {})
    without = numbers_of(found.get("metrics_without") or {}, found.get("units") or {})
    beside = {number.name: _row(number) for number in without}
    options = found.get("options") or {}
    context = {
        "title": network_title(found),
        "facts": _facts(found),
        "numbers": [{**_row(number), "without": beside.get(number.name)} for number in numbers],
        "select": (found.get("select") or {}).get("select", ""),
        "numbers_figure": figure_source(numbers_figure(numbers)) if numbers else "",
        "figures": [_figure(name, figure) for name, figure in figures.items()],
        "attributions": [
            {"title": title, **part}
            for key, title in ATTRIBUTIONS.items()
            if (part := _attribution(found.get(key) or {})) is not None
        ],
        "gallery": None if gallery is None else [_flip(flip) for flip in gallery],
        "looked_at": min(GALLERY_IMAGES, int(found.get("images") or 0)),
        "room": int(options["offset_range"]) // 2 if "offset_range" in options else None,
        "partial": found.get("partial") or [],
        "skipped": found.get("skipped") or [],
        "options": json.dumps(options, indent=2, ensure_ascii=False) if options else "",
    }
    return page_template("tinv.evaluation", "measure.html").render(context) + "\n"


def network_title(found: Mapping[str, Any]) -> str:
    """Returns the name of the network of a measurement, and where it is from."""
    options = found.get("options") or {}
    name = options.get("backbone")
    if not name:
        return "A network"
    return f"{name} ({options['source']})" if options.get("source") else str(name)


def policies(found: Mapping[str, Any]) -> str:
    """Returns the policies of the network of a measurement that change it, and its selection; else `as it is`."""
    options = found.get("options") or {}
    default = ConversionPolicy().to_dict()
    changing = [key for key in default if options.get(key, default[key]) != default[key]]
    selection = [f"select {found['select'].get('select')}"] if found.get("select") else []
    return ", ".join([*(f"{key} {options[key]}" for key in changing), *selection]) or "as it is"


def _facts(found: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Returns the names and values of what was measured and how."""
    options, versions = found.get("options") or {}, found.get("versions") or {}
    labelled = "with labels" if found.get("labelled") else "without labels"
    size = options.get("input_size")
    facts = {
        "policies": policies(found) if options else "",
        "select": ", ".join(f"{name} {value}" for name, value in (found.get("select") or {}).items()),
        "images": f"{found.get('images', 0)}, {labelled}",
        "folder": str(options.get("images") or ""),
        "shifts": str(found.get("shifts") or ""),
        "size": f"{'x'.join(map(str, size))} pixels" if isinstance(size, list | tuple) else "",
        "weights": str(
            options.get("run") or options.get("weights") or ("pretrained" * bool(options.get("pretrained")))
        ),
        "versions": ", ".join(f"{name} {versions[name]}" for name in ("tinv", "torch") if name in versions),
    }
    return [(name, value) for name, value in facts.items() if value]


def _row(number: Number) -> dict[str, Any]:
    low = number.interval[0] if number.interval else ""
    return {
        "name": number.name,
        "value": number.value,
        "text": number.text,
        "low": low,
        "ends": number.ends,
        "unit": number.unit,
    }


def _figure(name: str, figure: Figure) -> dict[str, Any]:
    title, caption = CAPTIONS.get(name, (name, ""))
    width, height = figure.get_size_inches()
    return {"title": title, "caption": caption, "source": figure_source(figure, 110), "wide": width > 1.5 * height}


def _attribution(found: Mapping[str, Any]) -> dict[str, Any] | None:
    """Returns the tables, the figure and the sentences of an attribution; None if there is none."""
    if not found:
        return None
    shares = found.get("shares") or {}
    conditions = found.get("consistency") if isinstance(found.get("consistency"), Mapping) else {}
    return {
        "explanation": found.get("explanation") or [],
        "conditions": [_condition(name, found) for name in conditions or {}] + _contexts(found.get("conditions") or {}),
        # a share of its own, and a note, has a condition that was made by conversion alone
        "columns": ["consistency", "accuracy", *(["share"] if conditions else [])],
        "shares": [
            {"order": order, "part": part, **{key: _cell(share.get(key)) for key in ("value", "low", "high")}}
            for order, one in shares.items()
            for part, share in one.items()
        ],
        "figure": figure_source(shares_figure(shares)) if shares else "",
    }


def _condition(name: str, found: Mapping[str, Any]) -> dict[str, Any]:
    refused = (found.get("refused") or {}).get(name)
    fell = "accuracy fell much: the share says little" if name in (found.get("accuracy_fell") or ()) else ""
    cells = {key: _cell((found.get(key) or {}).get(name)) for key in ("consistency", "accuracy", "share")}
    return {"name": name, "note": f"refused: {refused}" if refused else fell, **cells}


def _contexts(conditions: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns the rows of an attribution by real context: pairs on and off the stride, of each condition."""
    rows = []
    for name, numbers in conditions.items():
        for place in ("on_stride", "off_stride"):
            apart = numbers.get(place)
            consistency = None if apart is None else 100 - apart
            cells = {"consistency": _cell(consistency), "accuracy": _cell(numbers.get("accuracy"))}
            rows.append({"name": f"{name}, {place.replace('_', ' the ')}", **cells})
    return rows


def _cell(value: Any) -> dict[str, Any]:
    """Returns a number as a cell of a table; an empty one for none."""
    return {"value": "", "text": ""} if value is None else {"value": value, "text": f"{value:.1f}"}


def _flip(flip: Flip) -> dict[str, Any]:
    return {
        "file": flip.file,
        "label": flip.label,
        "move": move_text(flip.move),
        "views": [
            {"source": picture_source(jpeg(pixels), "jpeg"), "of": of, "answer": _answer(answer, flip.label)}
            for pixels, of, answer in zip(flip.views, ("where it is", "moved"), (flip.before, flip.after), strict=True)
        ],
    }


def _answer(answer: Answer, label: str | None) -> dict[str, Any]:
    judged = "" if label is None else "right" if answer.name == label else "wrong"
    return {"name": answer.name, "percent": f"{100 * answer.probability:.0f}%", "judged": judged}


def move_text(move: tuple[float, float]) -> str:
    """Returns a move (dx, dy) in words.

    Examples:
        >>> move_text((2, -1))
        '2 pixels right, 1 pixel up'
    """
    words = []
    for by, ahead, back in zip(move, ("right", "down"), ("left", "up"), strict=True):
        if by:
            words.append(f"{abs(by):g} pixel{'s' * (abs(by) != 1)} {ahead if by > 0 else back}")
    return ", ".join(words) or "0 pixels"


def jpeg(pixels: Tensor) -> bytes:
    """Returns a picture (C, H, W) uint8 as a small JPEG: the first channel in grey, or the first three in color."""
    array = pixels.cpu().permute(1, 2, 0).numpy()
    image = Image.fromarray(array[:, :, 0].copy() if array.shape[2] < 3 else array[:, :, :3].copy())
    image.thumbnail((THUMBNAIL, THUMBNAIL))
    file = io.BytesIO()
    image.save(file, "JPEG", quality=JPEG_QUALITY)
    return file.getvalue()
