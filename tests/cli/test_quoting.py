"""Texts that Hydra cannot read on the command line: the error line says how to quote them, and that works."""

from __future__ import annotations

import re
import shlex

import pytest
from hydra.core.override_parser.overrides_parser import OverridesParser
from tiny_runs import Command

from romexp.cli.quoting import quoted

TEXTS = (
    "介绍 巴黎",
    "It's raining",
    "a (b",
    "50% {x}",
    'He said "yes"',
    "/models/a=b",
    "/模型/小",
    "a: b#c",
    "[INST] The cat [/INST]",
    'He\'s (really) 介绍, "yes" = no!',
    "costs $5 and `more`",
    "a\\b (c)\\",
    "'",
)


@pytest.mark.parametrize("text", TEXTS)
def test_the_quoted_argument_gives_the_text(text: str) -> None:
    (argument,) = shlex.split(quoted("study", text))
    assert OverridesParser.create().parse_override(argument).value() == text


@pytest.mark.parametrize("text", TEXTS)
@pytest.mark.parametrize("sweep", [False, True])
def test_the_line_says_how_to_quote(romexp: Command, text: str, sweep: bool) -> None:
    done = romexp(*["-m"] * sweep, f"study={text}")
    assert (done.status, done.err.count("\n")) == (2, 1)
    assert "hydra.cc" not in done.err
    hint = re.search(r"quote it twice, for Hydra and for the shell: (.*)\n$", done.err)
    assert hint is not None
    (argument,) = shlex.split(hint[1])
    assert OverridesParser.create().parse_override(argument).value() == text


def test_a_comma(romexp: Command) -> None:
    done = romexp("study=The cat, sat")
    assert (done.status, done.err.count("\n")) == (2, 1)
    for written in ("\"study='The cat, sat'\"", "'study=[The cat, sat]'", "add -m"):
        assert written in done.err


@pytest.mark.parametrize("argument", ["dataset.limit", "介绍", "a b=c"])
def test_no_setting(romexp: Command, argument: str) -> None:
    done = romexp(argument)
    assert (done.status, done.err.count("\n")) == (2, 1)
    assert f"{argument}: expected setting=value" in done.err


@pytest.mark.parametrize("flags", [["--info"], ["--info=defaults"]])
def test_a_sweep_whose_information_is_asked_for(romexp: Command, flags: list[str]) -> None:
    done = romexp("-m", "editor.layer=1,2", *flags)
    assert (done.status, done.err.count("\n")) == (2, 1)
    assert "leave out -m" in done.err
    assert romexp("--cfg", "job", "editor.layer=1").status == 0  # the control
    assert romexp("-m", "editor.layer=1,2", "-c", "all", "-p", "seed").out.count("---") == 2


def test_resolving_nothing(romexp: Command) -> None:
    done = romexp("--resolve")
    assert (done.status, done.err.count("\n")) == (2, 1)
    assert "--resolve needs --cfg" in done.err
