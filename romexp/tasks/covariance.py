"""`task=covariance`: computes second moments in advance, for all layers in one pass (docs/method.md §3.3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from romexp.cli.job import Job, Outcome
from romexp.cli.progress import bars
from romexp.errors import ConfigError, DataError
from romexp.lm.model import LanguageModel, PretrainedModel
from romexp.reporting.tables.fitting import FittingTable
from romexp.results.folder import RunFolder
from romexp.results.identity import of_covariance
from romexp.stats.covariance import Covariance
from romexp.stats.second_moment import SecondMoment, load_moments, save_moments
from romexp.stats.token_counts import measured_on
from romexp.tasks.run import Run, describe_model, model_identity, open_run

FILE = "second_moments.safetensors"


@dataclass(frozen=True, kw_only=True)
class FitCovariance:
    """Compute (or load) second moments, and store them in the cache, where edits look for them.

    Attributes:
        model: the model whose keys are measured.
        covariance: the corpus and how it is read.
        layers: 0-based layers; None takes all of them.
        export: also write them to one file in the result folder, for `covariance.path` of other runs.
    """

    model: PretrainedModel
    covariance: Covariance
    layers: Sequence[int] | None = None
    export: bool = False

    def __post_init__(self) -> None:
        if wrong := [layer for layer in self.layers or () if layer < 0]:
            raise ConfigError(f"task.layers: expected layers of at least 0, not {wrong[0]}")

    def __call__(self, job: Job) -> Outcome:
        """Compute the second moments.

        The summary holds, for each layer, the source, the number of texts and tokens, the width of a key, and E‖k‖²
        (the trace of C).

        Raises:
            RomexpError: the model lacks a layer, the corpus cannot be read, another process is writing into the result
                folder, or the folder holds another run.
        """
        lm = job.load(self.model)
        layers = list(range(lm.n_layers)) if self.layers is None else [int(layer) for layer in self.layers]
        if not layers:
            raise ConfigError("task.layers: expected at least one layer, or null for all of them")
        identity = {
            "task": "covariance",
            "model": model_identity(lm, self.model),
            "covariance": of_covariance(self.covariance),
            "layers": layers,
            "export": self.export,
        }
        names = {"task": "covariance", "model": lm.name, "covariance": job.choices["covariance"]}
        facts = {"model": describe_model(lm)}
        with open_run(job, names=names, identity=identity, facts=facts, lacking=self._lacking) as run:
            if run.was_done:
                return self._outcome(run, lm, run.folder.read("summary") or {})
            with run.session(name=f"{lm.name} {run.manifest['hash']}", group=lm.name, job_type="covariance") as tracked:
                with bars(job.sweep) as bar:
                    moments = self.covariance.moments(lm, layers, progress=bar("second moments"))
                if self.export:
                    save_moments(run.folder.path / FILE, moments)
                summary = {str(layer): _describe(moment) for layer, moment in moments.items()}
                run.manifest["second_moments"] = {str(layer): measured_on(moment) for layer, moment in moments.items()}
                run.folder.write("summary", summary)
                tracked.summary({f"layer {k}/{name}": v for k, entry in summary.items() for name, v in entry.items()})
            return self._outcome(run, lm, summary)

    def _lacking(self, folder: RunFolder, manifest: Mapping[str, Any]) -> str:
        """What the folder of a finished run lacks; empty if nothing."""
        try:
            summary = folder.read("summary")
            if self.export:
                load_moments(folder.path / FILE)
        except DataError as error:
            return f"a readable file ({error})"
        entries = list((summary or {}).values())
        usable = entries and all(isinstance(e, dict) and isinstance(e.get("trace"), float) for e in entries)
        return "" if usable else "its summary"

    def _outcome(self, run: Run, lm: LanguageModel, summary: Mapping[str, Mapping[str, Any]]) -> Outcome:
        table = FittingTable(title=f"second moments of {lm.name}")
        for column in ("layer", "texts", "tokens", "width", "E‖k‖²"):
            table.add_column(column, justify="right")
        for layer, entry in summary.items():
            counts = [_count(entry.get(name)) for name in ("texts", "tokens", "width")]
            table.add_row(layer, *counts, f"{entry['trace']:.4g}")
        sources = dict.fromkeys(entry["source"] for entry in summary.values() if "source" in entry)
        lines = [f"measured on: {source}" for source in sources]
        lines += [f"kept in: {self.covariance.cache_dir}", f"results: {run.folder.path}"]
        if self.export:
            lines.append(f"file for covariance.path: {run.folder.path / FILE}")
        return Outcome(tables=(table,), lines=lines, folder=run.folder.path, inputs=())


def _describe(moment: SecondMoment) -> dict[str, Any]:
    return {**measured_on(moment), "trace": float(moment.matrix.diagonal().sum())}


def _count(number: object) -> str:
    return f"{number:,}" if isinstance(number, int) else "–"
