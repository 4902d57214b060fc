"""The page of an evaluation in a real browser: it fits a phone, and its table can be sorted and filtered.

Skipped where chromium and its driver are not installed (Debian: `apt-get install chromium chromium-driver`). The
driver is spoken to by its own protocol (W3C WebDriver), so that no package is needed.
"""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import time
import urllib.request

import pytest

from plural_rlhf.report.suite.page import write_suite_report
from plural_rlhf.report.suite.results import MetricResult, ModelRecord, SuiteResults


OPTIONS = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
OPTIONS += ["--disable-component-update", "--disable-sync"]
pytestmark = pytest.mark.skipif(
    shutil.which("chromium") is None or shutil.which("chromedriver") is None,
    reason="chromium and chromedriver are not installed",
)


class Browser:
    """A headless chromium, driven by HTTP."""

    def __init__(self, folder):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        command = ["chromedriver", f"--port={self.port}"]
        self.driver = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        for _ in range(200):
            try:
                self.call("GET", "/status")
                break
            except OSError:
                time.sleep(0.1)
        settings = {"args": [*OPTIONS, f"--user-data-dir={folder}"], "binary": shutil.which("chromium")}
        wanted = {"browserName": "chrome", "goog:chromeOptions": settings}
        session = self.call("POST", "/session", {"capabilities": {"alwaysMatch": wanted}})
        self.session = f"/session/{session['sessionId']}"

    def call(self, method, path, body=None):
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}{path}", data=data, method=method)
        with urllib.request.urlopen(request, timeout=120) as answer:
            return json.load(answer)["value"]

    def open(self, page, width):
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
        command = {"cmd": "Emulation.setDeviceMetricsOverride", "params": size}
        self.call("POST", f"{self.session}/goog/cdp/execute", command)
        self.call("POST", f"{self.session}/url", {"url": page.resolve().as_uri()})

    def run(self, script):
        return self.call("POST", f"{self.session}/execute/sync", {"script": script, "args": []})

    def close(self):
        self.call("DELETE", self.session)
        self.driver.terminate()
        self.driver.wait()


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    values = {"urn": -7.5, "coin": 1234.5, "dice": 0.25, "films": float("nan")}
    results = {
        "a model with a long name": {
            task: [MetricResult(metric="a_metric_with_a_long_name", value=value, unit="nats", kind="items resampled")]
            for task, value in values.items()
        }
    }
    models = [ModelRecord(name="a model with a long name", kind="causal-lm", identity="1")]
    return write_suite_report(SuiteResults(models=models, results=results), tmp_path_factory.mktemp("page"))


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    browser = Browser(tmp_path_factory.mktemp("profile"))
    yield browser
    browser.close()


def test_a_page_fits_a_phone_and_cuts_no_word_into_letters(browser, page):
    browser.open(page, 390)
    width, lines = browser.run(
        "const cell = [...document.querySelectorAll('td')].find(td => td.textContent === 'a_metric_with_a_long_name');"
        "return [document.documentElement.scrollWidth, cell.getClientRects()[0].height];"
    )
    assert width == 390
    assert lines < 60  # one line; it had eight


def test_a_table_is_filtered_by_words_and_sorted_by_numbers(browser, page):
    browser.open(page, 1200)
    browser.run("document.querySelector('#section-numbers details').open = true")
    shown = browser.run(
        "const box = document.querySelector('#section-numbers'); const field = box.querySelector('.filter');"
        "field.value = 'urn long'; field.dispatchEvent(new Event('input'));"
        "const rows = [...box.querySelectorAll('tbody tr')].filter(row => !row.hidden);"
        "const shown = rows.map(row => row.cells[1].textContent);"
        "field.value = ''; field.dispatchEvent(new Event('input')); return shown;"
    )
    assert shown == ["urn"]
    sort = (
        "const box = document.querySelector('#section-numbers');"
        "[...box.querySelectorAll('th')].find(th => th.textContent === 'value').click();"
        "return [...box.querySelectorAll('tbody tr')].map(row => row.cells[1].textContent);"
    )
    assert browser.run(sort) == ["urn", "dice", "coin", "films"]
    assert browser.run(sort) == ["coin", "dice", "urn", "films"]  # what has no number comes last either way
