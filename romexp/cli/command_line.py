"""The words of the command line, made ready for Hydra."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from pathlib import Path

from romexp.cli.field_values import SWITCH
from romexp.cli.free_text import quote_texts
from romexp.compose import SWEEPS, first_model
from romexp.errors import ConfigError, FileError
from romexp.os_errors import describe

MULTIRUN = {"-m", "--multirun"}
ONLY_SHOW = {"--cfg", "-c", "--info", "-i"}
"""Flags with which Hydra prints a configuration and runs no job."""

FIRST_LOOKS = {"task=try", "task=demo"}
"""Tasks that take a real model where one is set up."""

CALLED_HERE = {"logger": "tracker", "optimized_metric": "objective"}
"""Names that other projects with Hydra use, and ours."""


def flags_in(arguments: Sequence[str]) -> set[str]:
    """The first part of each argument: a flag, or the name of a setting."""
    return {argument.partition("=")[0] for argument in arguments}


def ready_for_hydra(arguments: Sequence[str]) -> list[str]:
    """Arguments that Hydra understands as the user means them.

    Texts are quoted, `debug=true` chooses the group's option, `demo` is the task of this name, `task=try` and
    `task=demo` get their model, and with `-cn` the folder of the shipped sweeps is searched too.

    Raises:
        ConfigError: a setting has another name here.
    """
    flags = flags_in(arguments)
    for argument in arguments:
        _refuse_other_name(argument)
    words = [word for argument in arguments for word in _debug(argument)]
    if words[:1] == ["demo"]:
        words[0] = "task=demo"
    if flags & {"-cn", "--config-name"} and not flags & {"-cd", "--config-dir"}:
        words += ["--config-dir", str(SWEEPS)]
    words = quote_texts(words, sweep=bool(flags & MULTIRUN or "hydra.mode=MULTIRUN" in arguments))
    first_looks = FIRST_LOOKS.intersection(words)
    if first_looks and not any(word.startswith("model=") for word in words):
        words.insert(words.index(first_looks.pop()), f"model={first_model()}")
    return words


def read_dotenv(folder: Path) -> None:
    """Take environment variables from the file `.env` of this folder, if there is one. Those that are set stay.

    python-dotenv itself warns of a line that it cannot read.

    Raises:
        ConfigError: python-dotenv is missing.
        FileError: the file cannot be read.
    """
    file = folder / ".env"
    if not file.is_file():
        return
    try:
        from dotenv import load_dotenv
    except ImportError:
        raise ConfigError(f"{file}: reading it needs python-dotenv: pip install python-dotenv") from None
    try:
        load_dotenv(file, override=False)
    except (OSError, UnicodeDecodeError) as error:
        reason = describe(error) if isinstance(error, OSError) else f"{file}: not UTF-8 text"
        raise FileError(reason) from error


def _debug(argument: str) -> Iterator[str]:
    """`debug` is a group, whose option `default` a switch means; without one, the argument is left out."""
    name, _, value = argument.partition("=")
    if name.lstrip("+") != "debug" or value.lower() not in (*SWITCH, "null"):
        yield argument
    elif SWITCH.get(value.lower()):
        yield "debug=default"


def _refuse_other_name(argument: str) -> None:
    found = re.match(r"[+~]*(\w+)(?=[=.@]|$)(.*)", argument)
    if found and (ours := CALLED_HERE.get(found[1])):
        raise ConfigError(f"{found[1]}: it is called {ours} here: {ours}{found[2]}")
