"""What `task=onboard` found, as files, as a page and as lines on the screen."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

from romexp import __version__
from romexp.analysis.intervals import interval_of
from romexp.analysis.setting_choice import LAYER_RULE, RATE_RULE, Choice
from romexp.cli.job import Job, Outcome
from romexp.data.dataset import Loaded
from romexp.editors.base import Editor
from romexp.facts import Case
from romexp.files import write_text
from romexp.lm.check_architecture import Finding
from romexp.lm.model import LanguageModel
from romexp.reporting.page.onboarding import onboarding_page
from romexp.reporting.tables.run import TableRow, rich_table
from romexp.results.environment import now
from romexp.tasks.onboard_files import SettingsFiles, editor_settings
from romexp.tasks.onboard_scan import ScannedRun
from romexp.tasks.run import Run

PAGE = "onboard.html"


@dataclass(frozen=True, kw_only=True)
class Scans:
    """The runs by layer and by learning rate, and what was chosen."""

    by_layer: Sequence[ScannedRun]
    layer: Choice
    by_rate: Sequence[ScannedRun]
    rate: Choice


@dataclass(frozen=True, kw_only=True, eq=False)
class Onboarded:
    """Everything that was found.

    Attributes:
        rate_field: the editor's field that holds the learning rate.
        checks: the checks, all passed.
        tokenizer: facts about the tokenizer, in words.
        files: where the settings are written.
    """

    lm: LanguageModel
    job: Job
    loaded: Loaded[Case]
    editor: Editor
    rate_field: str
    checks: Sequence[Finding]
    tokenizer: Mapping[str, str]
    scans: Scans
    files: SettingsFiles

    @property
    def chosen(self) -> dict[str, Any]:
        """The settings that were chosen."""
        scans = self.scans
        layer = scans.by_layer[scans.layer.best].scanned.value
        return {"layer": int(layer), self.rate_field: scans.by_rate[scans.rate.best].scanned.value}

    @property
    def records(self) -> str:
        """Which records were used."""
        n, offset = len(self.loaded.items), self.job.config["dataset"].get("offset") or 0
        return f"{n} records of {self.loaded.name}" + (f" from number {offset:,} on" if offset else "")

    @property
    def command(self) -> str:
        """A command that edits with the new settings."""
        kept = [text for text in self.job.overrides if text.startswith(("dataset.", "covariance."))]
        choices = self.job.choices
        texts = ["evaluator.generation=off"] if "generation" in self.job.config["evaluator"] else []
        return "romexp " + shlex.join(
            [
                "--config-dir",
                str(self.files.folder),
                f"model={self.files.name}",
                f"editor={choices['editor']}",
                f"dataset={choices['dataset']}",
                *(text for text in kept if not text.startswith("dataset.limit")),
                *texts,
            ]
        )

    def sentences(self) -> list[str]:
        """What was measured and chosen, in words: in all, by layer, by learning rate, and what else must be said."""
        scans, field = self.scans, self.rate_field
        best = scans.by_rate[scans.rate.best].scanned
        said = [
            f"{self.editor.name} on {self.lm.name}, {self.records}, without generated texts: S "
            f"{_with_interval(best.after['S'])} with {' '.join(f'{k}={v:g}' for k, v in self.chosen.items())}.",
            f"By layer: {_listed(scans.by_layer)}. {LAYER_RULE}{_alike(scans.by_layer, scans.layer)}",
            f"By {field}: {_listed(scans.by_rate)}. {RATE_RULE}{_alike(scans.by_rate, scans.rate)}",
        ]
        before = best.summary["pre"]["S"]["mean"]
        if best.score <= before:
            said.append(f"The unedited model has S {before:.1f}: these edits do not help.")
        return said


def file_texts(done: Onboarded, *, model: Mapping[str, Any]) -> dict[str, Any]:
    """The arguments of `SettingsFiles.write`.

    Args:
        model: the model's configuration.
    """
    lm, day = done.lm, now()[:10]
    size = sum(parameter.numel() for parameter in lm.model.parameters())
    option = done.job.choices["editor"]
    return {
        "model": model,
        "covariance": done.job.choices["covariance"],
        "settings": editor_settings(done.job.config["editor"], option, done.chosen),
        "about_model": f"{lm.name}: {lm.n_layers} layers, {size / 1e6:,.1f} M parameters, "
        f"{lm.architecture.family}. It passed all {len(done.checks)} checks on {day} (romexp {__version__}). "
        "Only editors with a file in editor_model have settings that were measured on it.",
        "about_settings": [
            f"Measured on {day} with romexp {__version__}, covariance={done.job.choices['covariance']}.",
            *done.sentences(),
            "Nothing else was tried: other settings are the editor's usual ones, or stand below as they were given.",
        ],
    }


def write_results(run: Run, done: Onboarded) -> dict[str, Any]:
    """Write `summary.json` and the page; return numbers for the tracker."""
    scans = done.scans
    best = scans.by_rate[scans.rate.best].scanned
    summary = {
        "n_cases": len(done.loaded.items),
        "chosen": done.chosen,
        "S": best.after["S"],
        "pre": best.summary["pre"],
        "post": best.summary["post"],
        "sentences": done.sentences(),
        "command": done.command,
        "checks": [asdict(check) for check in done.checks],
        "tokenizer": dict(done.tokenizer),
        "layers": _stored(scans.by_layer, scans.layer),
        "rates": _stored(scans.by_rate, scans.rate),
        "rate_field": done.rate_field,
        "records": done.records,
        "measured": now(),
    }
    run.folder.write("summary", summary)
    page = onboarding_page(
        summary,
        model=done.lm.name,
        editor=(done.job.choices["editor"], done.editor.name),
        files=[str(done.files.model_file), str(done.files.editor_file)],
    )
    write_text(run.folder.path / PAGE, page)
    return {**{f"chosen/{name}": value for name, value in done.chosen.items()}, "S": best.score}


def outcome_of(run: Run, files: SettingsFiles) -> Outcome:
    """The table of the scan, what was chosen, and the command that uses it; made from the summary."""
    summary = run.folder.read("summary") or {}
    rows = [TableRow(label="unedited", metrics=summary["pre"], edited=False)]
    for key, word in (("layers", "layer"), ("rates", summary["rate_field"])):
        for entry in summary[key]:
            mark = " ← chosen" if entry["behind"] is None else ""
            rows.append(TableRow(label=f"{word} {entry['value']:g}{mark}", metrics=entry["post"]))
    title = f"{run.manifest['model']['name']}, {summary['records']} (95 % interval)"
    table = rich_table(rows, title=title, heading="Setting")
    checks = summary["checks"]
    return Outcome(
        tables=(table,),
        lines=[
            f"checks: all {len(checks)} passed",
            *summary["sentences"],
            f"settings: {files.model_file}",
            f"          {files.editor_file}",
            f"page: {run.folder.path / PAGE}",
            f"results: {run.folder.path}",
            *run.tracked(),
            f"to use them: {summary['command']}",
        ],
        folder=run.folder.path,
    )


def _stored(runs: Sequence[ScannedRun], choice: Choice) -> list[dict[str, Any]]:
    return [
        {
            "value": run.scanned.value,
            "post": run.scanned.after,
            "behind": behind,
            "alike": i in choice.alike,
            "command": run.command,
            "folder": str(run.folder),
        }
        for i, (run, behind) in enumerate(zip(runs, choice.behind, strict=True))
    ]


def _listed(runs: Sequence[ScannedRun]) -> str:
    return ", ".join(f"{run.scanned.value:g}: {run.scanned.score:.1f}" for run in runs)


def _with_interval(statistics: Mapping[str, Any]) -> str:
    low, high = interval_of(statistics)
    reach = "no interval" if low is None else f"95 % interval {low:.1f} to {high:.1f}"
    return f"{statistics['mean']:.1f} ({reach})"


def _alike(runs: Sequence[ScannedRun], choice: Choice) -> str:
    """Which others the records do not tell apart from the chosen one."""
    others = [f"{runs[i].scanned.value:g}" for i in choice.alike]
    if not others:
        return ""
    return f" Within chance of it (paired 95 % interval of the difference in S): {', '.join(others)}."
