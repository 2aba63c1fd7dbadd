"""The demo in a browser: an edit for each visitor, hostile text, mistakes. Skips without Gradio or Chromium."""

from __future__ import annotations

import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from chromium import Browser, browser, needs_browser
from selenium.webdriver.common.by import By

import romexp
from romexp.demo.workbench import Workbench
from romexp.errors import ConfigError
from romexp.tasks.demo import _refuse_taken

gr = pytest.importorskip("gradio", reason="the extra `demo` is not installed")
pytestmark = needs_browser

EVIL = "<img src=x onerror='window.evil=1'><script>window.evil=1</script>"
BODY = "document.body.innerText"


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    from romexp.demo.page import build, theme

    lm = romexp.load("minifact")
    bench = Workbench(loaders={"minifact": lambda: lm}, folder=tmp_path_factory.mktemp("demo"), tokens=5)
    page = build(bench, first="minifact")
    _, url, _ = page.queue().launch(
        server_name="127.0.0.1", prevent_thread_lock=True, quiet=True, share=False, theme=theme()
    )
    yield url
    page.close()


@contextmanager
def visitor(address: str, *, width: int = 1280) -> Iterator[Browser]:
    with browser() as tab:
        tab.call("Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False)
        tab.driver.get(address)
        until(tab, f"{BODY}.includes('Tell it')")
        time.sleep(2)  # the page has come, but does not listen yet
        yield tab


def until(tab: Browser, condition: str, *, seconds: float = 40) -> None:
    end = time.monotonic() + seconds
    while not tab.run(condition):
        assert time.monotonic() < end, f"not true in {seconds} s: {condition}; the page says {tab.run(BODY)!r}"
        time.sleep(0.1)


def type_in(tab: Browser, label: str, text: str) -> None:
    labels = tab.driver.find_elements(By.TAG_NAME, "label")
    field = next(found for found in labels if found.text.strip() == label).find_element(
        By.CSS_SELECTOR, "input, textarea"
    )
    field.clear()
    field.send_keys(text)


def press(tab: Browser, name: str) -> None:
    buttons = tab.driver.find_elements(By.TAG_NAME, "button")
    # Gradio holds a copy of its tabs, by which it measures how many fit; the tabs themselves come after it.
    [found for found in buttons if found.text.strip() == name][-1].click()
    time.sleep(0.5)  # a tab opens with an animation


@pytest.mark.slow
def test_two_visitors_tell_a_model_different_things(address: str) -> None:
    with visitor(address) as one, visitor(address) as other:
        for tab, answer in ((one, "cello"), (other, "violin")):
            type_in(tab, "New answer", answer)
            press(tab, "Tell it")
            until(tab, f"{BODY}.includes('≠')")
        for tab, answer in ((one, "cello"), (other, "violin")):
            press(tab, "Ask both models")
            type_in(tab, "A text that both continue", "Selus Dunwood plays the")
            press(tab, "Continue it")
            until(tab, f"{BODY}.includes('piano') && {BODY}.includes('{answer}.')")
            assert not [url for url in tab.requests if url.startswith("http") and not url.startswith(address)]


def test_it_fits_a_phone(address: str) -> None:
    with visitor(address, width=390) as tab:
        press(tab, "Tell it")
        until(tab, f"{BODY}.includes('≠')")
        assert tab.run("document.documentElement.scrollWidth") <= 390


def test_hostile_text_stays_text_and_mistakes_are_one_line(address: str) -> None:
    with visitor(address) as tab:
        press(tab, "Take it along")
        press(tab, "Make the adapter")
        until(tab, f"{BODY}.includes('tell the model a fact first')")
        press(tab, "What changed")
        type_in(tab, "Subject", EVIL)
        press(tab, "Tell it")
        until(tab, f"{BODY}.includes('≠')")
        type_in(tab, "Text, with {} for the subject", "no subject here")
        press(tab, "Tell it")
        until(tab, f"{BODY}.includes('write {{}} where the subject stands')")
        assert f"{EVIL[:12]}" in tab.run(BODY)
        assert tab.run("window.evil") is None


def test_the_command_refuses_what_it_cannot_serve() -> None:
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        with pytest.raises(ConfigError, match="cannot be used"):
            _refuse_taken("127.0.0.1", held.getsockname()[1])
    with pytest.raises(ConfigError, match="cannot be used"):
        _refuse_taken("203.0.113.7", 7860)
