"""`task=report`: makes the paper's tables and figures from results on disk (docs/method.md §5.7, §8)."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from romexp import __version__
from romexp.analysis.lifelong_studies import LifelongStudy, lifelong_studies
from romexp.analysis.published import TABLES, published_table
from romexp.analysis.shared_cases import on_shared_cases
from romexp.analysis.studies import Study, to_studies
from romexp.cli.job import Job, Outcome
from romexp.errors import ConfigError, DataError
from romexp.files import PART, read_json, write_text
from romexp.reporting.tables.disabling import disabling_report
from romexp.reporting.tables.latex import latex_document, to_latex
from romexp.reporting.tables.lifelong import lifelong_report
from romexp.reporting.tables.model import ReportTable
from romexp.reporting.tables.paired import paired_table
from romexp.reporting.tables.paper import belongs, paper_table
from romexp.reporting.tables.remarks import remarks
from romexp.reporting.tables.sweep import sweep_table
from romexp.reporting.tables.traces import TraceStudy, trace_report, trace_studies
from romexp.reporting.tables.writers import notes_and_commands, to_csv, to_markdown, to_rich
from romexp.results.find import FoundRun, find_runs
from romexp.results.identity import digest, file_digest
from romexp.tasks.paper_settings import PaperSettings
from romexp.tracking import WandbTracker

OTHER_TABLES = ("paired", "sweep", "traces", "lifelong", "disabling")
CHOICES = (*map(str, TABLES), *OTHER_TABLES, "all")
INDEX = "report.json"


@dataclass(frozen=True, kw_only=True)
class Report:
    """Make tables, figures and an HTML page from results. No model is needed, and the results are not changed.

    Attributes:
        results: folders to look for runs in, at any depth; None takes `outputs`.
        table: a table of the paper, `1`, `4`, `5` or `6`; `paired` for editors on the same cases; `sweep`; `traces`;
            `lifelong` for sequences of edits; `disabling` for single edits that damage the whole model; `all` or None
            for every table but `disabling` that there are results for.
        x: the setting on the x axis of a sweep, such as `editor.norm_constraint`; None lets
            `romexp.analysis.sweeps.sweep_axis` choose it.
        figures: draw figures.
        page: write `page.html`, which asks the network for nothing, and beside it a folder with further cases.
        wandb: make a Weights & Biases report.
        cases: `shared` compares the editors of a study on the cases that they share, and says what is left out; `own`
            shows each over all of its cases.
    """

    results: tuple[str, ...] | None = None
    table: int | str | None = None
    x: str | None = None
    figures: bool = True
    page: bool = False
    wandb: bool = False
    cases: Literal["shared", "own"] = "shared"

    def __post_init__(self) -> None:
        if self._chosen not in CHOICES:
            raise ConfigError(f"table: {self.table!r} is none of {', '.join(CHOICES)}")
        if self.cases not in ("shared", "own"):
            raise ConfigError(f"task.cases: {self.cases!r} is neither shared nor own")

    def __call__(self, job: Job) -> Outcome:
        """Read every run, and write the report into a folder of its own. The outcome holds the tables.

        Raises:
            RomexpError: there is no folder or no run to report on, or `output_dir` holds something else.
        """
        found = find_runs(job.roots(self.results))
        edits = to_studies(found.runs)
        traces, unusable = trace_studies(found.runs)
        sequences, unread = lifelong_studies(found.runs)
        problems = [*found.problems, *edits.problems, *unusable, *unread]
        tables = self._tables(edits.studies, traces, sequences, _suffix(job))
        if not tables:
            raise DataError(self._no_table_message(job, found.runs, problems))
        inputs = {"options": self._options(), "version": __version__, "runs": _inputs(found.runs)}
        folder = _folder(job, inputs)
        write_text(
            folder / INDEX, json.dumps({**inputs, "digest": digest(inputs), "problems": problems}, indent=2) + "\n"
        )
        for table in tables:
            write_text(folder / f"{table.name}.md", to_markdown(table))
            write_text(folder / f"{table.name}.csv", to_csv(table))
            write_text(folder / f"{table.name}.tex", to_latex(table))
        write_text(folder / "tables.tex", latex_document([table.name for table in tables]))
        lines = [line for table in tables for line in notes_and_commands(table)]
        lines += [f"not used: {problem}" for problem in problems]
        lines.append(f"report: {folder}")
        lines += self._figures_and_page(folder, edits.studies, sequences, traces, tables, found.runs, problems)
        if self.wandb:
            lines.append(f"W&B report: {_publish(job, folder, edits.studies)}")
        return Outcome(tables=[shown for table in tables for shown in to_rich(table)], lines=lines)

    @property
    def _chosen(self) -> str:
        return "all" if self.table is None else str(self.table)

    def _options(self) -> dict[str, Any]:
        return {"table": self._chosen, "x": self.x, "figures": self.figures, "page": self.page, "cases": self.cases}

    def _tables(
        self,
        studies: Sequence[Study],
        traces: Sequence[TraceStudy],
        sequences: Sequence[LifelongStudy],
        suffix: Sequence[str],
    ) -> list[ReportTable]:
        """The chosen tables. A table of the paper, if chosen by number, may hold no results but commands for them."""
        difference, everything = PaperSettings(), self._chosen == "all"
        shared = self.cases == "shared"
        tables: list[ReportTable] = []
        for number in TABLES:
            with_results = any(belongs(study, published_table(number)) for study in studies)
            if self._chosen == str(number) or (everything and with_results):
                tables.append(
                    paper_table(
                        number,
                        studies,
                        difference=difference,
                        suffix=suffix,
                        only_begun=everything,
                        shared=shared,
                    )
                )
        others = {
            "paired": lambda: paired_table(studies),
            "sweep": lambda: sweep_table(studies, x=self.x, shared=shared),
            "traces": lambda: trace_report(traces),
            "lifelong": lambda: lifelong_report(sequences),
            "disabling": lambda: disabling_report(studies),
        }
        # Every study of single edits would have a table of disabling ones, so that one is made only by name.
        tables += [
            make() for name, make in others.items() if self._chosen == name or (everything and name != "disabling")
        ]
        return [table for table in tables if table.blocks]

    def _no_table_message(self, job: Job, runs: Sequence[FoundRun], problems: Sequence[str]) -> str:
        where = ", ".join(map(str, job.roots(self.results)))
        held = f"{len(runs)} runs there" if runs else "no run with a finished case there"
        wanted = "to report on" if self._chosen == "all" else f"for table={self._chosen}"
        if self._chosen == "sweep" and self.x:
            wanted += f" over {self.x}"
        return f"{where}: nothing {wanted} ({held})" + "".join(f"; not used: {problem}" for problem in problems)

    def _figures_and_page(
        self,
        folder: Path,
        studies: Sequence[Study],
        sequences: Sequence[LifelongStudy],
        traces: Sequence[TraceStudy],
        tables: Sequence[ReportTable],
        runs: Sequence[FoundRun],
        problems: Sequence[str],
    ) -> list[str]:
        """Write the figures and the page if they were asked for; return one line for each."""
        lines: list[str] = []
        of_sequences: list[Path] = []
        if self.figures and (studies or sequences):
            from romexp.reporting.figures.draw_all import draw_all  # importing matplotlib takes a second
            from romexp.reporting.figures.lifelong import draw_lifelong

            draw_all(studies, folder / "figures", x=self.x, shared=self.cases == "shared")
            of_sequences = draw_lifelong(sequences, folder / "figures")
            lines.append(f"figures: {folder / 'figures'}")
        if self.page:
            from romexp.reporting.page.render import write_page

            others = [run for run in runs if run.task != "edit"]
            page = write_page(
                studies,
                tables,
                of_sequences,
                folder / "page.html",
                others=others,
                traces=traces,
                draw=self.figures,
                x=self.x,
                problems=problems,
                shared=self.cases == "shared",
            )
            lines.append(f"page: {page}")
        return lines


def _publish(job: Job, folder: Path, studies: Sequence[Study]) -> str:
    """Create the W&B report in the project that runs are logged to; return its URL or the path of its file."""
    from romexp.reporting.wandb_report import publish

    tracker = job.tracker if isinstance(job.tracker, WandbTracker) else WandbTracker()
    metrics = tuple(dict.fromkeys(name for study in studies for name in study.columns))
    entity, project = tracker.destination()
    online = tracker.wanted_mode() == "online"
    notes = [f"{study.label}: {note}" for study in map(on_shared_cases, studies) for note in remarks(study)]
    return publish(
        entity=entity,
        project=project,
        title="romexp",
        metrics=metrics,
        folder=folder,
        online=online,
        notes=notes,
    )


def _suffix(job: Job) -> list[str]:
    """Arguments with which a command writes its results to the folder of these results."""
    return [] if str(job.outputs) == "outputs" else [f"outputs={job.outputs}"]


def _inputs(runs: Iterable[FoundRun]) -> list[dict[str, Any]]:
    """What the report is made from: path, hash, status and digest of the rows of each run."""
    return [
        {
            "path": str(run.path),
            "hash": run.manifest.get("hash"),
            "status": run.status,
            "rows": file_digest(run.path / "cases.jsonl"),
        }
        for run in runs
    ]


def _folder(job: Job, inputs: Any) -> Path:
    """`output_dir`, or a folder named by a digest of the inputs, so that equal inputs give the same folder.

    Raises:
        ConfigError: `output_dir` holds something other than this report.
    """
    if job.output_dir is None:
        return job.outputs / "report" / digest(inputs)
    index = job.output_dir / INDEX
    if index.is_file():
        try:
            same = read_json(index).get("digest") == digest(inputs)
        except (ValueError, AttributeError):
            same = False
        if not same:
            raise ConfigError(f"output_dir: {job.output_dir} holds a report on other results or of other options")
    elif job.output_dir.exists() and (not job.output_dir.is_dir() or not _is_empty(job.output_dir)):
        raise ConfigError(f"output_dir: {job.output_dir} is not an empty folder")
    return job.output_dir


def _is_empty(folder: Path) -> bool:
    """Whether the folder holds nothing but files that a killed process was writing."""
    return all(path.name.endswith(PART) for path in folder.iterdir())
