"""Cases of a study as the page's script reads them: probabilities before and after by prompt, generated texts."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from romexp.analysis.generations import different_prompts
from romexp.analysis.studies import Study
from romexp.facts import fill
from romexp.results.rows import Row, prompts_in

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
    by_entry = [{row["case_id"]: row for row in entry.rows} for entry in entries]
    unedited = {row["case_id"]: row for row in study.unedited_rows}
    first = unedited | {number: row for rows in reversed(by_entry) for number, row in rows.items()}
    numbers = sorted(first)
    limit = min(most_cases, max(1, MOST_SIDES // (len(by_entry) + 1)))
    return {
        "id": identifier,
        "label": study.label,
        "kind": study.kind,
        "total": len(numbers),
        "entries": [entry.label for entry in entries],
        "cases": [_case(first[n], unedited.get(n), [rows.get(n) for rows in by_entry]) for n in numbers[:limit]],
    }


def _case(any_row: Row, before: Row | None, rows: Sequence[Row | None]) -> dict[str, Any]:
    request = any_row.get("requested_rewrite") or {}
    subject = str(request.get("subject", ""))
    prompts = next(filter(None, (prompts_in(row) for row in (any_row, before, *rows) if row)), {})
    generating = prompts.get("generation_prompts", [])
    unedited = ((before or {}).get("pre") or {}).get("text") or []
    indices = different_prompts(unedited, generating)[:MOST_TEXTS]
    return {
        "id": any_row["case_id"],
        "subject": subject,
        "fact": fill(str(request.get("prompt", "")), subject),
        "target_new": str(request.get("target_new", "")),
        "target_true": str(request.get("target_true", "")),
        "prompts": {kind: prompts[f"{kind}_prompts"] for kind in KINDS if f"{kind}_prompts" in prompts},
        "answers": prompts.get("neighborhood_targets", []),
        "text_prompts": [generating[i] for i in indices] if len(generating) == len(unedited) else [],
        "pre": _side((before or {}).get("pre"), indices),
        "post": [_side((row or {}).get("post"), indices) for row in rows],
    }


def _side(measured: Mapping[str, Any] | None, indices: Sequence[int]) -> dict[str, Any] | None:
    if not isinstance(measured, Mapping):
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


def _probability(nll: float | None) -> float | None:
    """Four decimals; a positive one never becomes 0. None where it was not finite."""
    if nll is None or not math.isfinite(nll):
        return None
    return round(math.exp(-nll), 4) or 0.0001


def _sign(new: float | None, true: float | None) -> int:
    """1 where o* is likelier, -1 where o^c is; 0 for neither, also where an NLL was not finite."""
    return 0 if new is None or true is None else (true > new) - (new > true)
