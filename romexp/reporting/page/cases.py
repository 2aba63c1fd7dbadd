"""Cases of a study as the page's script reads them: probabilities before and after by prompt, generated texts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from romexp.analysis.studies import Study
from romexp.results.rows import CaseResult

KINDS = ("rewrite", "paraphrase", "neighborhood", "attribute")
MOST_SIDES = 4000
"""Measured sides (cases × editors) that one study may put into a page: a sweep of many entries shows fewer cases."""
MOST_TEXTS = 3
"""Texts a case and model: one for each of the first different prompts."""


def case_data(study: Study, *, identifier: str, most_cases: int) -> dict[str, Any]:
    """JSON-ready: the study's first cases, at most `most_cases`, and how many there are in all.

    A side is {kind: [[P(o*), P(o^c), sign], …], "texts": […]}, with the sign of P(o*) - P(o^c) before they are rounded;
    for zsRE {kind: [0 or 1, …]}; null where it was not measured. `prompts` has the same kinds and, for zsRE, the
    neighbours' `answers`; `text_prompts` stand beside the texts. They are empty where the rows lack them.
    """
    entries = [entry for entry in study.entries if entry.edits]
    by_entry = [{result.case_id: result for result in entry.results} for entry in entries]
    unedited = {result.case_id: result for result in study.unedited_results}
    first = unedited | {number: result for results in reversed(by_entry) for number, result in results.items()}
    numbers = sorted(first)
    limit = min(most_cases, max(1, MOST_SIDES // (len(by_entry) + 1)))
    return {
        "id": identifier,
        "label": study.label,
        "kind": study.kind,
        "total": len(numbers),
        "entries": [entry.label for entry in entries],
        "cases": [_case(first[n], unedited.get(n), [results.get(n) for results in by_entry]) for n in numbers[:limit]],
    }


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
    """Index of the first text of each prompt: prompts are drawn repeatedly.

    Args:
        prompts: one a text; where they are not known the texts' first words tell, since texts begin with their prompt.
    """
    known = prompts if len(prompts) == len(texts) else [" ".join(text.split()[:4]) for text in texts]
    first: dict[str, int] = {}
    for index, beginning in enumerate(known):
        first.setdefault(beginning, index)
    return list(first.values())


def _probability(nll: float | None) -> float | None:
    """Four decimals; a positive one never becomes 0. None where it was not finite."""
    if nll is None or not math.isfinite(nll):
        return None
    return round(math.exp(-nll), 4) or 0.0001


def _sign(new: float | None, true: float | None) -> int:
    """1 where o* is likelier, -1 where o^c is; 0 for neither, also where an NLL was not finite."""
    return 0 if new is None or true is None else (true > new) - (new > true)
