"""Differences between two editors on the same cases, whose intervals are smaller than those of two separate means."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import pandas as pd

from romexp.analysis.intervals import interval_of
from romexp.analysis.metrics import SCORED
from romexp.analysis.studies import Entry, Study
from romexp.analysis.summary import Statistics, metric_statistics, score_difference
from romexp.reporting.tables.model import Block, Cell, Column, Line, ReportTable, metric_columns, statistic_cell
from romexp.reporting.tables.remarks import mark, not_tuned_notes

MOST_PAIRS = 45
"""With more pairs than this (ten entries have 45), each entry is compared only with the entry of the highest S."""

CAPTION = (
    "First minus second editor, on the cases that both have. In parentheses: how far the 95 % interval of the mean "
    "difference reaches, at most; for S the interval of a bootstrap over cases, the same for both. Bold: the interval "
    "excludes 0."
)


@dataclass(frozen=True, kw_only=True)
class Paired:
    """One pair of entries.

    Attributes:
        n: number of cases that both have.
        differences: statistics of first minus second by metric; those of S have an `interval`.
    """

    first: Entry
    second: Entry
    n: int
    differences: Mapping[str, Statistics]


def paired(first: Entry, second: Entry, *, seed: int = 0) -> Paired:
    """Compare two entries on their common cases.

    The interval of a mean difference is that of a mean (`metric_statistics`), taken over the differences by case; that
    of S resamples cases, both editors' together.

    Args:
        seed: seed of the bootstrap.
    """
    one, two = _after(first), _after(second)
    common = one.index.intersection(two.index)
    names = [name for name in one.columns if name in two.columns]
    a, b = one.loc[common, names], two.loc[common, names]
    differences: dict[str, Statistics] = {}
    for parts in SCORED:
        if len(common) and all(name in names for name in parts):
            whole = a[list(parts)].notna().all(axis=1) & b[list(parts)].notna().all(axis=1)
            values = [frame.loc[whole, list(parts)].to_numpy(dtype=float) for frame in (a, b)]
            if whole.any():
                differences["S"] = score_difference(*values, seed=seed)
    values_by_case = {name: (a[name] - b[name]).to_numpy(dtype=float) for name in names}
    differences |= metric_statistics(values_by_case, least_rate=-1.0)
    return Paired(first=first, second=second, n=len(common), differences=differences)


def pairs(study: Study, *, seed: int = 0) -> list[Paired]:
    """Compare every two entries of a study, or all with the best one if there are more than `MOST_PAIRS` pairs."""
    return [paired(first, second, seed=seed) for first, second in _chosen(study.entries)]


def paired_table(studies: Sequence[Study]) -> ReportTable:
    """A block for each study with at least two entries that have cases in common."""
    blocks, records = [], []
    names = tuple(dict.fromkeys(name for study in studies for name in study.columns if len(study.entries) > 1))
    for study in studies:
        found = [pair for pair in pairs(study) if pair.n]
        if not found:
            continue
        lines = tuple(_line(study, pair, names) for pair in found)
        notes = [f"each against {found[0].second.label}, whose S is highest"] if _too_many(study.entries) else []
        marked = tuple(not_tuned_notes(study.entries))
        blocks.append(Block(title=study.label, lines=lines, notes=tuple(notes), remarks=marked))
        records += [{"model": study.model, "study": study.label, **_record(pair, names)} for pair in found]
    return ReportTable(
        name="paired",
        title="Editors on the same cases",
        columns=(Column(name="Editors", numeric=False), Column(name="Cases"), *metric_columns(names)),
        blocks=tuple(blocks),
        caption=CAPTION,
        records=tuple(records),
    )


def _chosen(entries: Sequence[Entry]) -> Iterator[tuple[Entry, Entry]]:
    """Pairs of entries. The first one is later in the paper's table, so that ROME comes first in its pairs."""
    if not _too_many(entries):
        yield from ((second, first) for first, second in itertools.combinations(entries, 2))
        return
    best = max(entries, key=lambda entry: (entry.metrics.get("S") or {}).get("mean") or 0.0)
    yield from ((entry, best) for entry in entries if entry is not best)


def _too_many(entries: Sequence[Entry]) -> bool:
    return len(entries) * (len(entries) - 1) // 2 > MOST_PAIRS


def _after(entry: Entry) -> pd.DataFrame:
    """Metrics after the edit (cases × metrics) by case id, for complete cases only."""
    frame = entry.frame[entry.frame["complete"].astype(bool)].set_index("case_id")
    after = [name for name in frame.columns if name.startswith("post/")]
    return frame[after].rename(columns=lambda name: name.removeprefix("post/"))


def _line(study: Study, pair: Paired, names: Sequence[str]) -> Line:
    cells = [_cell(pair.differences.get(name)) for name in names]
    label = " − ".join(mark(entry.label, entry) for entry in (pair.first, pair.second))
    return Line(
        cells=(Cell(text=label), Cell(text=str(pair.n), value=float(pair.n)), *cells),
        model=study.model,
        dataset=study.dataset,
        editors=(pair.first.name, pair.second.name),
    )


def _cell(entry: Statistics | None) -> Cell:
    cell = statistic_cell(entry, sign=True)
    low, high = interval_of(entry or {})
    apart = low is not None and high is not None and (low > 0 or high < 0)
    return replace(cell, mark="strong") if apart else cell


def _record(pair: Paired, names: Sequence[str]) -> dict[str, object]:
    record: dict[str, object] = {"first": pair.first.label, "second": pair.second.label, "cases": pair.n}
    record["settings_not_tuned"] = ", ".join(e.label for e in (pair.first, pair.second) if e.not_tuned)
    for name in names:
        entry = pair.differences.get(name) or {}
        low, high = interval_of(entry)
        record |= {name: entry.get("mean"), f"{name}_low": low, f"{name}_high": high}
    return record
