"""The HTML page in a real browser, driven through chromedriver's own HTTP interface."""

import base64
import json
import shutil
import socket
import subprocess
import time
import urllib.request
from pathlib import Path

import pytest
from evaluation.test_measure_page import FOUND, flip
from matplotlib.figure import Figure
from report.test_measured_networks import write_measure
from report.test_report import grid

from tinv.cli import main
from tinv.evaluation.measure_page import measure_page

pytestmark = pytest.mark.browser
chromium, driver = shutil.which("chromium"), shutil.which("chromedriver")


class Browser:
    """A headless Chromium of phone width."""

    def __init__(self) -> None:
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.process = subprocess.Popen([driver, f"--port={port}"], stdout=subprocess.DEVNULL)
        self.url = f"http://127.0.0.1:{port}"
        arguments = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        options = {"binary": chromium, "args": arguments, "mobileEmulation": {"deviceMetrics": PHONE}}
        wanted = {"goog:chromeOptions": options, "goog:loggingPrefs": {"browser": "ALL"}}
        for attempt in range(100):
            try:
                self.session = self.ask("POST", "", {"capabilities": {"alwaysMatch": wanted}})["sessionId"]
                break
            except OSError:
                assert attempt < 99
                time.sleep(0.1)

    def ask(self, method: str, path: str, body: dict | None = None):
        place = f"{self.url}/session" + (f"/{self.session}/{path}" if path else "")
        request = urllib.request.Request(place, json.dumps(body).encode() if body is not None else None, method=method)
        return json.load(urllib.request.urlopen(request, timeout=60))["value"]

    def run(self, script: str):
        return self.ask("POST", "execute/sync", {"script": script, "args": []})

    def close(self) -> None:
        self.ask("DELETE", "window")
        self.process.terminate()
        self.process.wait()


PHONE = {"width": 390, "height": 800, "pixelRatio": 1}


@pytest.fixture
def browser():
    # a browser is no Python package: pip cannot bring one along
    if not (chromium and driver):
        pytest.skip("needs Chromium and its driver: apt-get install chromium chromium-driver")
    opened = Browser()
    yield opened
    opened.close()


def column(browser: Browser, number: int) -> list[str]:
    return browser.run(f"return [...document.querySelectorAll('tbody tr')].map(r => r.cells[{number}].textContent)")


def test_the_page_sorts_fits_a_phone_and_loads_nothing(browser):
    grid(seeds=(0, 1))
    assert main(["report", "runs", "--format", "html"]) == 0
    browser.ask("POST", "url", {"url": Path("runs/report.html").resolve().as_uri()})
    assert browser.run("return window.innerWidth") == 390
    assert browser.run("return document.documentElement.scrollWidth") <= 390
    assert float(browser.run("return getComputedStyle(document.querySelector('td')).fontSize")[:-2]) >= 12
    loaded = browser.run("return performance.getEntriesByType('resource').map(e => e.name)")
    assert not [name for name in loaded if not name.startswith("data:")]
    assert browser.run("return [...document.images].every(i => i.complete && i.naturalWidth > 100)")
    assert browser.run("return document.images.length") == 3

    means = column(browser, 4)
    click = "document.querySelectorAll('th button')[4].click()"
    browser.run(click)
    rising = [float(text.partition("±")[0]) for text in column(browser, 4)]
    assert rising == sorted(rising)
    assert len(rising) == len(means) == 32
    browser.run(click)
    falling = [float(text.partition("±")[0]) for text in column(browser, 4)]
    assert falling == sorted(falling, reverse=True)
    assert browser.run("return document.querySelectorAll('th')[4].ariaSort") == "descending"

    browser.run("document.querySelector('details').open = true")
    browser.run("document.querySelector('details details').open = true")
    assert "kernel_size: 2" in browser.run("return document.querySelector('pre').innerText")
    assert browser.run("return document.documentElement.scrollWidth") <= 390
    assert not [line for line in browser.ask("POST", "se/log", {"type": "browser"}) if line["level"] == "SEVERE"]
    Path("page.png").write_bytes(base64.b64decode(browser.ask("GET", "screenshot")))


def open_page(browser: Browser, path: Path) -> None:
    browser.ask("POST", "url", {"url": path.resolve().as_uri()})
    assert browser.run("return document.documentElement.scrollWidth") <= 390
    loaded = browser.run("return performance.getEntriesByType('resource').map(e => e.name)")
    assert not [name for name in loaded if not name.startswith("data:")]
    assert browser.run("return [...document.images].every(i => i.complete && i.naturalWidth > 100)")


def test_the_page_of_a_measurement_fits_a_phone_and_sorts(browser):
    path = Path("measure.html")
    path.write_text(measure_page(FOUND, {"map": Figure(figsize=(13, 4))}, [flip(number=n) for n in range(3)]))
    open_page(browser, path)
    # a wide figure scrolls, and stays large enough to be read
    assert browser.run("return document.querySelector('.panels img').clientWidth") > 600
    browser.run("document.querySelectorAll('th button')[1].click()")
    values = [float(text) for text in column(browser, 1)]
    assert values == sorted(values)


def test_the_page_of_several_networks_fits_a_phone_and_sorts(browser):
    for name, acc in (("a", 70.0), ("b", 9.5), ("c", 60.0)):
        write_measure(name, acc)
    assert main(["report", "measured", "--format", "html"]) == 0
    open_page(browser, Path("measured/report.html"))
    browser.run("document.querySelectorAll('th button')[4].click()")
    assert column(browser, 0) == ["b", "c", "a"]
