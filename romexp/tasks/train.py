"""`task=train`: trains the network of a learned editor (MEND, KE) and keeps the best one (docs/method.md §4.6)."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from rich.table import Table

from romexp.cli.job import Job, Outcome
from romexp.cli.progress import Report, bars
from romexp.editors.learned import checkpoint
from romexp.editors.learned.base import EditNetwork
from romexp.errors import ConfigError, DataError
from romexp.learning.draws import Draws
from romexp.learning.edits import EditPool, EditSource
from romexp.learning.locality import Locality
from romexp.learning.session import Session
from romexp.learning.training import Training
from romexp.lm.model import LanguageModel, PretrainedModel
from romexp.reporting.tables.fitting import FittingTable
from romexp.results.folder import RunFolder
from romexp.results.identity import Identity, by_fields, fingerprint
from romexp.results.rows import Curves
from romexp.seeds import derive_seed
from romexp.tasks.run import Run, describe_model, model_identity, open_run, title_of
from romexp.tasks.train_reports import NetworkFile, TrainingReports
from romexp.tracking import TrackedRun

log = logging.getLogger(__name__)

NETWORK, STATE, CURVES = "network.safetensors", "training_state.safetensors", "curves.jsonl"
COLUMNS = ("step", "edit_loss", "locality_loss", "total_loss", "accuracy")
"""Values of a validation that the command shows."""
NOT_TRAINED = ("checkpoint", "shipped", "published", "networks", "lr_scale", "statistics", "lr_order")
"""Fields of an editor that affect the use of a trained network, but not its training."""


@runtime_checkable
class LearnedEditor(Protocol):
    """An editor with a network to train (config group `editor`)."""

    @property
    def name(self) -> str: ...

    def new_network(self, lm: LanguageModel, *, seed: int) -> EditNetwork: ...


@dataclass(frozen=True, kw_only=True)
class TrainEditor:
    """Train an editor's network and write it to `network.safetensors`, a file for `editor.checkpoint`.

    Attributes:
        model: the model that the network learns to edit.
        editor: the editor whose network is trained; its fields give the network's sizes.
        edits: the edits that the network learns from.
        locality: texts on which the edited model should predict what the unedited one does.
        training: loss, optimizers, schedule.
        dtype: type in which the file stores the weights; statistics stay in float32.
    """

    model: PretrainedModel
    editor: Any
    edits: EditSource
    locality: Locality
    training: Training
    dtype: Literal["float32", "float16"] = "float32"

    def __post_init__(self) -> None:
        if self.dtype not in ("float32", "float16"):
            raise ConfigError(f"task.dtype: {self.dtype!r} is none of float32, float16")

    def __call__(self, job: Job) -> Outcome:
        """Train, from the last saved state if there is one.

        Raises:
            RomexpError: the input is invalid, the edits are about subjects that are excluded from training, the
                training diverges, or another process is writing into the folder.
        """
        if not isinstance(self.editor, LearnedEditor):
            name = getattr(self.editor, "name", type(self.editor).__name__)
            raise ConfigError(f"editor: task=train needs an editor with a network (mend or ke), {name} has none")
        lm = job.load(self.model)
        pool = self.edits.load(lm, seed=job.seed, cache_dir=job.cache_dir)
        names = {"task": "train", "model": lm.name, "dataset": job.choices["dataset"], "editor": job.choices["editor"]}
        with open_run(
            job,
            names=names,
            identity=self._identity(job, lm, pool),
            facts=self._facts(job, lm, pool),
            lacking=_lacking,
        ) as run:
            if run.was_done:
                run.folder.write("summary", _kept_summary(run.folder) or {})
                return self._outcome(run)
            for entry in pool.set_aside:
                log.warning("case %s set aside: %s %s", entry["case_id"], entry["field"], entry["reason"])
            name = f"{lm.name} {names['dataset']} {self.editor.name} training {run.manifest['hash']}"
            with run.session(name=name, group=f"{lm.name} {names['dataset']}", job_type="train") as tracked:
                with bars(job.sweep) as bar:
                    self._train(run, lm, pool, tracked, bar(f"{self.editor.name}: steps"))
                summary = read_summary(self._curves(run))
                run.folder.write("summary", summary)
                tracked.summary({f"{when}/{k}": v for when, values in summary.items() for k, v in values.items()})
            (run.folder.path / STATE).unlink(missing_ok=True)
            return self._outcome(run)

    def _identity(self, job: Job, lm: LanguageModel, pool: EditPool) -> Identity:
        return {
            "task": "train",
            "model": model_identity(lm, self.model),
            "editor": by_fields(self.editor, without=NOT_TRAINED),
            "edits": fingerprint(self.edits, without=("path", "remote")) | {"sources": sources(pool)},
            "locality": fingerprint(self.locality),
            "training": fingerprint(self.training, without=("validation_batch", "log_every")),
            "dtype": self.dtype,
            "seed": job.seed,
        }

    def _facts(self, job: Job, lm: LanguageModel, pool: EditPool) -> dict[str, Any]:
        counts = {"training": len(pool.training), "validation": len(pool.validation)}
        return {
            "model": describe_model(lm),
            "edits": counts | dict(pool.facts),
            "set_aside": [dict(entry) for entry in pool.set_aside],
            "editor_label": self.editor.name,
            "seed": job.seed,
        }

    def _train(self, run: Run, lm: LanguageModel, pool: EditPool, tracked: TrackedRun, report: Report) -> None:
        network = self.editor.new_network(lm, seed=derive_seed(run.job.seed, "edit network"))
        draws = Draws(
            edits=pool,
            locality=self.locality.load(lm),
            seed=run.job.seed,
            outers=self.training.outers,
            locality_texts=self.training.locality_texts,
        )
        state = run.folder.path / STATE
        session = Session(lm=lm, network=network, draws=draws, training=self.training, state=state)
        if session.progress.step:
            log.info("%d steps were made before; continuing after them", session.progress.step)
        curves = self._curves(run)
        curves.cut(session.progress.step)
        facts = {"command": " ".join(["romexp", *run.job.overrides]), "model": lm.digest, "hash": run.manifest["hash"]}
        file = NetworkFile(path=run.folder.path / NETWORK, dtype=getattr(torch, self.dtype), facts=facts)
        session.run(TrainingReports(report=report, curves=curves, tracked=tracked, file=file))

    def _curves(self, run: Run) -> Curves:
        return Curves(run.folder.path / CURVES)

    def _outcome(self, run: Run) -> Outcome:
        summary = run.folder.read("summary") or {}
        counts = run.manifest["edits"]
        title = (
            f"{self.editor.name} for {title_of(run.manifest['model'])}, "
            f"{counts['training']} edits, judged on {counts['validation']} others"
        )
        file = run.folder.path / NETWORK
        use = f"to edit with it: romexp editor={run.job.choices['editor']} editor.checkpoint={file}"
        return Outcome(tables=(_table(summary, title),), lines=(*run.closing_lines(), use), folder=run.folder.path)


def _lacking(folder: RunFolder, manifest: Mapping[str, Any]) -> str:
    """What the folder of a finished training lacks; empty if nothing."""
    try:
        checkpoint.read(folder.path / NETWORK)
    except DataError as error:
        return f"the network ({error})"
    return "" if _kept_summary(folder) else "its summary and curves"


def _kept_summary(folder: RunFolder) -> dict[str, Any] | None:
    """The summary of a finished training, or that of its curves; None if neither can be read."""
    with suppress(DataError):
        summary = folder.read("summary") or {}
        if set(summary) == {"first", "best", "last"} and all(map(_is_point, summary.values())):
            return summary
    try:
        return read_summary(Curves(folder.path / CURVES))
    except DataError:
        return None


def _is_point(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(value.get(name), (int, float)) for name in COLUMNS)


def sources(pool: EditPool) -> dict[str, Any]:
    """Those facts about the data that identify it: digests, and numbers of cases."""
    kept = ("sha256", "cases", "left_out", "n_tokens", "texts")
    return {
        name: {key: value for key, value in entry.items() if key in kept}
        for name, entry in pool.facts.items()
        if isinstance(entry, Mapping)
    }


def read_summary(curves: Curves) -> dict[str, dict[str, float]]:
    """Validation values after the first step, at the step of lowest loss and at the last step.

    The values are by name, without the prefix `validation/`.

    Raises:
        DataError: the curves have no validation.
    """
    prefix = "validation/"
    rows = [row for row in curves.rows() if f"{prefix}total_loss" in row]
    if not rows:
        raise DataError(f"{curves.path}: no validation")
    chosen = {"first": rows[0], "best": min(rows, key=lambda row: row[f"{prefix}total_loss"]), "last": rows[-1]}
    return {when: {key.removeprefix(prefix): value for key, value in row.items()} for when, row in chosen.items()}


def _table(summary: Mapping[str, Mapping[str, float]], title: str) -> Table:
    table = FittingTable("validation", *(name.replace("_", " ") for name in COLUMNS), title=title)
    for when, values in summary.items():
        table.add_row(when, str(int(values["step"])), *(f"{values[name]:.4g}" for name in COLUMNS[1:]))
    return table
