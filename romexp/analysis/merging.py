"""Merges the rows of several runs of one configuration, such as shards or runs with different limits."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from romexp.analysis.metrics import case_metrics
from romexp.errors import DataError
from romexp.results.find import FoundRun
from romexp.results.rows import CaseResult

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
    results: tuple[CaseResult, ...]
    problems: tuple[str, ...]


def merge(runs: Sequence[FoundRun]) -> Merged:
    """Read the rows of all runs and merge them."""
    ordered = sorted(runs, key=lambda run: (run.finished_at, str(run.path)))
    results: dict[int, CaseResult] = {}
    used: list[FoundRun] = []
    problems: list[str] = []
    for run in ordered:
        try:
            found = list(_usable(run, problems))
        except DataError as error:
            problems.append(str(error))
            continue
        differing = [new.case_id for new in found if new.case_id in results and not agree(results[new.case_id], new)]
        if differing:
            problems.append(
                f"{run.path}: {len(differing)} cases differ from those of {', '.join(str(u.path) for u in used)}, of "
                f"the same configuration (the first is case {differing[0]}); the later run counts"
            )
        results.update((result.case_id, result) for result in found)
        used += [run] if found else []
    in_order = tuple(results[case_id] for case_id in sorted(results))
    return Merged(runs=tuple(used), results=in_order, problems=tuple(problems))


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


def _usable(run: FoundRun, problems: list[str]) -> Iterator[CaseResult]:
    """The results for which metrics can be computed. For each other row, a message is added to `problems`.

    Raises:
        DataError: the file does not consist of rows.
    """
    for row in run.rows():
        try:
            result = CaseResult.from_json(row)
            for measured in (result.before, result.after):
                case_metrics(measured or {})
        except (DataError, TypeError, ValueError, AttributeError, OverflowError) as error:
            problems.append(f"{run.path / 'cases.jsonl'}, case {row['case_id']}: not a row of measurements ({error})")
        else:
            yield result
