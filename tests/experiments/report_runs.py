"""Run folders made up for reports: rows drawn at random around chosen means, manifests as runs write them."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

SETTINGS: Mapping[str, Mapping[str, Any]] = {
    "rome": {"type": "Rome", "layer": 17},
    "ft": {"type": "FineTune", "layer": 1, "norm_constraint": None},
    "ft_l": {"type": "FineTune", "layer": 0, "norm_constraint": 0.0005},
}
LABELS = {"rome": "ROME", "ft": "FT", "ft_l": "FT+L", "kn": "KN"}
EVALUATOR = {"type": "CounterFactEvaluator", "generation": "off"}


def counterfact_row(case_id: int, *, strength: float, seed: int = 0) -> dict[str, Any]:
    """A case whose edit succeeds the more often the stronger it is; its unedited side depends on the case alone."""
    before, after = np.random.default_rng([case_id]), np.random.default_rng([case_id, seed, 100 + int(strength * 10)])

    def side(random: np.random.Generator, shift: float) -> dict[str, Any]:
        def pairs(n: int, toward: float) -> list[list[float]]:
            return [[round(float(x), 6) for x in (4 - toward + random.normal(), 4 + random.normal())] for _ in range(n)]

        return {
            "rewrite_prompts": pairs(1, shift),
            "paraphrase_prompts": pairs(2, shift - 0.5),
            "neighborhood_prompts": pairs(10, min(-1.0, shift - 4)),
        }

    request = {"subject": f"subject {case_id}", "prompt": "{} is", "target_new": "a", "target_true": "b"}
    return {
        "case_id": case_id,
        "requested_rewrite": request,
        "pre": side(before, -2.0),
        "post": side(after, strength),
        "edit": {},
    }


def zsre_row(case_id: int, *, strength: float, seed: int = 0) -> dict[str, Any]:
    """The same for zsRE."""
    before, after = np.random.default_rng([case_id]), np.random.default_rng([case_id, seed, 100 + int(strength * 10)])

    def side(random: np.random.Generator, p: float) -> dict[str, Any]:
        return {
            f"{name}_prompts_correct": [bool(x) for x in random.random(n) < q]
            for name, n, q in (("rewrite", 2, p), ("paraphrase", 2, p - 0.1), ("neighborhood", 3, 0.3))
        }

    request = {"subject": f"subject {case_id}", "prompt": "{} is", "target_new": "a", "target_true": "b"}
    return {
        "case_id": case_id,
        "requested_rewrite": request,
        "pre": side(before, 0.2),
        "post": side(after, strength / 4),
        "edit": {},
    }


def write_run(
    folder: Path,
    ids: Iterable[int],
    *,
    model: str = "minifact",
    dataset: str = "minifact",
    editor: str = "rome",
    settings: Mapping[str, Any] | None = None,
    strength: float = 3.0,
    zsre: bool = False,
    status: str = "done",
    selection: Mapping[str, Any] | None = None,
    identity: Mapping[str, Any] | None = None,
    manifest: Mapping[str, Any] | None = None,
    finished: str = "2026-01-01T00:00:00+00:00",
    seed: int = 0,
) -> Path:
    """A run's folder with a row for each id.

    Args:
        settings: of the editor, on top of the usual ones.
        selection: `limit`, `shard`, … of the data set.
        identity: parts that replace the usual ones.
        manifest: entries that replace the usual ones.
        seed: of the rows.
    """
    ids = list(ids)
    make = zsre_row if zsre else counterfact_row
    chosen = {"limit": None, "offset": 0, "shard": None, "case_ids": None, **(selection or {})}
    said = [f"dataset.{key}={value}" for key, value in chosen.items() if value not in (None, 0)]
    whole = {
        "task": "edit",
        "model": {"digest": "m", "dtype": "float32"},
        "dataset": {"sha256": "d", "type": "ZsRE" if zsre else "CounterFact", **chosen},
        "editor": {**SETTINGS.get(editor, {"type": editor}), **(settings or {})},
        "covariance": {"type": "Covariance"},
        "evaluator": {"type": "ZsreEvaluator"} if zsre else EVALUATOR,
        "references": {},
        "seed": 0,
        "save_deltas": False,
        **(identity or {}),
    }
    written = {
        "identity": whole,
        "hash": folder.name,
        "names": {"task": "edit", "model": model, "dataset": dataset, "editor": editor},
        "overrides": [f"model={model}", f"dataset={dataset}", f"editor={editor}", *said],
        "editor_label": LABELS.get(editor, editor),
        "dataset": {"name": dataset, "path": "records.json", "sha256": "d", "cases": len(ids)},
        "rejected": [],
        "set_aside": [],
        "sessions": [{"started": finished, "finished": finished}],
        **(manifest or {}),
    }
    folder.mkdir(parents=True)
    rows = [make(number, strength=strength, seed=seed) for number in ids]
    (folder / "cases.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (folder / "manifest.json").write_text(json.dumps(written), encoding="utf-8")
    (folder / "status").write_text(status + "\n", encoding="utf-8")
    return folder
