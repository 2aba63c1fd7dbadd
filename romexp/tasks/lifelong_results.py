"""The results of `task=lifelong` in a run's folder: usable rows, and the files that are made from them."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from romexp.analysis.lifelong import lifelong_frame, summarize_lifelong
from romexp.analysis.summary import Summary
from romexp.errors import DataError
from romexp.results.rows import Row, edit_row_fault
from romexp.tasks.edit_results import EditResults
from romexp.tasks.lifelong_watch import watched_curves

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class LifelongResults(EditResults):
    """The results in one folder. A case has a row for each time at which it was measured; deltas are kept by step."""

    def fault(self, row: Row) -> str:
        """Why a row does not count; empty if it does."""
        return edit_row_fault(row)

    def write_sequence(self, rows: Sequence[Row], *, stopped: Mapping[str, Any] | None) -> Summary:
        """Write `cases.parquet` and `summary.json`; return the summary.

        Args:
            stopped: after how many edits a sequence ended early, and why.
        """
        frame = lifelong_frame(rows)
        summary = summarize_lifelong(frame, seed=self.seed)
        summary["watch"] = watched_curves(self.folder.path).rows()
        if stopped:
            summary["stopped"] = dict(stopped)
        if self.not_tuned:
            summary["settings_not_tuned"] = list(self.not_tuned)
        self.folder.write_parquet(frame)
        self.folder.write("summary", summary)
        return summary

    def kept_summary(self) -> Summary:
        """The summary of a finished run. If it or `cases.parquet` is missing or damaged, both are made again."""
        rows = self.folder.rows()
        with suppress(DataError):
            summary = self.folder.read("summary")
            if summary and _is_sequence(summary, rows) and self.folder.has_parquet_of(len(rows)):
                return summary
        log.warning("%s: its summary or cases.parquet is missing or damaged: made again from rows", self.folder.path)
        return self.write_sequence(rows, stopped=(self.folder.read("manifest") or {}).get("stopped"))


def _is_sequence(summary: Mapping[str, Any], rows: Sequence[Row]) -> bool:
    """Whether a summary has the parts of `summarize_lifelong`, and is of as many cases as the rows are."""
    numbers = [summary.get(name) for name in ("n_cases", "n_failed", "n_edits")]
    parts = [summary.get(name) for name in ("pre", "final")]
    if not all(isinstance(n, int) for n in numbers) or not all(isinstance(part, dict) for part in parts):
        return False
    return bool(summary["n_cases"] + summary["n_failed"] == len({row["case_id"] for row in rows}))
