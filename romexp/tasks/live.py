"""What a tracker is told while a run goes on: running means, and the losses of a sample of edits."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pandas as pd

from romexp.analysis.lifelong import lifelong_frame
from romexp.analysis.localization import flatten_localization, localization_summary
from romexp.analysis.running import running_means, running_sequence
from romexp.analysis.summary import case_record
from romexp.analysis.traces import Pooling, flatten_trace, trace_summary, traced
from romexp.results.rows import CaseResult, Row
from romexp.seeds import derive_seed
from romexp.tracking import TrackedRun

LOSS = "loss"
"""The chart of losses, and the name of the editor's diagnostic that holds them."""


def sample_of(ids: Iterable[int], size: int, *, seed: int) -> frozenset[int]:
    """The cases that a tracker shows by themselves. It depends on the set of ids and the seed, not on their order."""
    return frozenset(sorted(ids, key=lambda number: derive_seed(seed, number, "tracked case"))[:size])


def report_losses(tracked: TrackedRun, rows: Sequence[Row], sample: Collection[int]) -> None:
    """Show the losses by step of the optimizer, of those rows that are in the sample and have such losses.

    They are those of v* (ROME) or z (MEMIT and its relatives), and FT's.
    """
    chosen = {str(row["case_id"]): row.get("edit") or {} for row in rows if row["case_id"] in sample}
    lines = {name: _numbers(edit[LOSS]) for name, edit in chosen.items() if isinstance(edit.get(LOSS), list)}
    if lines := {name: line for name, line in lines.items() if line}:
        tracked.lines(LOSS, lines, axis="optimizer_step")


def _numbers(values: Sequence[Any]) -> list[float]:
    return [float("nan") if value is None else float(value) for value in values]


@dataclass(kw_only=True)
class LiveCases:
    """Reports a run of `task=edit` batch by batch. The step of its points is the number of cases with a result.

    Attributes:
        tracked: the tracker's run.
        sample: the cases whose losses are shown.
        records: what `case_record` makes of the cases that were finished before.
    """

    tracked: TrackedRun
    sample: Collection[int]
    records: list[Mapping[str, Any]] = field(default_factory=list)

    def __call__(self, rows: Sequence[Row]) -> None:
        """Report a batch, whose rows are on disk."""
        if not rows:
            return
        self.records += [case_record(CaseResult.from_json(row)) for row in rows]
        count, means = running_means(self.records)
        self.tracked.log(means, step=count, axis="n_cases")
        report_losses(self.tracked, rows, self.sample)


@dataclass(kw_only=True)
class LiveSequence:
    """Reports a run of `task=lifelong` step by step. The step of its points is the number of edits.

    Attributes:
        tracked: the tracker's run.
        sample: the cases whose losses are shown.
        earlier: rows of earlier sessions.
    """

    tracked: TrackedRun
    sample: Collection[int]
    earlier: Sequence[Row] = ()

    def __post_init__(self) -> None:
        self._seen: pd.DataFrame | None = lifelong_frame(self.earlier) if self.earlier else None

    def __call__(self, rows: Sequence[Row], *, edits: int, is_checkpoint: bool) -> None:
        """Report a step.

        Args:
            rows: all rows that were measured after it.
            edits: number of edits after it.
            is_checkpoint: whether they are the rows of all cases edited so far.
        """
        if not rows:
            return
        frame = lifelong_frame(rows)
        both = frame if self._seen is None else pd.concat([self._seen, frame], ignore_index=True)
        self._seen = both[both["complete"].astype(bool)].drop_duplicates("case_id")
        means = running_sequence(self._seen, frame if is_checkpoint else None, edits=edits)
        self.tracked.log(means, step=edits, axis="edits")
        report_losses(self.tracked, [row for row in rows if row["edited_at"] == row["measured_at"]], self.sample)


@dataclass(kw_only=True)
class LiveFacts:
    """Reports a run of `task=trace` batch by batch. The step of its points is the number of facts with a result.

    Attributes:
        tracked: the tracker's run.
        pooling: how averages are taken; None for traces of nodes, of which only the facts are counted.
        rows: of the facts that were finished before.
    """

    tracked: TrackedRun
    pooling: Pooling | None
    rows: list[Row]

    def __call__(self, rows: Sequence[Row]) -> None:
        """Report a batch, whose rows are on disk."""
        if not rows:
            return
        self.rows += rows
        n = len(traced(self.rows))
        values: dict[str, float] = {"n": n, "n_incorrect": len(self.rows) - n}
        if self.pooling is not None:
            values = flatten_trace(trace_summary(self.rows, pooling=self.pooling))
        means = {name: value for name, value in values.items() if not name.endswith("half_width")}
        self.tracked.log(means, step=len(self.rows), axis="n_facts")


@dataclass(kw_only=True)
class LiveLocalization:
    """Reports a run of `task=localization` batch by batch. The step of its points is the number of facts with a result.

    Attributes:
        tracked: the tracker's run.
        rows: of the facts that were finished before.
    """

    tracked: TrackedRun
    rows: list[Row]

    def __call__(self, rows: Sequence[Row]) -> None:
        """Report a batch, whose rows are on disk."""
        self.rows += rows
        shown = rows and self.tracked.location  # The regressions take a second, and without a tracker nobody sees them.
        if shown and any(row["correct_prediction"] for row in self.rows):
            values = flatten_localization(localization_summary(self.rows))
            self.tracked.log(values, step=int(values.pop("n_facts")), axis="n_facts")
