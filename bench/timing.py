"""Wall-clock time by phase, on a device that works behind Python's back."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from statistics import median
from typing import TypeVar

import torch

Result = TypeVar("Result")


class Stopwatch:
    """Seconds by phase, added up; the device has finished whenever the clock is read."""

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self.seconds: dict[str, float] = {}

    @contextmanager
    def __call__(self, phase: str) -> Iterator[None]:
        start = self._now()
        yield
        self.seconds[phase] = self.seconds.get(phase, 0.0) + self._now() - start

    def _now(self) -> float:
        if self._device.type != "cpu":
            torch.accelerator.synchronize(self._device)
        return time.perf_counter()


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
        What each variant's last run gave, and its seconds by phase with their sum as `total`, each the median over
        repeats.
    """
    results: dict[str, Result] = {}
    laps: dict[str, list[dict[str, float]]] = {name: [] for name in variants}
    for repeat in range(repeats):
        names = list(variants) if repeat % 2 == 0 else list(variants)[::-1]
        for name in names:
            watch = Stopwatch(device)
            results[name] = variants[name](watch)
            laps[name].append({**watch.seconds, "total": sum(watch.seconds.values())})
            say(f"repeat {repeat + 1}/{repeats}, {name}: {laps[name][-1]['total']:.2f} s")
    medians = {name: {phase: median(lap[phase] for lap in mine) for phase in mine[0]} for name, mine in laps.items()}
    return results, medians
