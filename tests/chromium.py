"""A headless Chromium over its debugging pipe: opens a file, runs scripts in it, tells what it asked for."""

from __future__ import annotations

import base64
import json
import os
import select
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

NAMES = ("chromium", "chromium-browser", "google-chrome")
EXECUTABLE = next((found for name in NAMES if (found := shutil.which(name))), None)
SECONDS = 60


@dataclass
class Browser:
    """One tab.

    Attributes:
        to: takes its commands.
        answers: the descriptor it answers on.
        requests: every address it asked for since it opened.
        complaints: console errors, uncaught exceptions and violated policies.
    """

    to: IO[bytes]
    answers: int
    session: str = ""
    requests: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)
    _number: int = 0
    _unread: bytes = b""

    def call(self, method: str, **params: Any) -> Mapping[str, Any]:
        """Send a command of the DevTools protocol and wait for its answer; events on the way are noted."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if self.session:
            message["sessionId"] = self.session
        self.to.write(json.dumps(message).encode() + b"\0")
        self.to.flush()
        while True:
            answer = self._read()
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                return answer["result"]

    def open(self, path: Path, hash: str = "", *, width: int = 1280, height: int = 900, dark: bool = False) -> None:
        """Show a file, in a window of this size."""
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", features=[scheme])
        self.call("Page.navigate", url="about:blank")
        self.requests.clear()
        self.complaints.clear()
        self.call("Page.navigate", url=path.resolve().as_uri() + hash)
        self.run("document.readyState === 'complete' || new Promise((done) => addEventListener('load', done))")
        self.settle()

    def run(self, script: str) -> Any:
        """The value of a script's last expression, awaited if it is a promise."""
        result = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in result, result["exceptionDetails"]
        return result["result"].get("value")

    def settle(self) -> None:
        """Until what was asked for is drawn."""
        self.run("new Promise((done) => requestAnimationFrame(() => setTimeout(done, 30)))")

    def press(self, key: str) -> None:
        """A key, as a user presses it."""
        for kind in ("keyDown", "keyUp"):
            text = "\r" if key == "Enter" and kind == "keyDown" else ""
            code = {"Enter": 13, "Tab": 9}.get(key, 0)
            self.call("Input.dispatchKeyEvent", type=kind, key=key, text=text, windowsVirtualKeyCode=code)
        self.settle()

    def picture(self, path: Path, *, whole: bool = False) -> None:
        """A PNG of the window, or of the whole page."""
        clip: dict[str, Any] = {}
        if whole:
            size = self.call("Page.getLayoutMetrics")["cssContentSize"]
            clip = {"clip": {**size, "scale": 1}, "captureBeyondViewport": True}
        data = self.call("Page.captureScreenshot", format="png", **clip)["data"]
        path.write_bytes(base64.b64decode(data))

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._unread:
            if not select.select([self.answers], [], [], SECONDS)[0]:
                raise RuntimeError(f"Chromium said nothing for {SECONDS} s")
            data = os.read(self.answers, 1 << 16)
            if not data:
                raise RuntimeError("Chromium ended")
            self._unread += data
        first, self._unread = self._unread.split(b"\0", 1)
        message = json.loads(first)
        self._note(message.get("method", ""), message.get("params", {}))
        return message

    def _note(self, method: str, params: Mapping[str, Any]) -> None:
        if method == "Network.requestWillBeSent":
            self.requests.append(params["request"]["url"])
        elif method == "Runtime.exceptionThrown":
            self.complaints.append(str(params["exceptionDetails"].get("exception", params["exceptionDetails"])))
        elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
            self.complaints.append(params["entry"]["text"])
        elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
            self.complaints.append(json.dumps(params["args"]))


@contextmanager
def browser() -> Iterator[Browser]:
    """A fresh Chromium with one empty tab; ends with the context."""
    assert EXECUTABLE is not None
    to_read, to_write = os.pipe()
    from_read, from_write = os.pipe()
    # It reads commands from descriptor 3 and answers on 4, whatever these pipes are called here.
    redirect = f'exec 3<&{to_read} 4>&{from_write}; exec "$0" "$@"'
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as profile:
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars"]
        options += ["--disable-background-networking", "--remote-debugging-pipe", f"--user-data-dir={profile}"]
        process = subprocess.Popen(
            ["bash", "-c", redirect, EXECUTABLE, *options],
            pass_fds=(to_read, from_write),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_read)
        os.close(from_write)
        with os.fdopen(to_write, "wb") as to:
            try:
                yield _tab(Browser(to=to, answers=from_read))
            finally:
                process.terminate()
                process.wait(SECONDS)
                os.close(from_read)


def _tab(one: Browser) -> Browser:
    target = one.call("Target.createTarget", url="about:blank")["targetId"]
    one.session = one.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
    for domain in ("Page", "Runtime", "Network", "Log"):
        one.call(f"{domain}.enable")
    return one
