"""What all adapters share: a missing library is one clear error, and what a tracker loses ends no run."""

from __future__ import annotations

import importlib
import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

from romexp.errors import ConfigError
from romexp.redact import without_secrets
from romexp.tracking import TrackedRun

log = logging.getLogger(__name__)


def library(module: str, *, extra: str) -> Any:
    """Import a tracker's library, which takes seconds and only its own runs need.

    Args:
        extra: the extra of this package that installs it.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ConfigError(f"tracker={extra}: a package is not installed: pip install 'romexp[{extra}]'") from error


@contextmanager
def begins(name: str) -> Iterator[None]:
    """Inside the context a run of a tracker is opened.

    Raises:
        ConfigError: the tracker does not open it.
    """
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:  # Each library has errors of its own.
        reason = without_secrets(" ".join(str(error).split()))[:300] or type(error).__name__
        raise ConfigError(f"tracker: {name} did not begin a run: {reason}") from error


@dataclass
class Guarded:
    """A run whose tracker may fail: a warning is logged once, and the results on disk do not depend on it.

    Attributes:
        run: the tracker's own run.
        name: the tracker's name in the warning.
    """

    run: TrackedRun
    name: str
    _failed: bool = field(default=False, init=False)

    @property
    def location(self) -> str:
        return self.run.location

    @property
    def takes_images(self) -> bool:
        return self.run.takes_images

    def log(self, values: Mapping[str, float], *, step: int | None = None, axis: str = "step") -> None:
        self.call(lambda: self.run.log(values, step=step, axis=axis))

    def lines(self, chart: str, lines: Mapping[str, Sequence[float]], *, axis: str) -> None:
        self.call(lambda: self.run.lines(chart, lines, axis=axis))

    def table(self, name: str, columns: Sequence[str], rows: Sequence[Sequence[Any]]) -> None:
        self.call(lambda: self.run.table(name, columns, rows))

    def summary(self, values: Mapping[str, Any]) -> None:
        self.call(lambda: self.run.summary(values))

    def images(self, paths: Mapping[str, Path]) -> None:
        self.call(lambda: self.run.images(paths))

    def call(self, call: Callable[[], object]) -> None:
        """Do something of the tracker; what goes wrong there is a warning."""
        try:
            call()
        except Exception as error:
            if not self._failed:
                log.warning("%s did not take all of this run: %s", self.name, without_secrets(str(error))[:300])
            self._failed = True


def numbers_in(values: Mapping[str, Any]) -> dict[str, float]:
    """Those of the values that are numbers."""
    return {k: float(v) for k, v in values.items() if isinstance(v, (int, float)) and not isinstance(v, bool)}


def texts_in(values: Mapping[str, Any]) -> dict[str, str]:
    """Those of the values that are no numbers, as texts."""
    return {name: str(value) for name, value in values.items() if name not in numbers_in(values)}


def flat(config: Mapping[str, Any], above: str = "") -> dict[str, str]:
    """A configuration with dotted names, as on the command line: `editor.layer`."""
    found: dict[str, str] = {}
    for key, value in config.items():
        found |= flat(value, f"{above}{key}.") if isinstance(value, Mapping) else {f"{above}{key}": str(value)}
    return found


def as_yaml(config: Mapping[str, Any]) -> str:
    """A configuration as text."""
    return OmegaConf.to_yaml(OmegaConf.create(dict(config)))


def all_tags(tags: Sequence[str], config: Mapping[str, Any]) -> list[str]:
    """The configured tags, then the run's names (task, model, data set, editor), without duplicates."""
    return list(dict.fromkeys((*tags, *map(str, (config.get("names") or {}).values()))))


def heading(group: str, config: Mapping[str, Any]) -> str:
    """Under what a tracker shows the runs of one study together: its name, or else `group`."""
    return str(config.get("study") or group)
