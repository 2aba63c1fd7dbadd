"""Texts on the command line reach the program as the user wrote them."""

from __future__ import annotations

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import QuotedString

from romexp.cli.free_text import quote_texts

TEXTS = [
    "The {} is located in the city of",
    "[INST] The cat [/INST] is in",
    "In Paris, the cat is",
    "a \\ b \\",
    'a \\" b',
    "1984",
    "true",
    "介绍 {}：",
    "it's (not) a=b",
]


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("sweep", [False, True])
def test_a_text_arrives_as_it_was_written(text: str, sweep: bool) -> None:
    (argument,) = quote_texts([f"prompt={text}"], sweep=sweep)
    override = OverridesParser.create().parse_override(argument)
    if sweep and text == "In Paris, the cat is":
        assert argument == f"prompt={text}", "a sweep's values stay several"
        return
    value = override.value()
    assert (value.text if isinstance(value, QuotedString) else value) == text


@pytest.mark.parametrize(
    "argument", ["prompt=null", "prompt=", 'prompt="a {}"', "prompt='a, b'", "prompt=${subject}", "task.x=a,b", "-m"]
)
def test_what_hydra_reads_already_stays(argument: str) -> None:
    assert quote_texts([argument], sweep=False) == [argument]
