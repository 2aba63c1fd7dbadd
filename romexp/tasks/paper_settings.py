"""Tells whether a run has the paper's settings, so that a report may compare the two (docs/method.md §3.1, §4, §8)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hydra.utils import instantiate

from romexp.analysis.studies import Entry, Study
from romexp.compose import compose_config
from romexp.data.published import COUNTERFACT, ZSRE_EVAL
from romexp.errors import RomexpError
from romexp.results.identity import fingerprint, of_covariance
from romexp.results.settings import differing, flat, shown_value

ALLOWED_DIFFERENCES: Mapping[str, tuple[str, ...]] = {
    "ft": ("teacher_forcing", "train_bias"),
    "ft_l": ("teacher_forcing", "train_bias"),
    "rome": ("context_templates",),
}
"""Settings that may differ, by editor: those of FT changed in the authors' code on 2022-08-05 (docs/method.md §4.1),
and contexts were drawn without a seed for the paper."""

READS_SECOND_MOMENTS = ("rome",)
SECOND_MOMENTS = ("wikipedia", "published")
"""Covariance options that count as the paper's."""

NOT_MEASURED = ("generation", "essence", "attributes")
"""Settings of an evaluator that decide how much is measured, but not how it is measured."""

SHOWN = 3
"""Number of differences that a description names."""


@dataclass(frozen=True, kw_only=True)
class PaperSettings:
    """Describes how an entry's settings differ from the paper's for that editor; empty if they do not differ.

    The paper's settings are what `model=… dataset=… editor=…` composes to, without further overrides.
    """

    _known: dict[tuple[str, ...], dict[str, Any]] = field(default_factory=dict)

    def __call__(self, study: Study, entry: Entry) -> str:
        """`other data than the paper's`, or the settings that differ, such as `layer=3, the paper's 17`."""
        if not is_published_file(entry):
            return "other data than the paper's"
        try:
            paper = self._paper(study.model, study.kind, entry.editor)
        except RomexpError as error:
            return f"the paper's settings are not known ({str(error).splitlines()[0]})"
        differences = describe_differences(
            entry.settings, paper["editor"], without=ALLOWED_DIFFERENCES.get(entry.editor, ())
        )
        differences += describe_differences(
            entry.identity.get("evaluator", {}), paper["evaluator"], without=NOT_MEASURED
        )
        dtype = entry.identity.get("model", {}).get("dtype")
        if dtype != paper["dtype"]:
            differences.append(f"dtype={dtype}, the paper's {paper['dtype']}")
        if precision := entry.identity.get("model", {}).get("matmul_precision"):
            differences.append(f"matmul_precision={precision}, the paper's highest")
        if entry.editor in READS_SECOND_MOMENTS and entry.identity.get("covariance") not in paper["covariances"]:
            differences.append("other second moments")
        more = [f"and {len(differences) - SHOWN} more"] if len(differences) > SHOWN else []
        return "; ".join([*differences[:SHOWN], *more])

    def _paper(self, model: str, dataset: str, editor: str) -> dict[str, Any]:
        key = (model, dataset, editor)
        if key not in self._known:
            self._known[key] = composed(model, dataset, editor)
        return self._known[key]


def is_published_file(entry: Entry) -> bool:
    """Whether every run read the published CounterFact (by its digest) or zsRE (by its name; no digest is known)."""
    for run in entry.runs:
        dataset = run.manifest.get("dataset", {})
        if run.names.get("dataset") == "counterfact":
            if dataset.get("sha256") != COUNTERFACT.sha256:
                return False
        elif run.names.get("dataset") != "zsre" or Path(str(dataset.get("path"))).name != Path(ZSRE_EVAL.url).name:
            return False
    return True


def composed(model: str, dataset: str, editor: str) -> dict[str, Any]:
    """Fingerprints of the parts that these options of the config groups compose to.

    Raises:
        RomexpError: there is no such option, or a part cannot be built here.
    """
    options = [f"model={model}", f"dataset={dataset}", f"editor={editor}"]
    configs = {name: compose_config([*options, f"covariance={name}"]) for name in SECOND_MOMENTS}
    cfg = configs[SECOND_MOMENTS[0]]
    parts = {
        "editor": fingerprint(instantiate(cfg.editor)),
        "evaluator": fingerprint(instantiate(cfg.evaluator)),
        "dtype": cfg.model.dtype,
        "covariances": [of_covariance(instantiate(each.covariance)) for each in configs.values()],
    }
    read: dict[str, Any] = json.loads(json.dumps(parts))
    return read


def describe_differences(ours: Mapping[str, Any], theirs: Mapping[str, Any], *, without: tuple[str, ...]) -> list[str]:
    """A text such as `layer=3, the paper's 17` for each field that differs, except for the fields in `without`."""
    kept = [{k: v for k, v in flat(side).items() if k.partition(".")[0] not in without} for side in (ours, theirs)]
    here, there = differing(kept)
    return [f"{name}={shown_value(here[name])}, the paper's {shown_value(there[name])}" for name in here]
