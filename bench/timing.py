"""Wall-clock and processor time by phase, on a device that works behind Python's back."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from statistics import median
from typing import TypeVar

import torch

Result = TypeVar("Result")


class Stopwatch:
    """Seconds by phase, added up; the device has finished whenever the clock is read.

    Attributes:
        wall: seconds that passed, by phase.
        processor: seconds of all threads of this process together; they do not grow while others use the machine.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.wall: dict[str, float] = {}
        self.processor = 0.0

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        self._finish()
        start, start_processor = time.perf_counter(), time.process_time()
        yield
        self._finish()
        self.wall[phase] = self.wall.get(phase, 0.0) + time.perf_counter() - start
        self.processor += time.process_time() - start_processor

    def _finish(self) -> None:
        if self._device.type != "cpu":
            torch.accelerator.synchronize(self._device)

    def lap(self) -> dict[str, float]:
        """Wall seconds by phase and in `total`, and `processor` seconds."""
        return {**self.wall, "total": sum(self.wall.values()), "processor": self.processor}


def alternate(
    variants: Mapping[str, Callable[[Stopwatch], Result]],
    *,
    repeats: int,
    device: torch.device,
    say: Callable[[str], None],
) -> tuple[dict[str, Result], dict[str, dict[str, float]]]:
    """Run all variants in turn, `repeats` times, every other time in reverse order.

    So a machine that slows down or speeds up meanwhile does it to all of them.

    Returns:
        What each variant's last run gave, and its laps (see `Stopwatch.lap`), each entry the median over repeats.
    """
    results: dict[str, Result] = {}
    laps: dict[str, list[dict[str, float]]] = {name: [] for name in variants}
    for repeat in range(repeats):
        names = list(variants) if repeat % 2 == 0 else list(variants)[::-1]
        for name in names:
            watch = Stopwatch(device)
            results[name] = variants[name](watch)
            laps[name].append(watch.lap())
            say(f"repeat {repeat + 1}/{repeats}, {name}: {laps[name][-1]['total']:.2f} s")
    medians = {name: {part: median(lap[part] for lap in mine) for part in mine[0]} for name, mine in laps.items()}
    return results, medians
