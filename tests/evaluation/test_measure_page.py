"""The page of a measurement: whole, harmless, and of a size that mail takes."""

import re
from html.parser import HTMLParser

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from tinv.evaluation.gallery import Answer, Flip
from tinv.evaluation.measure_page import JPEG_QUALITY, THUMBNAIL, jpeg, measure_page, move_text, policies
from tinv.evaluation.measured_numbers import numbers_of

METRICS = {"acc": 61.0, "acc_low": 50.0, "acc_high": 70.0, "consistency_cosine": 0.98, "map/consistency": 88.0}
UNITS = {"acc": "percent", "consistency_cosine": "cosine", "map/consistency": "percent"}
OPTIONS = {"backbone": "rook_net", "source": "tinv", "padding": "same_zero", "axes": "space", "offset_range": 32}
FOUND = {"metrics": METRICS, "units": UNITS, "options": OPTIONS, "images": 100, "labelled": True, "shifts": "crop"}


class Elements(HTMLParser):
    """The tags of a page with their attributes, and its text outside of style and script."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict]] = []
        self.words: list[str] = []
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append((tag, dict(attrs)))

    def handle_data(self, data):
        if self.tags and self.tags[-1][0] not in ("style", "script"):
            self.words.append(data)

    @property
    def text(self) -> str:
        return " ".join("".join(self.words).split())

    def all(self, tag: str) -> list[dict]:
        return [attributes for name, attributes in self.tags if name == tag]


def flip(name: str = "tench", side: int = 224, label: str | None = "tench", number: int = 0) -> Flip:
    draw = np.random.default_rng(number)
    views = tuple(torch.from_numpy(draw.integers(0, 256, (3, side, side), dtype=np.uint8)) for _ in range(2))
    return Flip(f"{number}.jpg", label, (2, -1), Answer(0, name, 0.71), Answer(1, "goldfish", 0.294), views)


def test_everything_is_on_the_page():
    figure = Figure()
    figure.subplots().plot([1, 2])
    page = Elements(measure_page(FOUND, {"map": figure, "own_metric": figure}, [flip()]))
    for words in (
        "rook_net (tinv)", "padding same_zero", "100, with labels", "61.0", "50.0 .. 70.0", "0.980", "Map of shifts",
        "own_metric", "tench 71% (right)", "goldfish 29% (wrong)", "Moved 2 pixels right, 1 pixel up.", "Class: tench",
    ):  # fmt: skip
        assert words in page.text, words
    assert "axes" not in page.text.partition("Options")[0]  # a default is no policy
    assert len(page.all("img")) == 1 + 2 + 2
    assert all(image["alt"] for image in page.all("img"))
    assert all(head["scope"] for head in page.all("th"))
    assert len(page.all("figcaption")) == len(page.all("figure")) == 4


def test_text_from_outside_is_text():
    bad = "<script>alert(1)</script>"
    found = FOUND | {
        "options": OPTIONS | {"backbone": bad, "images": bad},
        "skipped": [bad],
        "partial": [{"layer": bad, "text": bad}],
        "attribution": {"explanation": [bad], "consistency": {bad: 90.0}, "refused": {bad: bad}},
    }
    text = measure_page(found, {bad: Figure()}, [flip(bad, label=bad)])
    page = Elements(text)
    assert len(page.all("script")) == 1  # its own
    assert text.count("alert(1)") == text.count("&lt;script&gt;alert(1)") + text.count(r"\u003cscript")
    assert f"{bad} 71%" in page.text


def test_no_request_leaves_the_page():
    text = measure_page(FOUND, {"map": Figure()}, [flip()])
    page = Elements(text)
    links = [value for _, attributes in page.tags for name in ("src", "href") if (value := attributes.get(name))]
    assert links
    assert all(link.startswith("data:image/") for link in links)
    assert not page.all("link")
    without_pictures = re.sub(r"data:image/\w+;base64,[\w+/=]+", "", text)
    assert not re.search(r"https?:|url\(|@import|fetch\(", without_pictures)


def test_the_page_is_small_with_as_many_pictures_as_it_may_hold():
    """Noise, which no picture is harder to compress than."""
    text = measure_page(FOUND, {}, [flip(side=500, number=number) for number in range(24)])
    assert text.count("data:image/jpeg") == 48
    assert len(text) < 5_000_000
    assert len(jpeg(torch.zeros(3, 500, 400, dtype=torch.uint8))) < 2000
    assert (THUMBNAIL, JPEG_QUALITY) == (160, 80)
    assert jpeg(torch.zeros(1, 8, 8, dtype=torch.uint8))[:2] == b"\xff\xd8"


def test_a_gallery_without_changes_says_so_and_none_says_nothing():
    page = Elements(measure_page(FOUND, {}, []))
    assert "None of the first 64 images changes its answer" in page.text
    assert "by up to 16 pixels" in page.text
    assert "changes its answer" not in Elements(measure_page(FOUND, {}, None)).text


def test_optional_parts_are_shown_where_they_are():
    bare = Elements(measure_page({"metrics": {}}, {}, None))
    assert not bare.all("img")
    share = {"value": 12.5, "low": -1.0, "high": None}
    found = FOUND | {
        "attribution": {"method": "context", "explanation": ["Because."],
                        "shares": {"padding first": {"padding": share, "rest": {"value": -3.0}}}},
    }  # fmt: skip
    page = Elements(measure_page(found, {"ring": Figure()}, None))
    assert len(page.all("img")) == 3
    for words in ("Rings of shifts", "padding first", "12.5", "-3.0", "Because."):
        assert words in page.text
    conversion = {"consistency": {"unconverted": 80.0, "both": 90.0}, "accuracy": {"unconverted": 70.0, "both": None},
                  "share": {"both": 50.0}, "accuracy_fell": ["both"], "explanation": []}  # fmt: skip
    page = Elements(measure_page(FOUND | {"attribution": conversion}, {}, None))
    assert "50.0" in page.text
    assert "accuracy fell much" in page.text


@pytest.mark.parametrize(
    ("move", "words"),
    [
        ((1, 0), "1 pixel right"),
        ((-2, 3), "2 pixels left, 3 pixels down"),
        ((0, -0.5), "0.5 pixels up"),
        ((0, 0), "0 p"),
    ],
)
def test_moves_in_words(move, words):
    assert move_text(move).startswith(words)


def test_numbers_that_are_none_are_left_out():
    metrics = {"a": float("nan"), "b": None, "c": 1.0, "c_low": 0.0, "low": 3, "x_low": 2.0, "y": True}
    assert [(n.name, n.interval) for n in numbers_of(metrics, {})] == [("c", None), ("low", None), ("x_low", None)]


def test_policies_are_those_that_change_something():
    assert policies({"options": {"padding": "keep", "axes": "space"}}) == "as it is"
    assert policies({"options": {"padding": "valid", "pool": "valid"}}) == "padding valid, pool valid"
