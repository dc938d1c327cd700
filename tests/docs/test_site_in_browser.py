"""The built site in a real browser of phone width: pages fit, nothing is loaded from elsewhere, names are found."""

import functools
import http.server
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from report.test_page_in_browser import Browser, chromium, driver

pytestmark = [pytest.mark.browser, pytest.mark.slow]
PAGES = (
    *("index.html", "getting-started.html", "benchmarks.html", "design.html", "api/metrics.html"),
    *(f"tutorials/{name}.html" for name in ("index", "convert", "measure", "finetune")),
    *(f"tutorials/{name}.html" for name in ("red_green", "grid", "own_policy")),
    *(f"reference/{name}.html" for name in ("cli", "configuration", "metrics", "policies", "networks", "errors")),
)


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Serves files and prints nothing."""

    def log_message(self, *args):
        """Prints nothing."""


@pytest.fixture(scope="module")
def address(tmp_path_factory):
    # a browser is no Python package: pip cannot bring one along
    if not (chromium and driver):
        pytest.skip("needs Chromium and its driver: apt-get install chromium chromium-driver")
    folder = str(tmp_path_factory.mktemp("site"))
    command = [sys.executable, "-m", "mkdocs", "build", "--quiet", "--site-dir", folder]
    subprocess.run(command, cwd=Path(__file__).parents[2], check=True, timeout=300)
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(Quiet, directory=folder))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/"
    server.shutdown()


@pytest.fixture
def browser():
    opened = Browser()
    yield opened
    opened.close()


def test_pages_fit_a_phone_load_nothing_and_report_no_error(address, browser):
    for page in PAGES:
        browser.ask("POST", "url", {"url": address + page})
        assert browser.run("return window.innerWidth") == 390, page
        assert browser.run("return document.documentElement.scrollWidth") <= 390, page
        loaded = browser.run("return performance.getEntriesByType('resource').map(e => e.name)")
        assert loaded
        assert [name for name in loaded if not name.startswith((address, "data:"))] == []
        assert browser.ask("POST", "se/log", {"type": "browser"}) == [], page


def test_a_wide_table_scrolls_inside_itself(address, browser):
    browser.ask("POST", "url", {"url": f"{address}reference/policies.html"})
    time.sleep(0.5)  # the script of the theme puts tables into boxes that scroll
    boxes = browser.run(
        "return [...document.querySelectorAll('table')].map(t => t.closest('.md-typeset__scrollwrap'))"
        ".map(b => b && [b.scrollWidth, b.clientWidth, getComputedStyle(b).overflowX])"
    )
    assert len(boxes) == 5
    assert all(box and box[1] <= 390 and box[2] == "auto" for box in boxes)
    assert any(box[0] > box[1] for box in boxes)


@pytest.mark.parametrize(
    ("query", "page"),
    [
        ("full_background", "reference/policies.html"),
        ("consistency_corrected", "reference/metrics.html"),
        ("same_circular", "reference/policies.html"),
        ("train_max_shift", "reference/configuration.html"),
        ("PaddedConv2d", "api/nn.html"),
    ],
)
def test_the_search_finds_names_with_underscores(address, browser, query, page):
    browser.ask("POST", "url", {"url": f"{address}index.html?q={query}"})
    for _ in range(100):
        found = browser.run("return [...document.querySelectorAll('.md-search-result__link')].map(a => a.pathname)")
        if found:
            break
        time.sleep(0.1)
    assert f"/{page}" in found
