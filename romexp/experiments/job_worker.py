"""Processes of a sweep: which one started it, is it still there, and what a worker does when it is not."""

from __future__ import annotations

import os
import platform
import threading
import time
from dataclasses import dataclass
from pathlib import Path

LOOK_EVERY_S = 1.0
_WATCH = "romexp: is the command still there?"


@dataclass(frozen=True, kw_only=True)
class Process:
    """A process by more than its number, which another may get later.

    Attributes:
        host: the machine.
        pid: its number there.
        born: when it began, in the machine's own clock ticks; empty where the system does not tell (not Linux).
    """

    host: str
    pid: int
    born: str

    @classmethod
    def this(cls) -> Process:
        pid = os.getpid()
        return cls(host=platform.node(), pid=pid, born=_born(pid) or "")

    @property
    def is_here(self) -> bool:
        """On this machine?"""
        return self.host == platform.node()

    @property
    def is_alive(self) -> bool:
        """Only for a process of this machine. One that has ended but was not waited for counts as gone."""
        if self.born:
            return _born(self.pid) == self.born
        try:
            os.kill(self.pid, 0)
        except ProcessLookupError:
            return False
        except PermissionError:
            return True
        return True


def end_with(command: Process) -> None:
    """End this process, a launcher's worker, soon after the command that started the sweep is gone.

    joblib and submitit leave workers at work when the command is killed. Results are safe at any moment: the case in
    flight is done again by the next run. One thread a process, however many jobs the worker is given.
    """
    if any(thread.name == _WATCH for thread in threading.enumerate()):
        return
    threading.Thread(target=_watch, args=(command,), name=_WATCH, daemon=True).start()


def _watch(command: Process) -> None:
    while command.is_alive:
        time.sleep(LOOK_EVERY_S)
    os._exit(1)  # sys.exit would end this thread alone


def _born(pid: int) -> str | None:
    """Start time of a process in clock ticks since boot; None if it has ended or the system does not tell."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
    except OSError:
        return None
    fields = text.rpartition(")")[2].split()  # the name, in parentheses, may hold anything
    state, start_time = fields[0], fields[19]
    return None if state in "ZX" else start_time
