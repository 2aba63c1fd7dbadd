"""A headless Chromium under Selenium: opens a file, runs scripts in it, tells what the page asked for."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from selenium.common.exceptions import WebDriverException
from selenium.webdriver import ActionChains, Chrome, ChromeOptions, ChromeService

_OPTIONS = ("--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--disable-background-networking")
_BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
_DRIVER = shutil.which("chromedriver")

needs_browser = pytest.mark.skipif(not (_BROWSER and _DRIVER), reason="no Chromium or no chromedriver on this machine")


@dataclass
class Browser:
    """One tab."""

    driver: Chrome
    _requests: list[str] = field(default_factory=list)
    _complaints: list[str] = field(default_factory=list)

    @property
    def requests(self) -> list[str]:
        """Every address that the page asked for since it was opened."""
        events = (json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance"))
        sent = (event["params"] for event in events if event["method"] == "Network.requestWillBeSent")
        self._requests += [params["request"]["url"] for params in sent]
        return self._requests

    @property
    def complaints(self) -> list[str]:
        """Console warnings and errors, uncaught exceptions and violated policies since the page was opened."""
        entries = self.driver.get_log("browser")
        self._complaints += [entry["message"] for entry in entries if entry["level"] in ("WARNING", "SEVERE")]
        return self._complaints

    def call(self, method: str, **params: Any) -> Any:
        """Send a command of the DevTools protocol."""
        return self.driver.execute_cdp_cmd(method, params)

    def open(self, path: Path, hash: str = "", *, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """Show a file in a window of this size."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.driver.get("about:blank")
        self.requests.clear()
        self.complaints.clear()
        self.driver.get(path.resolve().as_uri() + hash)
        self.settle()

    def run(self, script: str) -> Any:
        """The value of a script's last expression. A promise is awaited."""
        result = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def settle(self) -> None:
        """Wait until what was asked for is drawn."""
        self.run("new Promise((done) => requestAnimationFrame(() => setTimeout(done, 30)))")

    def press(self, keys: str) -> None:
        """Press keys as a user does. They go to the element that has the focus."""
        ActionChains(self.driver).send_keys(keys).perform()
        self.settle()


@contextmanager
def browser() -> Iterator[Browser]:
    """A fresh Chromium with one empty tab, which ends with the context. The test is skipped where it cannot start."""
    options = ChromeOptions()
    options.binary_location = _BROWSER or ""
    for option in _OPTIONS:
        options.add_argument(option)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    try:
        driver = Chrome(options=options, service=ChromeService(_DRIVER))
    except WebDriverException as error:
        pytest.skip(f"{_BROWSER} does not run here: {error.msg}")
    try:
        yield Browser(driver)
    finally:
        driver.quit()


@pytest.fixture(scope="module")
def tab() -> Iterator[Browser]:
    """One for all tests of a file."""
    with browser() as one:
        yield one
