"""One case with its texts, for the top of the page: what each editor made of the same fact."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

from romexp.analysis.studies import Study
from romexp.analysis.summary import UNEDITED
from romexp.reporting.page.cases import case_of, case_order
from romexp.reporting.tables.remarks import mark

MOST_TRIED = 20
"""Number of cases among which one with texts is looked for."""
MOST_EDITORS = 7
"""Most editors whose texts are shown: those with the highest S."""


def featured_case(study: Study, compared: Study) -> dict[str, Any] | None:
    """The first case that all editors share and that has texts, as values of the template; None if there is no case.

    Without any texts, it is the first case with its probabilities alone.
    """
    numbers = case_order(study, compared=compared)[:MOST_TRIED]
    entries = [entry for entry in study.entries if entry.edits]
    if not numbers or not entries:
        return None
    # With texts, or else the first: `case_of` reads from disk, so no more cases are read than needed.
    cases = (case_of(study, number) for number in numbers)
    case = next((case for case in cases if _texts(case["pre"])), None) or case_of(study, numbers[0])
    score = [(entry.metrics.get("S") or {}).get("mean") or 0.0 for entry in entries]
    order = sorted(range(len(entries)), key=lambda i: -score[i])[:MOST_EDITORS]
    sides = [(UNEDITED, case["pre"])] + [(mark(entries[i].label, entries[i]), case["post"][i]) for i in order]
    zsre = study.kind == "zsre" or not case["target_true"]
    return {
        "id": case["id"],
        "subject": case["subject"],
        "fact": case["fact"],
        "gap": " → " if case["fact"].endswith("?") else " ",
        "new": case["target_new"],
        "old": "" if zsre else case["target_true"],
        "prompt": next(iter(case["text_prompts"]), ""),
        "sides": [_side(label, side, case) for label, side in sides if side is not None],
    }


def _side(label: str, side: Mapping[str, Any], case: Mapping[str, Any]) -> dict[str, Any]:
    pairs = [pair for pair in side.get("rewrite", ()) if isinstance(pair, list)]
    new, old, _ = pairs[0] if pairs else (None, None, 0)
    texts = _texts(side)
    return {
        "label": label,
        "probabilities": None if new is None or old is None else (in_words(new), in_words(old)),
        "text": marked(texts[0], case["target_new"], case["target_true"]) if texts else (),
    }


def _texts(side: Mapping[str, Any] | None) -> Sequence[str]:
    return (side or {}).get("texts", ())


def in_words(probability: float) -> str:
    """A probability with three decimals, or as a power of ten where these are zeros: `4.1 × 10⁻⁷`."""
    if probability >= 0.001:
        return f"{probability:.3f}"
    digits, _, exponent = f"{probability:.1e}".partition("e")
    return f"{digits} × 10{str(int(exponent)).translate(str.maketrans('-0123456789', '⁻⁰¹²³⁴⁵⁶⁷⁸⁹'))}"


def marked(text: str, new: str, old: str) -> list[tuple[str, str]]:
    """The text in parts, each with `new`, `old` or nothing: both answers where they occur as whole words."""
    names = {old.strip(): "old", new.strip(): "new"}
    answers = sorted((re.escape(answer) for answer in names if answer), key=len, reverse=True)
    if not answers:
        return [(text, "")]
    parts = re.split(rf"(?<!\w)({'|'.join(answers)})(?!\w)", text)
    return [(part, names[part] if i % 2 else "") for i, part in enumerate(parts)]
