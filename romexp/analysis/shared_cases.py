"""Cuts a study to the cases that its editors share, so that means are over the same cases (docs/method.md §6.2)."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Sequence
from dataclasses import replace

import numpy as np

from romexp.analysis.studies import Entry, Study

MOST_CANDIDATES = 200
"""Most sets of cases that are tried. They come from distinct sets, of which a study has a few."""

Cases = frozenset[int]


def measured_ids(entry: Entry) -> Cases:
    """Ids of the cases that were measured before and after the edit."""
    return frozenset(entry.results.ids[entry.results.complete].tolist())


def on_shared_cases(study: Study) -> Study:
    """The study over shared cases, with a note on what is left out; the same object if all entries have equal cases.

    An entry that lacks some of the shared cases keeps its own and is marked as `apart`: an attempt on a few cases does
    not shrink the comparison of all others. If no two entries have a case in common, all keep their own.
    """
    editing = [entry for entry in study.entries if entry.edits] or study.entries
    measured = {entry.label: measured_ids(entry) for entry in study.entries}
    if len(set(measured.values())) < 2:
        return study
    shared = shared_cases([measured[entry.label] for entry in editing])
    if not shared:
        entries = tuple(replace(entry, apart=True) for entry in study.entries)
        return replace(study, entries=entries, left_out=("no case is shared by two editors: each has its own",))
    entries = tuple(_cut(entry, shared, measured[entry.label]) for entry in study.entries)
    return replace(study, entries=entries, left_out=tuple(_notes(entries, shared, measured)))


def shared_cases(measured: Sequence[Cases]) -> Cases:
    """The cases to compare entries on; empty if no two entries share any.

    Of all intersections, it is the one with the largest (number of pairs of entries that have it) · √(number of cases):
    every pair is one comparison, whose precision grows with the root of the cases.

    Args:
        measured: the cases of each entry.
    """
    candidates = list(dict.fromkeys(measured))
    for one in candidates:  # the list grows: intersections of three or more come from those of two
        for other in tuple(candidates):
            both = one & other
            if both and both not in candidates and len(candidates) < MOST_CANDIDATES:
                candidates.append(both)

    def worth(cases: Cases) -> tuple[float, int]:
        count = sum(cases <= own for own in measured)
        return count * (count - 1) / 2 * math.sqrt(len(cases)), len(cases)

    best = max(candidates, key=worth, default=frozenset())
    return best if worth(best)[0] else frozenset()


def _cut(entry: Entry, shared: Cases, own: Cases) -> Entry:
    if not shared <= own:
        return replace(entry, apart=True)
    return replace(entry, results=entry.results.where(np.isin(entry.results.ids, list(shared))))


def _notes(entries: Iterable[Entry], shared: Cases, measured: dict[str, Cases]) -> list[str]:
    """What was left out, in words."""
    extra = {entry.label: len(measured[entry.label] - shared) for entry in entries if not entry.apart}
    apart = {entry.label: len(measured[entry.label]) for entry in entries if entry.apart}
    notes = []
    if left_out := _listed(extra):
        notes.append(f"compared on the {_cases(len(shared))} that these editors share; left out: {left_out}")
    if apart:
        own = "; ".join(f"{label} with {_cases(count)}" for label, count in apart.items())
        notes.append(f"not compared, since its cases are others: {own}; the others share {_cases(len(shared))}")
    return notes


def _listed(counts: dict[str, int]) -> str:
    """A text such as `100 more of ROME; 20 more of FT, KN`; entries without more cases are not named."""
    by_count: dict[int, list[str]] = {}
    for label, count in counts.items():
        if count:
            by_count.setdefault(count, []).append(label)
    return "; ".join(f"{count} more of {_names(labels)}" for count, labels in by_count.items())


def _names(labels: Collection[str]) -> str:
    return ", ".join(labels)


def _cases(count: int) -> str:
    return f"{count} case{'' if count == 1 else 's'}"
