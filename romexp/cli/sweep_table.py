"""What a sweep prints at its end: one table of all jobs' main numbers, the failures, where things lie."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from romexp.analysis.summary import UNEDITED
from romexp.cli.sweep import Sweep, SweepJob, results_root
from romexp.errors import DataError
from romexp.reporting.tables.run import TableRow, rich_table
from romexp.results.folder import RunFolder

Labelled = tuple[str, Mapping[str, Any]]
"""The overrides that set a job apart, and what it found."""


def sweep_tables(jobs: Sequence[SweepJob]) -> list[Table]:
    """One table for the jobs that edited and one for those that did something else, as far as there are results.

    Cells are means with 95 % half-widths; a row is named by the overrides in which the jobs differ.
    """
    edits: list[Labelled] = []
    others: list[Labelled] = []
    for job in jobs:
        summary = _summary(job)
        if "pre" in summary or "post" in summary:
            edits.append((job.label, summary))
        elif numbers := _numbers(summary):
            others.append((job.label, numbers))
    return [*([_edit_table(edits)] if edits else []), *([_number_table(others)] if others else [])]


def closing_lines(sweep: Sweep, jobs: Sequence[SweepJob]) -> list[str]:
    """Where the results and the sweep's own record lie."""
    root = results_root(jobs)
    return [*([f"results: {root}"] if root else []), f"sweep: {sweep.folder}"]


def failure_lines(jobs: Sequence[SweepJob]) -> list[str]:
    """How many failed, a line for each, how many were not run, and what to do; empty if all are done."""
    failed = [job for job in jobs if job.record and job.exit_status]
    left = sum(job.record is None for job in jobs)
    if not failed and not left:
        return []
    counts = [f"{len(failed)} of {len(jobs)} jobs failed"] if failed else []
    counts += [f"{left} of {len(jobs)} not run"] if left else []
    head = f"{', '.join(counts)}; the same command again does only what is missing"
    return [head, *(f"  {job.label or f'job {job.number}'}: {job.failure}" for job in failed)]


def _edit_table(summaries: Sequence[Labelled]) -> Table:
    befores = [summary.get("pre", {}) for _, summary in summaries]
    rows = [TableRow(label=label, metrics=summary.get("post", {})) for label, summary in summaries]
    if all(before == befores[0] for before in befores):  # the same unedited model, measured once
        rows.insert(0, TableRow(label=UNEDITED, metrics=befores[0], edited=False))
    counts = sorted({summary.get("n_cases", 0) for _, summary in summaries})
    shown = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return rich_table(rows, title=f"{len(summaries)} jobs, {shown} cases each (95 % half-width)", heading="Job")


def _number_table(numbers: Sequence[Labelled]) -> Table:
    table = Table(title=f"{len(numbers)} jobs")
    names = list(dict.fromkeys(name for _, values in numbers for name in values))
    table.add_column("Job", no_wrap=True)
    for name in names:
        table.add_column(name, justify="right", no_wrap=True)
    for label, values in numbers:
        table.add_row(Text(label), *(f"{values[name]:.4g}" if name in values else "–" for name in names))
    return table


def _numbers(summary: Mapping[str, Any]) -> dict[str, float]:
    """A summary's single numbers, and the means of its statistics."""
    found: dict[str, float] = {}
    for name, value in summary.items():
        number = value.get("mean") if isinstance(value, Mapping) else value
        if isinstance(number, (int, float)) and not isinstance(number, bool):
            found[name] = float(number)
    return found


def _summary(job: SweepJob) -> dict[str, Any]:
    """What the job's folder says at its end; empty where there is nothing to read."""
    if job.record is None or job.record.status != "done" or not job.record.results:
        return {}
    try:
        return RunFolder(Path(job.record.results)).read("summary") or {}
    except DataError:
        return {}
