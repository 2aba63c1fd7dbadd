"""The log of a job: it is collected from the beginning, and goes to a file as soon as the run has a folder."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TextIO

log = logging.getLogger(__name__)

LOG_FILE = "log.txt"


class RunLog(logging.Handler):
    """Collects the records of all loggers; `write_to` gives them a file. Jobs that make no folder write none."""

    def __init__(self) -> None:
        super().__init__()
        self.setFormatter(_Lines("%(asctime)s %(levelname)s %(name)s: %(message)s", "%Y-%m-%dT%H:%M:%SZ"))
        self._waiting: list[str] = []
        self._file: TextIO | None = None

    @classmethod
    @contextmanager
    def collecting(cls) -> Iterator[RunLog]:
        """A log that collects while the context lasts. An exception that leaves the context is logged with its
        traceback, which the terminal does not show.
        """
        handler, root = cls(), logging.getLogger()
        root.addHandler(handler)
        try:
            yield handler
        except BaseException:
            log.debug("the run ended with an error", exc_info=True)
            raise
        finally:
            root.removeHandler(handler)
            handler.close()

    def write_to(self, folder: Path) -> None:
        """Append what was collected, and everything that comes, to the log file in this folder.

        Raises:
            OSError: the file cannot be written.
        """
        self.acquire()
        try:
            if self._file is None:
                self._file = (folder / LOG_FILE).open("a", encoding="utf-8")
                self._file.writelines(self._waiting)
                self._file.flush()
                self._waiting.clear()
        finally:
            self.release()

    def emit(self, record: logging.LogRecord) -> None:
        """Write a record at once, or keep it until there is a file."""
        line = self.format(record) + "\n"
        if self._file is None:
            self._waiting.append(line)
            return
        try:
            self._file.write(line)
            self._file.flush()
        except (OSError, ValueError):  # a full disk, which the writing of the results will report
            return

    def close(self) -> None:
        if self._file is not None:
            self._file.close()
        super().close()


class _Lines(logging.Formatter):
    converter = staticmethod(time.gmtime)
