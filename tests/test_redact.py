"""Passwords and tokens of URLs."""

from __future__ import annotations

import pytest

from romexp.redact import without_secrets, without_secrets_in

SECRETS = (
    "https://me:SECRET@example.org/a.json",
    "https://SECRET@example.org/a.json",
    "http://me:SECRET@127.0.0.1:8080/a",
    "https://me:SEC@RET@example.org/a",
    "https://me:SEC/RET@example.org/a",
    "https://me:SEC#RET?@example.org/a",
    "s3://KEY:SECRET@bucket/a",
    "https://example.org/a?token=SECRET",
    "https://example.org/a?part=2&access_token=SECRET&x=1",
    "https://example.org/a?api_key=SECRET#top",
    "https://example.org/a?X-Amz-Signature=SECRET&X-Amz-Credential=SECRET%2Fx",
    "https://example.org/a?sv=1&sig=SECRET%3D",
    "https://example.org/a?key=SECRET",
    "https://example.org/a#id_token=SECRET",
    "Max retries exceeded with url: /a.json?password=SECRET (Caused by …)",
    "dataset.remote.url='https://me:SECRET@example.org/a?token=SECRET'",
)


@pytest.mark.parametrize("text", SECRETS)
@pytest.mark.parametrize("frame", ["{}", "see {} (404), or\nhttps://example.org/b", '["{}"]'])
def test_no_secret_is_left(text: str, frame: str) -> None:
    cleaned = without_secrets(frame.format(text))
    assert not any(part in cleaned for part in ("SEC", "RET", "KEY:"))
    assert without_secrets(cleaned) == cleaned
    if "://" in text:
        assert ("bucket/a" if "bucket" in text else "127.0.0.1:8080/a" if "127" in text else "example.org/a") in cleaned


KEPT = (
    "https://example.org/a.json?part=2&page=x",
    "http://example.org:8080/model@main/a.json",
    "https://example.org/@user/a",
    "see https://example.org: mail me@example.org",
    "Is it so?key of the town; token = 3",
    "a user:password@host without an address",
)


@pytest.mark.parametrize("text", KEPT)
def test_nothing_else_changes(text: str) -> None:
    assert without_secrets(text) == text


def test_in_values_at_any_depth() -> None:
    value = {"a": ["https://u:p@h/x", 1, None, ("https://t@h",)], "b": {"c": 2.5, "d": True}}
    assert without_secrets_in(value) == {"a": ["https://h/x", 1, None, ["https://h"]], "b": {"c": 2.5, "d": True}}
