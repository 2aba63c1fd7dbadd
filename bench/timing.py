"""Measures wall-clock and processor time by phase, also on devices that work asynchronously."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from statistics import median
from typing import ClassVar, TypeVar

import torch
from torch.utils.flop_counter import FlopCounterMode

Result = TypeVar("Result")


class _EveryModule:
    """Stands in for torch's tracker of modules, which cannot follow `torch.autograd.grad`."""

    parents: ClassVar[set[str]] = {"Global"}

    def __enter__(self) -> None:
        return None

    def __exit__(self, *error: object) -> None:
        return None


def count_flops(run: Callable[[], object]) -> int:
    """Floating-point operations of the matrix products of one run, counted by torch. The run is slower than usual."""
    counter = FlopCounterMode(display=False)
    counter.mod_tracker = _EveryModule()  # type: ignore[assignment]
    with counter:
        run()
    return int(counter.get_total_flops())


class Stopwatch:
    """Adds up seconds by phase. Before the clock is read, the device finishes its work.

    Attributes:
        wall: wall-clock seconds by phase.
        processor: processor seconds of all threads of this process. They do not grow if others use the machine.
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
        """Wall-clock seconds by phase and in `total`, and `processor` seconds."""
        return {**self.wall, "total": sum(self.wall.values()), "processor": self.processor}


def alternate(
    variants: Mapping[str, Callable[[Stopwatch], Result]],
    *,
    repeats: int,
    device: torch.device,
    say: Callable[[str], None],
) -> tuple[dict[str, Result], dict[str, dict[str, float]]]:
    """Run all variants in turn, `repeats` times, every other time in reverse order.

    So a change in the speed of the machine affects all of them.

    Args:
        say: is called with a line of text after each run.

    Returns:
        By variant, the result of its last run, and its lap (see `Stopwatch.lap`) with medians over the repeats.
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
