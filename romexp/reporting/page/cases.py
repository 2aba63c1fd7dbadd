"""Cases of a study as data for the page's script: probabilities before and after the edit, generated texts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from romexp.analysis.studies import Entry, Study
from romexp.reporting.tables.remarks import mark
from romexp.results.rows import CaseResult

KINDS = ("rewrite", "paraphrase", "neighborhood", "attribute")
MOST_SIDES = 1200
"""Most sides of one study that the page itself holds; a side is what was measured on one case with one model. So a
sweep with many entries has fewer cases in the page."""
MOST_TEXTS = 3
"""Most texts for each case and model; each is of a different prompt."""
SMALLEST = 1e-30
"""Probabilities below this are shown as this one, so that each has a place on a logarithmic scale."""


def case_data(
    study: Study, *, identifier: str, most_cases: int, compared: Study | None = None, label: str = ""
) -> dict[str, Any]:
    """The study's first cases as JSON-ready values, and the number of all its cases. Shared cases come first.

    Args:
        identifier: id of the study in the page.
        most_cases: upper limit for the number of cases.
        compared: the study on the cases that its entries share.
        label: what the study is called on the page; empty takes its own label.
    """
    compared = study if compared is None else compared
    numbers, shared = case_order(study, compared=compared), shared_ids(compared)
    entries = _edited(study)
    limit = min(most_cases, max(1, MOST_SIDES // (len(entries) + 1)))
    return {
        "id": identifier,
        "label": label or study.label,
        "kind": study.kind,
        "total": len(numbers),
        "shared": len(shared) if 0 < len(shared) < len(numbers) else None,
        "notes": compared.left_out,
        "entries": [mark(entry.label, entry) for entry in entries],
        "cases": [case_of(study, number) for number in numbers[:limit]],
    }


def case_order(study: Study, *, compared: Study | None = None) -> list[int]:
    """Ids of all cases of a study: first those that all compared entries have, then the others, each by number.

    Args:
        compared: the study on the cases that its entries share.
    """
    shared = shared_ids(study if compared is None else compared)
    every = {int(number) for number in study.unedited_results.ids}
    for entry in _edited(study):
        every.update(entry.results.ids.tolist())
    return sorted(every, key=lambda number: (number not in shared, number))


def shared_ids(compared: Study) -> set[int]:
    """Ids of the cases on which the entries of a study are compared; empty if no two of them share a case."""
    editing = [entry for entry in compared.entries if entry.edits] or list(compared.entries)
    cases = [set(entry.results.ids[entry.results.complete].tolist()) for entry in editing if not entry.apart]
    return set.intersection(*cases) if cases else set()


def case_of(study: Study, number: int) -> dict[str, Any]:
    """One case as JSON-ready values, read from disk.

    A side, `pre` or an item of `post`, holds what was measured on one model; it is null if nothing was. It is
    {kind: [[P(o*), P(o^c), sign], …], "texts": […]}, with the sign of P(o*) - P(o^c) before rounding, and for zsRE
    {kind: [0 or 1, …]}. `prompts` are the prompts of each kind, `answers` those of zsRE's neighbourhood prompts, and
    `text_prompts` the prompts of the texts; they are empty where the rows lack them.
    """
    before = study.unedited_results.of_case(number)
    after = [entry.results.of_case(number) for entry in _edited(study)]
    any_of = next(result for result in (*after, before) if result is not None)
    return _case(any_of, before, after)


def _edited(study: Study) -> list[Entry]:
    return [entry for entry in study.entries if entry.edits]


def _case(any_of: CaseResult, before: CaseResult | None, after: Sequence[CaseResult | None]) -> dict[str, Any]:
    request = any_of.request
    prompts = next((each.prompts for each in (any_of, before, *after) if each and each.prompts), {})
    generating = prompts.get("generation_prompts", [])
    measured_before = before.before if before else None
    unedited = (measured_before or {}).get("text") or []
    indices = different_prompts(unedited, generating)[:MOST_TEXTS]
    return {
        "id": any_of.case_id,
        "subject": request.subject,
        "fact": request.text,
        "target_new": request.target_new,
        "target_true": request.target_true,
        "prompts": {kind: prompts[f"{kind}_prompts"] for kind in KINDS if f"{kind}_prompts" in prompts},
        "answers": prompts.get("neighborhood_targets", []),
        "text_prompts": [generating[i] for i in indices] if len(generating) == len(unedited) else [],
        "pre": _side(measured_before, indices),
        "post": [_side(result.after if result else None, indices) for result in after],
    }


def _side(measured: Mapping[str, Any] | None, indices: Sequence[int]) -> dict[str, Any] | None:
    if measured is None:
        return None
    side: dict[str, Any] = {}
    for kind in KINDS:
        if pairs := measured.get(f"{kind}_prompts"):
            side[kind] = [[*map(_probability, pair), _sign(*pair)] for pair in pairs]
        elif flags := measured.get(f"{kind}_prompts_correct"):
            side[kind] = [int(flag) for flag in flags]
    texts = measured.get("text") or []
    if texts:
        side["texts"] = [texts[i] for i in indices if i < len(texts)] or list(texts[:MOST_TEXTS])
    return side


def different_prompts(texts: Sequence[str], prompts: Sequence[str]) -> list[int]:
    """Index of the first text of each different prompt, since a prompt may occur repeatedly.

    Args:
        prompts: one for each text. If they are not known, a text's first four words stand for its prompt, with which
            it begins.
    """
    known = prompts if len(prompts) == len(texts) else [" ".join(text.split()[:4]) for text in texts]
    first: dict[str, int] = {}
    for index, beginning in enumerate(known):
        first.setdefault(beginning, index)
    return list(first.values())


def _probability(nll: float | None) -> float | None:
    """exp(-nll) with four digits, at least `SMALLEST`; None if the NLL is not finite."""
    if nll is None or not math.isfinite(nll):
        return None
    value = math.exp(-nll)
    # Rounding is several times faster than formatting, and there are millions of probabilities in a large study.
    if value < SMALLEST:
        return SMALLEST
    return round(value, 3 - math.floor(math.log10(value)))


def _sign(new: float | None, true: float | None) -> int:
    """1 if o* is likelier, -1 if o^c is likelier, 0 if they are equal or an NLL is not finite."""
    return 0 if new is None or true is None else (true > new) - (new > true)
