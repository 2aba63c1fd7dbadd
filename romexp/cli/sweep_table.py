"""What a sweep prints at its end: tables of its jobs' main numbers, the failures, and the paths of the results."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from rich.table import Table

from romexp.analysis.summary import UNEDITED
from romexp.cli.progress import duration
from romexp.cli.sweep import Sweep, SweepJob, results_root
from romexp.errors import DataError
from romexp.reporting.tables.fitting import FittingTable
from romexp.reporting.tables.run import TableRow, rich_table
from romexp.reporting.terminal import literal
from romexp.results.folder import RunFolder

Labelled = tuple[str, Mapping[str, Any]]
"""The overrides in which a job differs from the others, and its summary."""


def sweep_tables(jobs: Sequence[SweepJob]) -> list[Table]:
    """One table for the jobs that edited and one for all other jobs. Jobs without results are left out.

    Cells are means with the reach of their 95 % intervals. The label of a row is the overrides in which jobs differ.
    """
    edits: list[Labelled] = []
    others: list[Labelled] = []
    for job in jobs:
        summary = _summary(job)
        if "pre" in summary or _edited(summary):
            edits.append((job.label, summary))
        elif numbers := _numbers(summary):
            others.append((job.label, numbers))
    return [*([_edit_table(edits)] if edits else []), *([_number_table(others)] if others else [])]


def closing_lines(sweep: Sweep, jobs: Sequence[SweepJob]) -> list[str]:
    """Lines with what a search has found, the folder of the results and the folder of the sweep's records."""
    root = results_root(jobs)
    return [*(_left(jobs) or _found(sweep.folder)), *([f"results: {root}"] if root else []), f"sweep: {sweep.folder}"]


def _found(folder: Path) -> list[str]:
    """What a sweeper that searches has written about the best jobs: one line, or one for each of several objectives'
    best compromises."""
    file = folder / "optimization_results.yaml"
    if not file.is_file():
        return []
    found: Any = OmegaConf.to_container(OmegaConf.load(file))
    if "best_params" in found:
        return [f"best: {_settings(found['best_params'])}: objective {found['best_value']:.4g}"]
    return [
        f"best: {_settings(each['params'])}: objectives {', '.join(f'{value:.4g}' for value in each['values'])}"
        for each in found.get("solutions", ())
    ]


def _left(jobs: Sequence[SweepJob]) -> list[str]:
    """What is left of a sweep that was only planned (`dry_run`)."""
    planned = [job.record for job in jobs if job.record and job.record.cases_left is not None]
    if not planned:
        return []
    cases = sum(record.cases_left or 0 for record in planned)
    known = [record.seconds_left for record in planned if record.seconds_left is not None]
    more = "" if len(known) == len(planned) else f" and {len(planned) - len(known)} jobs of unknown duration"
    return [f"in all: {len(planned)} jobs, {cases:,} cases left, one after the other {duration(sum(known))}{more}"]


def _settings(values: Mapping[str, Any]) -> str:
    return " ".join(f"{name}={value}" for name, value in values.items())


def failure_lines(jobs: Sequence[SweepJob]) -> list[str]:
    """One line with the numbers of failed jobs and of jobs not run, and one for each failure; empty if all are done."""
    failed = [job for job in jobs if job.record and job.exit_status]
    not_run = sum(job.record is None for job in jobs)
    if not failed and not not_run:
        return []
    counts = [f"{len(failed)} of {len(jobs)} jobs failed"] if failed else []
    counts += [f"{not_run} of {len(jobs)} not run"] if not_run else []
    head = f"{', '.join(counts)}; the same command again does only what is missing"
    return [head, *(f"  {job.label or f'job {job.number}'}: {job.failure}" for job in failed)]


def _edit_table(summaries: Sequence[Labelled]) -> Table:
    unedited = [summary.get("pre", {}) for _, summary in summaries]
    rows = [
        TableRow(label=label, metrics=_edited(summary), not_tuned=summary.get("settings_not_tuned", ()))
        for label, summary in summaries
    ]
    if all(before == unedited[0] for before in unedited):  # all jobs have the same unedited model
        rows.insert(0, TableRow(label=UNEDITED, metrics=unedited[0], edited=False))
    counts = sorted({summary.get("n_cases", 0) for _, summary in summaries})
    shown = str(counts[0]) if len(counts) == 1 else f"{counts[0]} to {counts[-1]}"
    return rich_table(
        rows,
        title=f"{len(summaries)} jobs, {shown} {'case' if shown == '1' else 'cases'} each (95 % interval)",
        heading="Job",
    )


def _edited(summary: Mapping[str, Any]) -> Mapping[str, Any]:
    """What was measured on edited models: `post` of `task=edit`, `final` of `task=lifelong`."""
    found: Mapping[str, Any] = summary.get("post") or summary.get("final") or {}
    return found


def _number_table(numbers: Sequence[Labelled]) -> Table:
    table = FittingTable(title=f"{len(numbers)} jobs")
    names = list(dict.fromkeys(name for _, values in numbers for name in values))
    table.add_column("Job", no_wrap=True)
    for name in names:
        table.add_column(literal(name), justify="right", no_wrap=True)
    for label, values in numbers:
        table.add_row(literal(label), *(f"{values[name]:.4g}" if name in values else "–" for name in names))
    return table


def _numbers(summary: Mapping[str, Any]) -> dict[str, float]:
    """The numbers in a summary, and the means of its statistics."""
    found: dict[str, float] = {}
    for name, value in summary.items():
        number = value.get("mean") if isinstance(value, Mapping) else value
        if isinstance(number, (int, float)) and not isinstance(number, bool):
            found[name] = float(number)
    return found


def _summary(job: SweepJob) -> dict[str, Any]:
    """The summary in the job's result folder; empty if the job is not done or the folder has none."""
    if job.record is None or job.record.status != "done" or not job.record.results:
        return {}
    try:
        return RunFolder(Path(job.record.results)).read("summary") or {}
    except DataError:
        return {}
