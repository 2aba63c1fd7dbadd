"""Several runs of one configuration as one set of rows: shards, other limits, a study done in two goes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from romexp.analysis.metrics import case_metrics
from romexp.errors import DataError
from romexp.results.find import FoundRun
from romexp.results.rows import CaseResult

TOLERANCE = 1e-2
"""Two measurements of a case agree if their NLLs differ by less than this, absolutely or relatively.

Well above the rounding of other batches or devices, well below what another model or edit does.
"""


@dataclass(frozen=True, kw_only=True)
class Merged:
    """Rows of one configuration.

    Attributes:
        runs: the runs that gave rows, in order of time.
        results: every case once, by case id; where runs have the same case the latest run counts.
        problems: a line for each file or row that could not be used, and for runs that disagree.
    """

    runs: tuple[FoundRun, ...]
    results: tuple[CaseResult, ...]
    problems: tuple[str, ...]


def merge(runs: Sequence[FoundRun]) -> Merged:
    """Read the runs and put their rows together."""
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
        unlike = [each.case_id for each in found if each.case_id in results and not agree(results[each.case_id], each)]
        if unlike:
            problems.append(
                f"{run.path}: {len(unlike)} cases differ from those of {', '.join(str(u.path) for u in used)}, of the "
                f"same configuration (the first is case {unlike[0]}); the later run counts"
            )
        results.update((each.case_id, each) for each in found)
        used += [run] if found else []
    in_order = tuple(results[case_id] for case_id in sorted(results))
    return Merged(runs=tuple(used), results=in_order, problems=tuple(problems))


def agree(one: CaseResult, other: CaseResult) -> bool:
    """Whether two results of a case say the same, up to rounding. Generated texts are not compared."""
    ours, theirs = list(_numbers(one)), list(_numbers(other))
    return len(ours) == len(theirs) and all(map(_close, ours, theirs))


def _close(one: float, other: float) -> bool:
    return math.isclose(one, other, rel_tol=TOLERANCE, abs_tol=TOLERANCE)


def _numbers(result: CaseResult) -> Iterator[float]:
    """Every NLL of a case, and for zsRE every token's success, in one order."""
    for measured in (result.before or {}, result.after or {}):
        for key in sorted(key for key in measured if key.endswith("_prompts")):
            for pair in measured[key]:
                yield from (math.inf if nll is None else float(nll) for nll in pair)
        for key in sorted(key for key in measured if key.endswith("_prompts_correct")):
            yield from (float(right) for right in measured[key])


def _usable(run: FoundRun, problems: list[str]) -> Iterator[CaseResult]:
    """Results that metrics can be taken of; the other rows are named.

    Raises:
        DataError: the file is not one of rows.
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
