"""What a run would do (`dry_run=true`): its folder, the cases that are left, the time and memory that they will take.

A few of the cases are done for that, and thrown away.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import psutil
import torch

from romexp.cli.job import Outcome, Remaining
from romexp.cli.progress import duration
from romexp.errors import RecordError
from romexp.lm.model import LanguageModel
from romexp.stats.covariance import Covariance
from romexp.stats.keys import key_width
from romexp.stats.moment_source import MomentSource
from romexp.stats.second_moment import SecondMoment

Item = TypeVar("Item")

MEASURE_S = 10.0
"""About as long as the measured batch may take."""

LOOK_EVERY_S = 0.02
"""Seconds between two looks at the memory of this process."""


@dataclass
class PeakMemory:
    """The most memory in use, in bytes: of the model's device if it counts its own, else of this process."""

    before: int = 0
    peak: int = 0


@dataclass(frozen=True, kw_only=True)
class Measured:
    """What a batch of cases took.

    Attributes:
        cases: number of cases in it.
        seconds: its duration.
        memory: the memory before it, and the most during it.
        problem: why not one of its cases could be done; empty if some could.
    """

    cases: int
    seconds: float
    memory: PeakMemory
    problem: str = ""

    def memory_of(self, batch_size: int) -> int:
        """The memory of a batch of this size, in bytes: what a batch adds grows with the number of cases."""
        more = max(0, self.memory.peak - self.memory.before)
        return self.memory.before + round(more * max(1.0, batch_size / self.cases))


def planned(
    lm: LanguageModel,
    folder: Path,
    items: Mapping[int, Item],
    work: Callable[[Sequence[Item]], Sequence[object]],
    *,
    done: Collection[int],
    batch_size: int,
    kind: str,
    times: float = 1.0,
) -> Outcome:
    """Say what is left of a run, and measure a few cases of it.

    Args:
        folder: the result folder, which may not exist.
        items: all cases, by id.
        work: does a batch of cases, without storing anything.
        done: the ids of cases that have a row.
        batch_size: number of cases that the run does together.
        kind: name of a case in messages.
        times: how often the run measures each case, on average.
    """
    left = [item for case_id, item in items.items() if case_id not in done]
    lines = [f"results: {folder}", f"left: {len(left)} of {len(items)} {kind}s"]
    if not left:
        return Outcome(lines=lines, remaining=Remaining(cases=0, seconds=0.0))
    measured = measure(left, work, batch_size=batch_size, device=lm.device)
    if measured.problem:
        lines.append(f"no estimate: not one of {measured.cases} measured {kind}s could be done: {measured.problem}")
        return Outcome(lines=lines, remaining=Remaining(cases=len(left)))
    each = measured.seconds / measured.cases * times
    where = "of the device" if counts_memory(lm.device) else "of the process"
    lines += [
        f"time: at most about {duration(each * len(left))} ({each:.2g} s a {kind}, from {measured.cases} of them)",
        f"memory {where}: about {measured.memory_of(min(batch_size, len(left))) / 1e9:.1f} GB",
    ]
    return Outcome(lines=lines, remaining=Remaining(cases=len(left), seconds=each * len(left)))


def measure(
    items: Sequence[Item],
    work: Callable[[Sequence[Item]], Sequence[object]],
    *,
    batch_size: int,
    device: torch.device,
) -> Measured:
    """Do one item to warm up, then a batch of others, as many as take about `MEASURE_S` and fit into a batch."""
    began = time.perf_counter()
    work(items[:1])
    first = time.perf_counter() - began
    count = max(1, min(batch_size, len(items), int(MEASURE_S / max(first, 1e-6))))
    batch = items[1 : 1 + count] or items[:1]
    with peak_memory(device) as memory:
        began = time.perf_counter()
        outcomes = work(batch)
        seconds = time.perf_counter() - began
    errors = [outcome for outcome in outcomes if isinstance(outcome, RecordError)]
    problem = str(errors[0]) if len(errors) == len(batch) else ""
    return Measured(cases=len(batch), seconds=seconds, memory=memory, problem=problem)


def counts_memory(device: torch.device) -> bool:
    """Whether torch counts the memory that is in use on this device, as it does for GPUs."""
    return hasattr(torch.get_device_module(device), "max_memory_allocated")


@contextmanager
def peak_memory(device: torch.device) -> Iterator[PeakMemory]:
    """Note the memory before the context, and the most in use inside it."""
    if counts_memory(device):
        counter = torch.get_device_module(device)
        counter.reset_peak_memory_stats(device)
        noted = PeakMemory(before=counter.memory_allocated(device))
        yield noted
        noted.peak = counter.max_memory_allocated(device)
        return
    process, ended = psutil.Process(), threading.Event()
    noted = PeakMemory(before=process.memory_info().rss, peak=process.memory_info().rss)

    def look() -> None:
        while not ended.wait(LOOK_EVERY_S):
            noted.peak = max(noted.peak, process.memory_info().rss)

    thread = threading.Thread(target=look, name="romexp: watch memory", daemon=True)
    thread.start()
    try:
        yield noted
    finally:
        ended.set()
        thread.join()


def moments_at_hand(covariance: Covariance, lm: LanguageModel, missing: set[int]) -> MomentSource:
    """Second moments without a pass over texts: where one is not at hand, the identity, which takes as much time.

    Args:
        missing: gets the layers that are not at hand.
    """

    def load(layers: Sequence[int]) -> dict[int, SecondMoment]:
        found = covariance.at_hand(lm, layers)
        lacking = [layer for layer in layers if layer not in found]
        missing.update(lacking)
        return found | {n: SecondMoment(matrix=torch.eye(key_width(lm, n)), count=0) for n in lacking}

    return MomentSource(load=load)
