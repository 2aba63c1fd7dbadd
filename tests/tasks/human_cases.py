"""A small questionnaire and answers to it."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from romexp.human_eval.questionnaire import Questionnaire, draw

SYSTEMS = ("unedited", "ft_l", "rome")


def questionnaire(
    *, cases: int = 12, participants: int = 6, per_participant: int | None = 4, seed: int = 0
) -> Questionnaire:
    """Of 20 cases; every text says in a hidden word of its own who wrote it."""
    texts = {
        system: {case: [f"Case {case} prompt {p} <b>word{i}</b>" for p in range(3)] for case in range(20)}
        for i, system in enumerate(SYSTEMS)
    }
    statements = {case: f"Subject {case} plays the violin & more." for case in range(20)}
    return draw(texts, statements, cases=cases, participants=participants, per_participant=per_participant, seed=seed)


Judge = Callable[[int, str, str], float]
"""What a participant feels: (case id, measure, system) → the higher the better."""


def prefer_rome(case_id: int, measure: str, system: str) -> float:
    return SYSTEMS.index(system)


def answers(key: dict[str, Any], participant: int, judge: Judge = prefer_rome) -> dict[str, Any]:
    """What the page would save."""
    items = {item["id"]: item for item in key["items"]}
    rankings: dict[str, dict[str, list[int]]] = {}
    for number in key["plan"][(participant - 1) % len(key["plan"])]:
        item = items[number]
        rankings[str(number)] = {}
        for measure in ("consistency", "fluency"):
            best_first = sorted(item["order"], key=lambda system: -judge(item["case_id"], measure, system))
            rankings[str(number)][measure] = [best_first.index(system) + 1 for system in item["order"]]
    return {
        "questionnaire": key["questionnaire"],
        "participant": participant,
        "saved": f"2026-01-01T00:00:{participant:02}Z",
        "rankings": rankings,
    }


def write(folder: Path, content: dict[str, Any], name: str = "") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / (name or f"answers-{content['participant']}.json")
    path.write_text(json.dumps(content))
    return path
