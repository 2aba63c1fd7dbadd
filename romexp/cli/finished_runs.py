"""Recognizes a finished run by its configuration and its files, in the time that it takes to look at them.

Without this, the same command again would import torch and load the model, to learn that there is nothing to do. What
is stored here is only a shortcut: where anything differs from what it was, the run is opened in full.
"""

from __future__ import annotations

import json
import logging
import os
import platform
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import romexp
from romexp.cli.job import Outcome
from romexp.cli.run_log import LOG_FILE
from romexp.errors import ConfigError
from romexp.files import Stamp, stamp, write_text
from romexp.reporting.tables.stored import from_json, to_json
from romexp.results.environment import LIBRARIES
from romexp.results.folder import RunFolder
from romexp.results.identity import digest

log = logging.getLogger(__name__)

WAS_FINISHED = "this run was finished before; delete its folder to repeat it"

_NO_INPUT = frozenset({"outputs", "output_dir", "cache_dir"})
"""Settings whose paths are written to."""
_CHANGING = frozenset({LOG_FILE, ".lock", "wandb"})
"""Files of a result folder that may change without a change of the results."""
_MOST_FILES = 20_000
"""A run with more files is not stored."""

Stamps = dict[str, Stamp]


class _Unknown(Exception):
    """What a run depends on cannot be told from its configuration."""


@dataclass(frozen=True, kw_only=True)
class FinishedRuns:
    """Stores the outcomes of finished runs, one file for each: `<folder>/<key>.json`.

    The key covers the configuration, the working folder, the files of this package and the versions of libraries. The
    file has the stamps of all inputs and of all files in the result folder.

    Attributes:
        folder: where they are stored.
        config: the resolved configuration of the run.
        began: when this job began, in seconds since 1970.
    """

    folder: Path
    config: Mapping[str, Any]
    began: float = field(default_factory=time.time)

    def find(self) -> Outcome | None:
        """The outcome of the run, if it is finished, nothing has changed since, and no other process is at it."""
        try:
            known = json.loads(self._file.read_text(encoding="utf-8"))
            results = Path(known["results"])
            if not results.is_dir() or not self._config_files() <= set(known["inputs"]):
                return None
            with RunFolder(results).locked():
                if _stamps(map(Path, known["inputs"])) != _as_stamps(known["inputs"]):
                    return None
                if _stamps(_result_files(results)) != _as_stamps(known["files"]):
                    return None
            tables = [from_json(table) for table in known["tables"]]
            outcome = Outcome(tables=tables, lines=known["lines"], folder=results)
        except (_Unknown, ConfigError, OSError, ValueError, KeyError, TypeError, AttributeError):
            return None
        log.info(WAS_FINISHED)
        return outcome

    def keep(self, outcome: Outcome) -> None:
        """Store an outcome, if everything that it depends on is known, and is older than this job or from the cache."""
        if outcome.folder is None or outcome.inputs is None:
            return
        tables = [to_json(table) for table in outcome.tables]
        try:
            inputs = _stamps([*map(Path, self._config_files()), *(Path(file).absolute() for file in outcome.inputs)])
            cache = self.folder.parent.absolute()
            given = [times for file, (_, *times) in inputs.items() if not Path(file).is_relative_to(cache)]
            if any(max(times) >= self.began * 1e9 for times in given) or any(table is None for table in tables):
                return
            stored = {
                "results": str(outcome.folder),
                "lines": list(outcome.lines),
                "tables": tables,
                "inputs": inputs,
                "files": _stamps(_result_files(outcome.folder)),
            }
            write_text(self._file, json.dumps(stored, ensure_ascii=False) + "\n")
        except (_Unknown, OSError):
            return

    @property
    def _file(self) -> Path:
        versions = [platform.python_version(), *map(version, LIBRARIES)]
        package = Path(romexp.__file__).resolve().parent
        code = _stamps(file for file in _walk(package) if file.suffix != ".pyc")
        key = [json.dumps(self.config, sort_keys=True, default=str), os.getcwd(), versions, code]
        return self.folder / f"{digest(key)}.json"

    def _config_files(self) -> set[str]:
        """Every file that the configuration names, and the files of every folder that it names.

        Raises:
            _Unknown: the configuration has a class of another package, or a value that stands for what is looked up:
                a model of the hub, which may be newer there, or `traced`.
        """
        model = self.config.get("model") or {}
        path = model.get("path") if isinstance(model, Mapping) else None
        if isinstance(path, str) and not Path(path).expanduser().is_dir():
            raise _Unknown
        found: set[str] = set()
        for key, text in _texts(self.config):
            if (key == "_target_" and not text.startswith("romexp.")) or text == "traced":
                raise _Unknown
            if not text.strip(". \n") or len(text) > 1000 or not (named := Path(text).expanduser().absolute()).exists():
                continue
            found |= {str(file) for file in ([named] if named.is_file() else _walk(named))}
            if len(found) > _MOST_FILES:
                raise _Unknown
        return found


def _texts(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    """The texts in a configuration, each with the key under which it stands."""
    if isinstance(value, Mapping):
        for name, item in value.items():
            if name not in _NO_INPUT:
                yield from _texts(item, str(name))
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for item in value:
            yield from _texts(item, key)
    elif isinstance(value, str):
        yield key, value


def _walk(folder: Path) -> Iterator[Path]:
    """The files in a folder, at any depth."""
    for number, (parent, _, names) in enumerate(os.walk(folder)):
        if number > _MOST_FILES:
            raise _Unknown
        yield from (Path(parent, name) for name in names)


def _result_files(folder: Path) -> list[Path]:
    """The files of a result folder that its outcome depends on."""
    return [file for file in _walk(folder) if not _CHANGING & set(file.relative_to(folder).parts)]


def _stamps(files: Iterable[Path]) -> Stamps:
    return {str(file): stamp(file) for file in sorted(files)}


def _as_stamps(value: Mapping[str, Sequence[int]]) -> Stamps:
    return {file: (size, changed, renamed) for file, (size, changed, renamed) in value.items()}
