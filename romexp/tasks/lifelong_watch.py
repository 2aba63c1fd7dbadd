"""The collapse watch of a run of `task=lifelong`: points of `curves.jsonl`, and when to stop (docs/method.md §13.4)."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from romexp.evaluation.collapse import CollapseWatch, Signs, Watcher
from romexp.lm.model import LanguageModel
from romexp.lm.weight_delta import WeightDelta
from romexp.results.rows import Curves
from romexp.tasks.run import Run
from romexp.tracking import TrackedRun

CURVES = "curves.jsonl"


def watched_curves(folder: Path) -> Curves:
    """The signs of collapse of a run: a point at 0 edits and one at each checkpoint; `step` is the number of edits."""
    return Curves(path=folder / CURVES)


@dataclass(kw_only=True)
class WatchOfRun:
    """Watches the model of one run.

    Attributes:
        watch: the settings.
        run: the open run.
        lm: the original model.
        tracked: gets each point as it comes.
    """

    watch: CollapseWatch
    run: Run
    lm: LanguageModel
    tracked: TrackedRun

    @cached_property
    def _watcher(self) -> Watcher:
        return self.watch.watcher(self.lm, seed=self.run.job.seed)

    def look(self, edits: int, delta: WeightDelta) -> None:
        """Measure the model with so many edits. A point that a killed process has written is replaced."""
        start = time.perf_counter()
        signs = self._watcher.signs(delta)
        self.run.add_seconds(watch=time.perf_counter() - start)
        curves = watched_curves(self.run.folder.path)
        curves.cut(edits - 1)
        curves.append({"step": edits, **signs})
        self.tracked.log({f"watch/{name}": value for name, value in signs.items()}, step=edits, axis="edits")

    def reason_to_stop(self, edits: int) -> str:
        """Why the sequence must end after so many edits; empty if it goes on."""
        points: Mapping[int, Signs] = {int(p["step"]): p for p in watched_curves(self.run.folder.path).rows()}
        if edits not in points or 0 not in points:
            return ""
        return self.watch.stop.reason(points[0], points[edits])


def watch_lines(summary: Mapping[str, Any]) -> list[str]:
    """Lines that the command prints at the end: the signs before the first edit and after the last one."""
    points = summary.get("watch") or []
    if len(points) < 2:
        return []
    first, last = points[0], points[-1]
    said = [
        f"{label} {first[name]:.3g} → {last[name]:.3g}"
        for name, label in (("perplexity", "perplexity"), ("entropy", "word entropy"))
        if name in first and name in last
    ]
    if "hidden_shift" in last:
        said.append(f"hidden states shifted by {100 * last['hidden_shift']:.3g} %")
    changes = [value for name, value in last.items() if name.startswith("weight_change/")]
    if changes:
        said.append(f"‖ΔW‖/‖W‖ up to {max(changes):.3g}")
    lines = [f"texts about other things: {', '.join(said)}"] if said else []
    if stopped := summary.get("stopped"):
        lines.append(f"stopped after {stopped['edits']} edits: {stopped['reason']}")
    return lines
