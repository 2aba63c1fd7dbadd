"""`task=onboard`: checks that a new model can be edited, scans layers and learning rates, writes what it measured."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from romexp.analysis.setting_choice import choose_layer, choose_rate
from romexp.bounds import check_bounds
from romexp.cli.job import Job, Outcome
from romexp.cli.progress import bars, duration
from romexp.data.dataset import Loaded
from romexp.editors.base import Editor
from romexp.errors import ConfigError
from romexp.evaluation.base import Evaluator
from romexp.facts import Case, check_cases
from romexp.lm.check_edits import tokenizer_facts
from romexp.lm.model import LanguageModel, PretrainedModel
from romexp.references import ReferenceSource
from romexp.results.folder import RunFolder
from romexp.results.identity import Identity, fingerprint, of_covariance
from romexp.stats.covariance import Covariance
from romexp.tasks.edit import CaseSource, EditExperiment
from romexp.tasks.onboard_checks import checked_texts, passed_checks
from romexp.tasks.onboard_files import SettingsFiles, option_name
from romexp.tasks.onboard_results import PAGE, Onboarded, Scans, file_texts, outcome_of, write_results
from romexp.tasks.onboard_scan import Scan
from romexp.tasks.run import Run, describe_inputs, model_identity, open_run

log = logging.getLogger(__name__)

RATES = ("v_lr", "lr")
"""Fields of editors that hold a learning rate."""


@dataclass(frozen=True, kw_only=True)
class OnboardModel:
    """Check a model by numbers, measure an editor at several layers and learning rates, and write settings for it.

    Each setting is an ordinary run of `task=edit` without generated texts.

    Attributes:
        model: the model.
        dataset: the records.
        editor: the editing method; it has one layer and a learning rate.
        covariance: source of second moments, for editors that need them.
        evaluator: what is measured.
        references: not read, since no texts are generated.
        name: name of the model's new option; None makes it of the model's name.
        conf_dir: folder for the files of settings; None takes `conf` in the result folder.
        records: number of records for each setting.
        layers: the layers that are scanned; None computes them from `layer_fractions`.
        layer_fractions: parts of the number of layers.
        learning_rates: the learning rates that are scanned at the best layer; None computes them from `rate_factors`.
        rate_factors: multiples of the editor's own learning rate.
        batch_size: number of cases edited and measured together.
    """

    model: PretrainedModel
    dataset: CaseSource
    editor: Editor
    covariance: Covariance
    evaluator: Evaluator
    references: ReferenceSource
    name: str | None = None
    conf_dir: Path | None = None
    records: int = 20
    layers: Sequence[int] | None = None
    layer_fractions: Sequence[float] = (0.05, 0.1, 0.17, 0.25, 0.35, 0.5, 0.75)
    learning_rates: Sequence[float] | None = None
    rate_factors: Sequence[float] = (0.5, 1.0, 2.0)
    batch_size: int = 10

    def __post_init__(self) -> None:
        check_bounds(self, "task", from_1=("batch_size",))
        if self.records < 2:
            raise ConfigError(f"task.records: expected at least 2, to have an interval, not {self.records}")
        if not hasattr(self.editor, "layer") or not self._rate_field:
            raise ConfigError(
                f"task=onboard scans an editor's layer and learning rate, and {self.editor.name} has not both: choose "
                "editor=rome, ft, ft_l or ft_attn"
            )
        for name in ("layer_fractions", "rate_factors", "learning_rates", "layers"):
            given = getattr(self, name)
            if given is not None and (not given or any(each < 0 for each in given)):
                raise ConfigError(f"task.{name}: expected a list of numbers of at least 0, not {list(given)}")
        if any(fraction > 1 for fraction in self.layer_fractions):
            raise ConfigError(f"task.layer_fractions: expected numbers from 0 to 1, not {list(self.layer_fractions)}")

    def __call__(self, job: Job) -> Outcome:
        """Check, scan, choose and write. Settings that were measured before are not measured again.

        Raises:
            RomexpError: the input is invalid, a check fails, or another process is writing into the folder.
        """
        if self.name is not None:
            option_name(self.name, "")
        loaded = self._cases()
        lm = job.load(self.model)
        layers = self._layers(lm)
        names = {part: job.choices[part] for part in ("dataset", "editor")}
        with open_run(
            job,
            names={"task": "onboard", "model": lm.name, **names},
            identity=self._identity(job, lm, loaded, layers),
            facts=describe_inputs(job, lm, loaded) | {"editor_label": self.editor.name},
            lacking=lambda folder, manifest: self._lacking(job, lm, folder, manifest),
        ) as run:
            files = self._files(job, lm, run.folder, run.manifest["hash"])
            if run.was_done:
                return outcome_of(run, files)
            files.check_free(self._model_config(job, lm), job.choices["covariance"])
            checks = passed_checks(lm, loaded.items, layers)
            scans = self._scan(run, lm, layers)
            done = Onboarded(
                lm=lm,
                job=job,
                loaded=loaded,
                editor=self.editor,
                rate_field=self._rate_field,
                checks=checks,
                tokenizer=tokenizer_facts(lm, checked_texts(loaded.items)),
                scans=scans,
                files=files,
            )
            group = f"{lm.name} {names['dataset']}"
            name = f"{group} onboard {run.manifest['hash']}"
            with run.session(name=name, group=group, job_type="onboard") as tracked:
                files.write(**file_texts(done, model=self._model_config(job, lm)))
                tracked.summary(write_results(run, done))
            return outcome_of(run, files)

    def plan(self, job: Job) -> Outcome:
        """What `dry_run` says: the first setting's plan, and how often it is to be multiplied.

        Raises:
            RomexpError: the input is invalid.
        """
        self._cases()
        layers = self._layers(job.load(self.model))
        planned = self._scans(job).plan({"layer": layers[0]})
        runs = len(layers) + len(self._rates()) - 1
        seconds = None if planned.remaining is None else planned.remaining.seconds
        whole = "" if seconds is None else f", at most about {duration(seconds * runs)} if none was measured before"
        lines = [*planned.lines, f"settings: {len(layers)} layers and {len(self._rates())} learning rates{whole}"]
        return replace(planned, lines=lines)

    @property
    def _rate_field(self) -> str:
        """The editor's field that holds the learning rate; empty if it has none, which is refused at once."""
        return next((name for name in RATES if hasattr(self.editor, name)), "")

    def _cases(self) -> Loaded[Case]:
        loaded = self._limited.load()
        check_cases(loaded.items, name=loaded.name, path=loaded.path, task="onboard")
        if (there := len(loaded.items) + len(loaded.rejected)) < self.records or len(loaded.items) < 2:
            raise ConfigError(
                f"task.records: {self.records} records are asked for, and {loaded.path} gives {there}, of which "
                f"{len(loaded.items)} are valid; choose another data set or selection, or task.records={there}"
            )
        for field in ("paraphrase_prompts", "neighborhood_prompts"):
            if not any(getattr(case, field) for case in loaded.items):
                raise ConfigError(
                    f"{loaded.path}: no record has {field}; task=onboard compares settings by S, which needs them"
                )
        return loaded

    @property
    def _limited(self) -> Any:
        """The data set, with no more than `records` records."""
        limit = getattr(self.dataset, "limit", None)
        return replace(self.dataset, limit=min(limit or self.records, self.records))  # type: ignore[type-var]

    def _layers(self, lm: LanguageModel) -> list[int]:
        """The layers that are scanned, ascending."""
        if self.layers is None:
            return sorted({min(round(part * lm.n_layers), lm.n_layers - 1) for part in self.layer_fractions})
        if outside := [layer for layer in self.layers if layer >= lm.n_layers]:
            raise ConfigError(f"task.layers: {outside[0]} is outside 0…{lm.n_layers - 1} of {lm.name!r}")
        return sorted({int(layer) for layer in self.layers})

    def _rates(self) -> list[float]:
        """The learning rates that are scanned, ascending; the editor's own one is among them."""
        own = float(getattr(self.editor, self._rate_field))
        given = self.learning_rates or [float(f"{own * factor:.6g}") for factor in self.rate_factors]
        return sorted({own, *map(float, given)})

    def _identity(self, job: Job, lm: LanguageModel, loaded: Loaded[Case], layers: Sequence[int]) -> Identity:
        return {
            "task": "onboard",
            "model": model_identity(lm, self.model),
            "dataset": {"sha256": loaded.sha256} | fingerprint(self._limited, without=("path", "remote")),
            "editor": fingerprint(self.editor),
            "covariance": of_covariance(self.covariance),
            "evaluator": fingerprint(self._evaluator),
            "layers": list(layers),
            "learning_rates": self._rates(),
            "name": option_name(self.name, lm.name),
            "conf_dir": str(self.conf_dir or ""),
            "seed": job.seed,
        }

    @property
    def _evaluator(self) -> Evaluator:
        """The evaluator without texts, which S does not need and which would take most of the time."""
        if not hasattr(self.evaluator, "generation"):
            return self.evaluator
        silent: Evaluator = replace(self.evaluator, generation="off")  # type: ignore[type-var]
        return silent

    def _files(self, job: Job, lm: LanguageModel, folder: RunFolder, run: str) -> SettingsFiles:
        return SettingsFiles(
            folder=(Path(self.conf_dir).expanduser() if self.conf_dir else folder.path / "conf").absolute(),
            name=option_name(self.name, lm.name),
            editor=job.choices["editor"],
            run=run,
        )

    def _lacking(self, job: Job, lm: LanguageModel, folder: RunFolder, manifest: Mapping[str, Any]) -> str:
        files = self._files(job, lm, folder, manifest["hash"])
        needed = (folder.path / "summary.json", folder.path / PAGE, files.model_file, files.editor_file)
        return ", ".join(file.name for file in needed if not file.is_file())

    def _model_config(self, job: Job, lm: LanguageModel) -> dict[str, Any]:
        # What is cached for the model, such as second moments, is kept under its name.
        return {**job.config["model"], "name": lm.name}

    def _scans(self, job: Job) -> Scan:
        """The runs of this model and editor, with any settings."""
        experiment = EditExperiment(
            model=self.model,
            dataset=self._limited,
            editor=self.editor,
            covariance=self.covariance,
            evaluator=self._evaluator,
            references=self.references,
            batch_size=self.batch_size,
        )
        outputs = job.outputs if job.output_dir is None else job.output_dir / "runs"
        return Scan(experiment=experiment, job=job, outputs=outputs)

    def _scan(self, run: Run, lm: LanguageModel, layers: Sequence[int]) -> Scans:
        job, field, scan = run.job, self._rate_field, self._scans(run.job)
        if getattr(self.editor, "mom2_adjustment", False):
            with bars(job.sweep) as bar:  # one pass over the texts for all layers, as far as memory allows
                self.covariance.moments(lm, layers[:1], also=layers[1:], progress=bar("second moments"))
        own = float(getattr(self.editor, field))
        by_layer = scan.over("layer", layers, fixed={field: own})
        layer = choose_layer([each.scanned for each in by_layer], seed=job.seed)
        chosen = by_layer[layer.best]
        same = replace(chosen, scanned=replace(chosen.scanned, value=own))
        by_rate = scan.over(field, self._rates(), fixed={"layer": layers[layer.best]}, known=[same])
        place = self._rates().index(own)
        rate = choose_rate([each.scanned for each in by_rate], own=place, seed=job.seed)
        return Scans(by_layer=by_layer, layer=layer, by_rate=by_rate, rate=rate)
