"""Single edits that disable a model, by editor: how many there are, and which (docs/method.md §13.6)."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import pandas as pd

from romexp.analysis.disabling import FAR, edit_signs, with_flags
from romexp.analysis.studies import Entry, Study
from romexp.reporting.tables.model import Block, Cell, Column, Line, ReportTable

CAPTION = (
    "‖ΔW‖: Frobenius norm of an edit. Entropy: normalized word entropy of the texts that the edited model writes. "
    f"Large, poor: more than {FAR:g} robust standard deviations above the median, of ln ‖ΔW‖ and of the fall of the "
    "entropy. Disabling: both (without texts: large)."
)
COLUMNS = ("Edits", "‖ΔW‖ median", "‖ΔW‖ largest", "Entropy median", "Entropy lowest", "Large", "Poor", "Disabling")
MOST_NAMED = 10


def disabling_report(studies: Sequence[Study]) -> ReportTable:
    """One block for each study that has rows with ‖ΔW‖, and in it a line for each editor with such rows."""
    blocks, records = [], []
    for study in studies:
        flagged = [(entry, with_flags(signs)) for entry, signs in _with_signs(study)]
        if flagged:
            lines = tuple(_line(study, entry, signs) for entry, signs in flagged)
            remarks = tuple(remark for entry, signs in flagged for remark in _named(entry, signs))
            blocks.append(Block(title=study.label, lines=lines, remarks=remarks))
            records += [record for entry, signs in flagged for record in _records(study, entry, signs)]
    columns = (Column(name="Editor", numeric=False), *(Column(name=name) for name in COLUMNS))
    return ReportTable(
        name="disabling",
        title="Edits that disable the model",
        columns=columns,
        blocks=tuple(blocks),
        caption=CAPTION,
        records=tuple(records),
    )


def _with_signs(study: Study) -> Iterator[tuple[Entry, pd.DataFrame]]:
    for entry in study.entries:
        signs = edit_signs(entry.results)
        if signs["update"].notna().any():
            yield entry, signs


def _line(study: Study, entry: Entry, signs: pd.DataFrame) -> Line:
    update, entropy = signs["update"], signs["entropy"]
    values = (
        (f"{len(signs)}", len(signs)),
        *((f"{value:.3g}", value) for value in (update.median(), update.max())),
        *((f"{value:.3f}", value) if value == value else ("–", None) for value in (entropy.median(), entropy.min())),
        *((f"{int(signs[name].sum())}", int(signs[name].sum())) for name in ("large", "poor", "disabling")),
    )
    cells = (Cell(text=entry.label), *(Cell(text=text, value=value) for text, value in values))
    return Line(cells=cells, model=study.model, dataset=study.dataset, editors=(entry.label,))


def _named(entry: Entry, signs: pd.DataFrame) -> list[str]:
    """The disabling edits by name, the largest first."""
    found = signs[signs["disabling"]].sort_values("update", ascending=False)
    if found.empty:
        return []
    shown = [
        f"case {row.case_id} ({row.subject}, ‖ΔW‖ {row.update:.3g})" for row in found.head(MOST_NAMED).itertuples()
    ]
    more = f" and {len(found) - MOST_NAMED} more" if len(found) > MOST_NAMED else ""
    return [f"{entry.label}: disabling: {', '.join(shown)}{more}"]


def _records(study: Study, entry: Entry, signs: pd.DataFrame) -> Iterator[dict[str, Any]]:
    for row in signs.to_dict(orient="records"):
        yield {"study": study.label, "editor": entry.label, **{str(key): value for key, value in row.items()}}
