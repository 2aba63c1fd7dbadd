"""Raw records in the published schemas, for tests to spoil."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any


def counterfact_record(case_id: int) -> dict[str, Any]:
    return {
        "case_id": case_id,
        "pararel_idx": 1000 + case_id,
        "requested_rewrite": {
            "prompt": "The mother tongue of {} is",
            "relation_id": "P103",
            "target_new": {"str": "English", "id": "Q1860"},
            "target_true": {"str": "French", "id": "Q150"},
            "subject": f"Danielle Darrieux {case_id}",
        },
        "paraphrase_prompts": [f"It rained. Danielle Darrieux {case_id}, a native", "Spoken by her is"],
        "neighborhood_prompts": ["Léon Blum is a native speaker of"],
        "attribute_prompts": [],
        "generation_prompts": ["She was born in", "She was born in"],
    }


def zsre_record(number: int) -> dict[str, Any]:
    return {
        "subject": f"UniFirst {number} Ltd",
        "src": f"What does UniFirst {number} Ltd make?",
        "pred": "uniform",
        "rephrase": f"What is the product of UniFirst {number} Ltd?",
        "alt": "aircraft",
        "answers": ["uniform", "uniforms"],
        "loc": "nq question: who plays the sheriff",
        "loc_ans": "Walter Sobchak",
        "cond": "uniform >> aircraft || What does UniFirst make?",
    }


def known_record(known_id: int) -> dict[str, Any]:
    return {
        "known_id": known_id,
        "subject": "Vinson Massif",
        "attribute": "Antarctica",
        "template": "{} is located in the continent",
        "prediction": " of Antarctica. It is",
        "prompt": "Vinson Massif is located in the continent of",
        "relation_id": "P30",
    }


def write(path: Path, records: object) -> Path:
    path.write_text(json.dumps(records), encoding="utf-8")
    return path


def spoil(record: dict[str, Any], field: str, value: object) -> None:
    """Set the field at a dotted path; `...` removes it."""
    *way, last = field.split(".")
    for name in way:
        record = record[name]
    if value is ...:
        del record[last]
    else:
        record[last] = value
