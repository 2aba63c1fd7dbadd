"""The rows and the summary of a trace in its folder (docs/method.md §11.2)."""

from __future__ import annotations

import json
from contextlib import suppress
from typing import Any

from romexp.analysis.traces import Pooling, trace_summary
from romexp.errors import DataError
from romexp.results.folder import RunFolder
from romexp.results.rows import Row
from romexp.results.trace_rows import trace_row_fault


def rows_in(folder: RunFolder) -> list[Row]:
    """The rows that count, in file order."""
    return [row for row in folder.rows() if not trace_row_fault(row)]


def kept_summary(folder: RunFolder, *, pooling: Pooling) -> dict[str, Any] | None:
    """The summary of a finished run; None if it is missing, or is not what its rows give."""
    with suppress(DataError):
        summary = folder.read("summary")
        # Averages are quick to make, so they are compared as a whole; as texts, in which NaN equals NaN.
        made = trace_summary(rows_in(folder), pooling=pooling)
        if json.dumps(summary, sort_keys=True) == json.dumps(made, sort_keys=True):
            return summary
    return None
