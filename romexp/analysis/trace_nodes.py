"""Averages over facts of what heads, neurons and the logit lens show (docs/method.md §2.10)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from romexp.analysis.trace_settings import base_name, setting_of
from romexp.analysis.traces import traced

Row = Mapping[str, Any]

MOST_NEURONS = 50


def node_summary(rows: Sequence[Row]) -> dict[str, Any]:
    """The summary of a run with `tracer.nodes`.

    Returns:
        Numbers of facts, and for `heads` the mean effect [layers][heads]; for `neurons` those that are among the top of
        most facts, with the number of facts and the mean effect; for `lens` by layer the mean probability of the answer
        and the share of facts for which it is the most likely token, at the last token and at the subject's last token.

    Raises:
        DataError: the rows have different settings.
    """
    known = traced(rows)
    summary: dict[str, Any] = {
        "nodes": known[0]["nodes"] if known else "",
        "n": len(known),
        "n_incorrect": len(rows) - len(known),
        "setting": setting_of(rows),
    }
    parts = {"heads": _heads, "neurons": _neurons, "lens": _lens}
    return summary | (parts[summary["nodes"]](known) if known else {})


def base_score(row: Mapping[str, Any]) -> float:
    """The metric with nothing replaced."""
    return float(row[base_name(row.get("setting") or {})])


def _heads(rows: Sequence[Row]) -> dict[str, Any]:
    effects = np.array([np.array(row["heads"], dtype=float) - base_score(row) for row in rows])
    return {"heads": effects.mean(axis=0).tolist()}


def _neurons(rows: Sequence[Row]) -> dict[str, Any]:
    found: dict[tuple[int, int], list[float]] = {}
    promotes: dict[tuple[int, int], list[str]] = {}
    for row in rows:
        best: dict[tuple[int, int], float] = {}
        for neuron in row["neurons"]:
            place = (neuron["layer"], neuron["neuron"])
            value = neuron["estimate"] if neuron["effect"] is None else neuron["effect"]
            if abs(value) > abs(best.get(place, 0.0)):
                best[place], promotes[place] = value, neuron["promotes"]
        for place, value in best.items():
            found.setdefault(place, []).append(value)
    ranked = sorted(found, key=lambda place: (-len(found[place]), -abs(float(np.mean(found[place])))))
    return {
        "neurons": [
            {
                "layer": layer,
                "neuron": number,
                "n_facts": len(found[layer, number]),
                "effect": float(np.mean(found[layer, number])),
                "promotes": promotes[layer, number],
            }
            for layer, number in ranked[:MOST_NEURONS]
        ]
    }


def _lens(rows: Sequence[Row]) -> dict[str, Any]:
    def at(name: str, token: int | None) -> np.ndarray:
        places = [-1 if token is None else row["subject_range"][1] - 1 for row in rows]
        return np.array([row[name][place] for row, place in zip(rows, places, strict=True)], dtype=float)

    return {
        "lens": {
            where: {
                "probability": at("lens", token).mean(axis=0).tolist(),
                "first": (at("lens_ranks", token) == 1).mean(axis=0).tolist(),
            }
            for where, token in (("last token", None), ("last subject token", 0))
        }
    }
