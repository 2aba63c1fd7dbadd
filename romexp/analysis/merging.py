"""Merges the rows of several runs of one configuration, such as shards or runs with different limits."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from romexp.analysis.stored_results import Place, StoredResults
from romexp.analysis.summary import case_record
from romexp.errors import DataError
from romexp.results.find import FoundRun
from romexp.results.rows import CaseResult, rows_with_places

TOLERANCE = 1e-2
"""Two measurements of a case agree if their NLLs differ by at most this, absolutely (in nats) or relatively.

It is far above the rounding differences between batches or devices, and far below the effect of another model or edit.
"""


@dataclass(frozen=True, kw_only=True)
class Merged:
    """Rows of one configuration.

    Attributes:
        runs: the runs that have usable rows, in order of time.
        results: each case once, in order of case id. If several runs have a case, it comes from the latest of them.
        problems: a message for each file or row that could not be used, and for each run that disagrees with another.
    """

    runs: tuple[FoundRun, ...]
    results: StoredResults
    problems: tuple[str, ...]


def merge(runs: Sequence[FoundRun]) -> Merged:
    """Read the rows of all runs and merge them. Only their metrics and their places on disk are kept in memory."""
    ordered = sorted(runs, key=lambda run: (run.finished_at, str(run.path)))
    results: dict[int, Place] = {}
    used: list[FoundRun] = []
    problems: list[str] = []
    for run in ordered:
        try:
            found = _usable(run, problems)
        except DataError as error:
            problems.append(str(error))
            continue
        both = [number for number in found if number in results]
        differing = [number for number in both if not agree(results[number].result(), found[number].result())]
        if differing:
            problems.append(
                f"{run.path}: {len(differing)} cases differ from those of {', '.join(str(u.path) for u in used)}, of "
                f"the same configuration (the first is case {differing[0]}); the later run counts"
            )
        results.update(found)
        used += [run] if found else []
    in_order = [results[number] for number in sorted(results)]
    return Merged(runs=tuple(used), results=StoredResults.at(in_order), problems=tuple(problems))


def agree(one: CaseResult, other: CaseResult) -> bool:
    """Whether two results of a case are equal up to `TOLERANCE`. Generated texts are not compared."""
    ours, theirs = list(_numbers(one)), list(_numbers(other))
    return len(ours) == len(theirs) and all(map(_close, ours, theirs))


def _close(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=TOLERANCE, abs_tol=TOLERANCE)


def _numbers(result: CaseResult) -> Iterator[float]:
    """All NLLs of a case, and for zsRE the correctness of all tokens, in a fixed order."""
    for measured in (result.before or {}, result.after or {}):
        for key in sorted(key for key in measured if key.endswith("_prompts")):
            for pair in measured[key]:
                yield from (math.inf if nll is None else float(nll) for nll in pair)
        for key in sorted(key for key in measured if key.endswith("_prompts_correct")):
            yield from (float(right) for right in measured[key])


def _usable(run: FoundRun, problems: list[str]) -> dict[int, Place]:
    """The places of the results for which metrics can be computed, by case id. Of two rows of a case the later counts.

    For each other row, a message is added to `problems`.

    Raises:
        DataError: the file does not consist of rows.
    """
    path = run.path / "cases.jsonl"
    usable: dict[int, Place] = {}
    faults: dict[int, str] = {}
    for position, length, row in rows_with_places(path):
        number = row["case_id"]
        for known in (usable, faults):
            known.pop(number, None)
        try:
            result = CaseResult.from_json(row)
            metrics = case_record(result)
        except (DataError, TypeError, ValueError, AttributeError, OverflowError) as error:
            faults[number] = f"{path}, case {number}: not a row of measurements ({error})"
        else:
            usable[number] = Place(
                path=path, position=position, length=length, before=result.before is not None, metrics=metrics
            )
    problems += faults.values()
    return usable
