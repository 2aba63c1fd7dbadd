"""What a reader must know about the rows of a study: cases that are not shared, settings that are another model's."""

from __future__ import annotations

from collections.abc import Sequence

from romexp.analysis.studies import Entry, Study
from romexp.reporting.tables.model import NOT_TUNED, NOT_TUNED_MARK
from romexp.results.settings import shown_value

APART = "other cases"


def remarks(study: Study) -> list[str]:
    """Notes on the study as a whole, as far as its rows need any."""
    return [*study.left_out, *not_tuned_notes(study.entries)]


def not_tuned_notes(entries: Sequence[Entry]) -> list[str]:
    """One note that names the settings of each marked row; none if no row is marked."""
    marked = []
    for entry in entries:
        if entry.not_tuned:
            values = ", ".join(f"{name}={shown_value(value)}" for name, value in entry.not_tuned.items())
            marked.append(f"{entry.label} ({values})")
    return [f"{NOT_TUNED_MARK} {NOT_TUNED}: {'; '.join(marked)}"] if marked else []


def shown_label(entry: Entry) -> str:
    """The label of an entry's row, with its marks."""
    return mark(entry.label, entry) + (f", {APART}" if entry.apart else "")


def mark(label: str, entry: Entry) -> str:
    """A label of an entry, marked if the entry's settings are another model's."""
    return f"{label} {NOT_TUNED_MARK}" if entry.not_tuned else label
