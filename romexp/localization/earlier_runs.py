"""Results of `task=trace` and `task=edit` that a study of localization can use as they are (docs/method.md §14.4)."""

from __future__ import annotations

import json
import logging
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from romexp.errors import DataError
from romexp.localization.methods import Methods
from romexp.localization.objectives import Wanted
from romexp.localization.target_scores import PROMPTS, Scores
from romexp.results.find import FoundRun
from romexp.results.identity import digest, fingerprint
from romexp.results.rows import Row, edit_row_fault
from romexp.results.trace_rows import trace_row_fault

log = logging.getLogger(__name__)

TraceRows = Mapping[tuple[str, str], Mapping[str, Any]]
"""Rows of traces by prompt and subject."""


@dataclass(frozen=True, kw_only=True, eq=False)
class EarlierEdits:
    """Measurements of single edits, from runs of `task=edit`.

    Attributes:
        methods: the methods as they are configured.
        rows: what was measured after an edit, by the editor's fingerprint, the prompt, the new and the true target.
    """

    methods: Methods
    rows: Mapping[tuple[str, str, str, str], Mapping[str, Any]] = field(default_factory=dict)

    def __call__(
        self, method: str, layer: int, job: Wanted, before: Scores, *, n_layers: int
    ) -> list[float | None] | None:
        """The target's probabilities after an edit, as `target_scores.probabilities` gives them.

        Args:
            before: the scores of the unedited model, which say how many tokens the target has.

        Returns:
            None if no run has made and measured this edit.
        """
        if not self.rows or job.objective != "error_injection":
            return None
        editor = self.methods.at(method, job.objective, layer, n_layers=n_layers)
        request = job.request
        key = (digest(fingerprint(editor)), request.text, request.target_new, request.target_true)
        if (after := self.rows.get(key)) is None:
            return None
        n_tokens = [len(score.token_ids) if score else None for score in before[0]]
        return [_probability(after.get(f"{kind}_prompts"), n) for kind, n in zip(PROMPTS, n_tokens, strict=True)]


def earlier_edits(runs: Sequence[FoundRun], methods: Methods, *, same: Mapping[str, Any]) -> EarlierEdits:
    """The edits of all runs of `task=edit` whose identity agrees with `same` (model, covariance, seed).

    A run that cannot be read is left out, with a warning.
    """
    rows: dict[tuple[str, str, str, str], Mapping[str, Any]] = {}
    for run in runs:
        if run.task == "edit" and _agrees(run, same):
            editor = digest(run.identity.get("editor"))
            for row in _rows(run):
                if not edit_row_fault(row):
                    request = row["requested_rewrite"]
                    text = str(request["prompt"]).replace("{}", str(request["subject"]), 1)
                    rows[editor, text, str(request["target_new"]), str(request["target_true"])] = row["post"]
    return EarlierEdits(methods=methods, rows=rows)


def earlier_traces(runs: Sequence[FoundRun], *, kind: str, noise: str, same: Mapping[str, Any]) -> TraceRows:
    """The traces of all runs of `task=trace` with the same noise whose identity agrees with `same` (model, tracer).

    Args:
        kind: the kind of state whose grid is needed; the runs may have traced others too.
        noise: how the manifest describes the noise.
    """
    rows: dict[tuple[str, str], Mapping[str, Any]] = {}
    for run in runs:
        if run.task == "trace" and run.manifest.get("noise") == noise and _agrees(run, same):
            for row in _rows(run):
                if not trace_row_fault(row) and row.get("correct_prediction") and row.get(kind):
                    rows[str(row.get("prompt")), str(row.get("subject"))] = row
    return rows


def _agrees(run: FoundRun, same: Mapping[str, Any]) -> bool:
    """Whether the run's identity has these values; of an object all that are named."""

    def agrees(found: Any, wanted: Any) -> bool:
        if isinstance(wanted, Mapping):
            return isinstance(found, Mapping) and all(agrees(found.get(k), v) for k, v in wanted.items())
        return bool(json.dumps(found) == json.dumps(wanted))

    return agrees(run.identity, same)


def _rows(run: FoundRun) -> list[Row]:
    try:
        return run.rows()
    except DataError as error:
        log.warning("%s is not used: %s", run.path, error)
        return []


def _probability(pairs: Any, n_tokens: int | None) -> float | None:
    """exp(-NLL of the whole target), from the pairs [mean NLL of the new target, that of the true one]."""
    nll = pairs[0][0] if pairs else None
    return None if nll is None or n_tokens is None else math.exp(-nll * n_tokens)
