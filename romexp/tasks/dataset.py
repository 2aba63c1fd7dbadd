"""`task=dataset`: builds a data set in CounterFact's schema from triples and templates (the paper's Appendix D)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import partial
from pathlib import Path
from typing import Any, Literal

from romexp.bounds import check_bounds
from romexp.cli.job import Job, Outcome
from romexp.cli.progress import bars
from romexp.data.building.composition import ROWS
from romexp.data.download import locate
from romexp.errors import ConfigError, DataError
from romexp.files import file_sha256
from romexp.lm.model import PretrainedModel
from romexp.reporting.tables.fitting import FittingTable
from romexp.reporting.terminal import literal
from romexp.results.folder import RunFolder
from romexp.tasks.dataset_build import CARD, Build
from romexp.tasks.run import open_run
from romexp.tracking import NoTracker

_INPUTS = ("triples", "templates", "texts")


@dataclass(frozen=True, kw_only=True)
class BuildDataset:
    """Write records, their composition and a card. `conf/task/dataset.yaml` explains each field."""

    model: PretrainedModel
    triples: str | None = None
    templates: str | None = None
    name: str = "facts"
    neighbours: int = 10
    least_neighbours: int | None = None
    attributes: int = 10
    paraphrases: int = 2
    generations: int = 10
    sentences: str | None = None
    sentence_count: int = 200
    weights: Literal["frequency", "uniform"] = "frequency"
    known: Literal["greedy", "likelier"] | None = None
    one_token: bool = False
    per_relation: int | None = None
    balance: bool = False
    splits: Mapping[str, float] | None = None
    texts: str | None = None
    texts_per_object: int = 100
    known_facts: bool = False
    about: str = ""

    def __post_init__(self) -> None:
        counts = ("neighbours", "attributes", "paraphrases", "generations")
        check_bounds(self, "task", from_0=counts, from_1=("sentence_count", "texts_per_object", "per_relation"))
        if self.least_neighbours is not None and not 0 <= self.least_neighbours <= self.neighbours:
            raise ConfigError(
                f"task.least_neighbours: expected 0 to {self.neighbours} (task.neighbours), not {self.least_neighbours}"
            )
        for option, value, known in (
            ("weights", self.weights, ("frequency", "uniform")),
            ("known", self.known, (None, "greedy", "likelier")),
        ):
            if value not in known:
                raise ConfigError(f"task.{option}: expected {' or '.join(map(str, known))}, not {value}")
        shares = list((self.splits or {}).values())
        if self.splits is not None and (not shares or min(shares) <= 0 or abs(sum(shares) - 1) > 1e-6):
            raise ConfigError(f"task.splits: expected positive shares that add up to 1, not {dict(self.splits)}")

    @property
    def _needs_model(self) -> bool:
        return self.sentences == "model" or self.known is not None or self.one_token or self.known_facts

    def __call__(self, job: Job) -> Outcome:
        """Build the data set, unless its folder holds it already.

        Raises:
            ConfigError: `triples` or `templates` is not given.
            DataError: an input cannot be used, or no record is left.
        """
        for name in ("triples", "templates"):
            if getattr(self, name) is None:
                raise ConfigError(f"task.{name}: expected a file (docs/data.md shows an example)")
        place = partial(locate, remote=None, cache_dir=job.cache_dir, instead="")
        inputs = {name: place(path) for name in _INPUTS if (path := getattr(self, name)) is not None}
        if self.sentences not in (None, "model"):
            inputs["sentences"] = place(self.sentences)
        lm = job.load(self.model) if self._needs_model else None
        identity = {"task": "dataset", "seed": job.seed, "settings": self.settings()}
        identity |= {"inputs": {name: file_sha256(path) for name, path in inputs.items()}}
        identity |= {"model": lm.cache_key if lm else None}
        with open_run(
            replace(job, tracker=NoTracker()),
            names={"task": "dataset", "dataset": self.name},
            identity=identity,
            facts={"seed": job.seed, "inputs": {name: str(path) for name, path in inputs.items()}},
            lacking=_lacking,
        ) as run:
            if not run.was_done:
                with run.session(name=self.name, group=self.name, job_type="dataset"), bars(job.sweep) as bar:
                    build = Build(task=self, inputs=inputs, seed=job.seed, lm=lm, out=run.folder.path)
                    run.folder.write("summary", build(bar("facts")))
            summary = run.folder.read("summary") or {}
        return self._outcome(run.folder.path, summary)

    def settings(self) -> dict[str, Any]:
        """The settings that affect the records."""
        without = {*_INPUTS, "model", "about"}
        values = {f.name: getattr(self, f.name) for f in fields(self) if f.name not in without}
        return values | {"splits": dict(self.splits) if self.splits else None, "sentences": self.sentences == "model"}

    def _outcome(self, folder: Path, summary: Mapping[str, Any]) -> Outcome:
        table = FittingTable(title=f"{self.name}: composition (the paper's Table 2)")
        for heading in ("Item", "Total", "Per relation", "Per record"):
            table.add_column(heading, justify="left" if heading == "Item" else "right", no_wrap=True)
        composition = summary["composition"]
        for kind, label in ROWS.items():
            mean = composition["per_record"].get(kind)
            cells = (label, f"{composition['total'][kind]:,}", f"{composition['per_relation'][kind]:,.0f}")
            table.add_row(*map(literal, (*cells, "–" if mean is None else f"{mean:.1f}")))
        dropped = [f"{reason}: {count:,}" for reason, count in summary["left_out"].items()]
        first = next(iter(summary["files"]))
        lines = [f"left out: {', '.join(dropped) or 'nothing'}", f"results: {folder}", f"card: {folder / CARD}"]
        return Outcome(tables=(table,), lines=[*lines, f"romexp dataset=facts dataset.path={folder / first}"])


def _lacking(folder: RunFolder, manifest: Mapping[str, Any]) -> str:
    """What the folder of a finished build lacks; empty if nothing."""
    try:
        summary = folder.read("summary") or {}
    except DataError as error:
        return f"a readable summary ({error})"
    if not summary:
        return "its summary"
    return ", ".join(name for name in (*summary["files"], CARD) if not (folder.path / name).is_file())
