"""A worker does not outlive the command that it works for."""

from __future__ import annotations

import multiprocessing as mp
import os
import signal
import threading
import time
from dataclasses import replace
from multiprocessing.connection import Connection

import pytest

from romexp.cli.workers import Process, exit_when_parent_dies

SPAWN = mp.get_context("spawn")


def command(pipe: Connection, *, watched: bool) -> None:
    """Start a worker that sleeps, tell its number, sleep."""
    worker = SPAWN.Process(target=work, args=(Process.this() if watched else None,))
    worker.start()
    pipe.send(worker.pid)
    time.sleep(60)


def work(command: Process | None) -> None:
    if command is not None:
        exit_when_parent_dies(command)
        exit_when_parent_dies(command)
        assert sum(thread.name.startswith("romexp") for thread in threading.enumerate()) == 1
    time.sleep(60)


@pytest.mark.parametrize("watched", [True, False])
def test_a_worker_ends_soon_after_a_killed_command(watched: bool) -> None:
    ours, theirs = SPAWN.Pipe()
    process = SPAWN.Process(target=command, args=(theirs,), kwargs={"watched": watched})
    process.start()
    worker = Process.of(ours.recv())
    time.sleep(2.5)
    assert worker.is_alive
    process.kill()
    process.join()
    deadline = time.monotonic() + 10
    while worker.is_alive and time.monotonic() < deadline and (watched or time.monotonic() < deadline - 7):
        time.sleep(0.1)
    alive = worker.is_alive
    if alive:
        os.kill(worker.pid, signal.SIGKILL)
    assert alive is not watched, "without a watch it stays, so the test would see it"


def test_a_process_is_known_by_more_than_its_number() -> None:
    me = Process.this()
    assert me.is_alive
    assert me.is_here
    assert not replace(me, born="1").is_alive, "somebody else's number by now"
    assert not replace(me, host="elsewhere").is_here


def test_a_process_that_ended_but_was_not_waited_for_is_gone() -> None:
    pid = os.posix_spawn("/bin/sleep", ["sleep", "30"], os.environ)
    child = Process(host=Process.this().host, pid=pid, born=_born(pid))
    assert child.is_alive
    os.kill(pid, signal.SIGKILL)
    time.sleep(0.2)
    assert not child.is_alive
    os.waitpid(pid, 0)


def _born(pid: int) -> str:
    from romexp.cli import workers as job_worker

    return job_worker._born(pid) or ""
