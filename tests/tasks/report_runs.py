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

    return _row(case_id, side(before, -2.0), side(after, strength))


def zsre_row(case_id: int, *, strength: float, seed: int = 0) -> dict[str, Any]:
    """The same for zsRE."""
    before, after = np.random.default_rng([case_id]), np.random.default_rng([case_id, seed, 100 + int(strength * 10)])

    def side(random: np.random.Generator, p: float) -> dict[str, Any]:
        return {
            f"{name}_prompts_correct": [bool(x) for x in random.random(n) < q]
            for name, n, q in (("rewrite", 2, p), ("paraphrase", 2, p - 0.1), ("neighborhood", 3, 0.3))
        }

    return _row(case_id, side(before, 0.2), side(after, strength / 4))


def _row(case_id: int, pre: dict[str, Any], post: dict[str, Any]) -> dict[str, Any]:
    request = {"subject": f"subject {case_id}", "prompt": "{} is", "target_new": "a", "target_true": "b"}
    return {"case_id": case_id, "requested_rewrite": request, "pre": pre, "post": post, "edit": {}}


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
    names = {"model": model, "dataset": dataset, "editor": editor}
    chosen = {"limit": None, "offset": 0, "shard": None, "case_ids": None, **(selection or {})}
    whole = _identity(chosen, editor, settings or {}, zsre=zsre) | dict(identity or {})
    written = {
        **_manifest(names, chosen, cases=len(ids)),
        "identity": whole,
        "hash": folder.name,
        "sessions": [{"started": finished, "finished": finished}],
        **(manifest or {}),
    }
    make = zsre_row if zsre else counterfact_row
    rows = [make(number, strength=strength, seed=seed) for number in ids]
    return write_folder(folder, manifest=written, rows=rows, status=status)


def write_folder(
    folder: Path, *, manifest: Mapping[str, Any], rows: Iterable[Mapping[str, Any]], status: str = "done"
) -> Path:
    """The files of a run that reports read."""
    folder.mkdir(parents=True)
    (folder / "cases.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    (folder / "manifest.json").write_text(json.dumps(manifest), encoding="utf-8")
    (folder / "status").write_text(status + "\n", encoding="utf-8")
    return folder


def _identity(chosen: Mapping[str, Any], editor: str, settings: Mapping[str, Any], *, zsre: bool) -> dict[str, Any]:
    return {
        "task": "edit",
        "model": {"digest": "m", "dtype": "float32"},
        "dataset": {"sha256": "d", "type": "ZsRE" if zsre else "CounterFact", **chosen},
        "editor": {**SETTINGS.get(editor, {"type": editor}), **settings},
        "covariance": {"type": "Covariance"},
        "evaluator": {"type": "ZsreEvaluator"} if zsre else EVALUATOR,
        "references": {},
        "seed": 0,
        "save_deltas": False,
    }


def _manifest(names: Mapping[str, str], chosen: Mapping[str, Any], *, cases: int) -> dict[str, Any]:
    said = {**names} | {f"dataset.{key}": value for key, value in chosen.items() if value not in (None, 0)}
    return {
        "names": {"task": "edit", **names},
        "overrides": [f"{key}={value}" for key, value in said.items()],
        "editor_label": LABELS.get(names["editor"], names["editor"]),
        "dataset": {"name": names["dataset"], "path": "records.json", "sha256": "d", "cases": cases},
        "rejected": [],
        "set_aside": [],
    }
