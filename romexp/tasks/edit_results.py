"""The results of `task=edit` in a run's folder: usable rows, and the files that are made from them."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from safetensors import SafetensorError

from romexp.analysis.summary import SIDES, Summary, case_frame, scale_of, summarize_frame
from romexp.analysis.summary_check import is_summary
from romexp.edit_batch import MeasuredEdit
from romexp.editors.base import Editor
from romexp.errors import DataError
from romexp.lm.saved_edit import ModelOrigin, SavedEdit
from romexp.lm.tensor_files import stored_metadata
from romexp.results.folder import RunFolder
from romexp.results.identity import fingerprint
from romexp.results.rows import CaseResult, Row, edit_row_fault

log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class EditResults:
    """The results in one folder.

    Attributes:
        folder: the folder.
        with_deltas: whether every case must have a file of its delta.
        seed: seed of the bootstrap for S.
        not_tuned: the editor's settings that are another model's; the summary names them.
    """

    folder: RunFolder
    with_deltas: bool
    seed: int
    not_tuned: Sequence[str] = ()

    def fault(self, row: Row) -> str:
        """Why a row does not count as that of a finished case; empty if it does."""
        if reason := edit_row_fault(row):
            return reason
        return self._delta_fault(row["case_id"]) if self.with_deltas else ""

    def _delta_fault(self, case_id: int) -> str:
        if not (file := self.folder.delta(case_id)).is_file():
            return "its delta is missing"
        try:
            stored_metadata(file)
        except (OSError, SafetensorError):
            return "its delta is damaged"
        return ""

    def cases(self) -> list[CaseResult]:
        """The results of the rows that count, in file order."""
        return [CaseResult.from_json(row) for row in self.folder.rows() if not self.fault(row)]

    def write_summary(self, results: list[CaseResult]) -> tuple[Summary, pd.DataFrame]:
        """Write `cases.parquet` and `summary.json`; return the summary, and the metrics by case."""
        frame = case_frame(results)
        summary = summarize_frame(frame, seed=self.seed)
        if self.not_tuned:
            summary["settings_not_tuned"] = list(self.not_tuned)
        self.folder.write_parquet(frame)
        self.folder.write("summary", summary)
        return summary, frame

    def kept_summary(self) -> Summary:
        """The summary of a finished run. If it or `cases.parquet` is missing or damaged, both are made again."""
        results = self.cases()
        with suppress(DataError):
            summary = self.folder.read("summary")
            if summary and is_summary(summary, count=len(results)) and self.folder.has_parquet_of(len(results)):
                return summary
        log.warning("%s: its summary or cases.parquet is missing or damaged: made again from rows", self.folder.path)
        return self.write_summary(results)[0]


def save_edit(measured: MeasuredEdit, editor: Editor, model: ModelOrigin, file: Path) -> None:
    """Write one edit, with all that says what it is for."""
    result = measured.result
    SavedEdit(
        delta=measured.delta,
        request=result.request,
        method=editor.name,
        settings=fingerprint(editor),
        model=model,
        case_id=result.case_id,
    ).save(file)


def tracked_table(results: Sequence[CaseResult], frame: pd.DataFrame) -> tuple[list[str], list[list[Any]]]:
    """Columns and cells of the tracker's table, which has one line for each case: its request, metrics and texts.

    Metrics are scaled as in the summary: scores are × 100.
    """
    by_id = {result.case_id: result for result in results}
    cases = [by_id[case_id] for case_id in frame["case_id"].tolist()]
    columns: dict[str, list[Any]] = {
        "case_id": [case.case_id for case in cases],
        "subject": [case.request.subject for case in cases],
        "prompt": [case.request.text for case in cases],
        "target_true": [case.request.target_true for case in cases],
        "target_new": [case.request.target_new for case in cases],
    }
    for name in frame.columns:
        if name not in ("case_id", "complete"):
            scaled = frame[name] * scale_of(name.partition("/")[2])
            columns[name] = scaled.astype(object).where(frame[name].notna(), None).tolist()
    for side in SIDES:
        texts = ["\n\n".join((case.measured(side) or {}).get("text") or ()) for case in cases]
        if any(texts):
            columns[f"{side}/text"] = texts
    return list(columns), [list(row) for row in zip(*columns.values(), strict=True)]
