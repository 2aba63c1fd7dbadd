"""What the numbers of a trace mean: its metric, its direction, and how an effect is computed from them (docs/method.md
§2.8).

A row's `setting` holds what differs from the paper's: {corruption, metric, direction, method, normalized}. The paper's
is noise, probability, denoise, exact, not normalized; its rows have no `setting`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from romexp.errors import DataError

Row = Mapping[str, Any]
Setting = Mapping[str, Any]

METRIC_TITLES = {
    "probability": "p(answer)",
    "log_probability": "log p(answer)",
    "logit_difference": "logit(answer) − logit(foil)",
    "kl": "KL from the clean run",
}
LEAST_EFFECT = {"probability": 0.01, "log_probability": 0.1, "logit_difference": 0.1, "kl": 0.1}
"""A fact of a smaller total effect has no normalized scores: they would be a ratio of two small numbers."""


def setting_of(rows: Iterable[Row]) -> dict[str, Any]:
    """The setting that all rows share.

    Raises:
        DataError: they have different settings, which must not be averaged together.
    """
    found: list[dict[str, Any]] = []
    for row in rows:
        if (setting := dict(row.get("setting") or {})) not in found:
            found.append(setting)
    if len(found) > 1:
        shown = " and ".join(setting_text(setting) or "the paper's setting" for setting in found[:2])
        raise DataError(f"traces with {shown} measure different things and are not averaged together")
    return found[0] if found else {}


def setting_text(setting: Setting) -> str:
    """The setting as on the command line: `corruption=str, metric=kl`. Empty for the paper's."""
    shown = {name: str(value).lower() if isinstance(value, bool) else value for name, value in setting.items()}
    return ", ".join(f"{name}={value}" for name, value in shown.items())


def metric_title(setting: Setting) -> str:
    """What a score is, for axes and captions."""
    title = METRIC_TITLES[setting.get("metric", "probability")]
    return f"{title}, normalized" if setting.get("normalized") else title


def restores(setting: Setting) -> bool:
    """Whether states are restored, and not corrupted."""
    return bool(setting.get("direction", "denoise") == "denoise")


def in_percent(setting: Setting) -> bool:
    """Whether scores are shares, which are shown in %; others are in nats or logits."""
    return bool(setting.get("normalized") or setting.get("metric", "probability") == "probability")


def sign(setting: Setting) -> int:
    """1 if a replaced state that has an effect raises the score, else -1.

    States that are corrupted lower it, and a divergence falls where other metrics rise.
    """
    falls = setting.get("metric") == "kl" and not setting.get("normalized")
    return -1 if restores(setting) == falls else 1


def base_name(setting: Setting) -> str:
    """The name of the score with nothing replaced."""
    return "low_score" if restores(setting) else "high_score"


def total_effect(row: Row) -> float:
    """How far the corruption takes the metric, positive where it harms the answer."""
    difference = float(row["high_score"] - row["low_score"])
    return -difference if (row.get("setting") or {}).get("metric") == "kl" else difference


def normalized(rows: Sequence[Row]) -> tuple[list[Row], int]:
    """The rows on the scale from 0 (corrupted) to 1 (clean), and the number of those that have no such scale.

        z = (x - corrupted) / (clean - corrupted)

    These are facts whose total effect is less than `LEAST_EFFECT`.
    """
    kept = [row for row in rows if total_effect(row) >= LEAST_EFFECT[row["setting"].get("metric", "probability")]]
    return [_normalized(row) for row in kept], len(rows) - len(kept)


def _normalized(row: Row) -> Row:
    low, length = row["low_score"], row["high_score"] - row["low_score"]

    def scaled(values: Any) -> Any:
        if isinstance(values, list):
            return [scaled(value) for value in values]
        return None if values is None else (values - low) / length  # None: a cell that was not traced

    names = ("hidden", "mlp", "attn", "severed_mlp", "severed_attn")
    return {**row, "low_score": 0.0, "high_score": 1.0} | {name: scaled(row[name]) for name in names if row.get(name)}


def shown_scores(row: Row) -> Row | None:
    """A row as it is shown: normalized if its setting says so. None if it has no such scale."""
    if not (row.get("setting") or {}).get("normalized"):
        return row
    rows, _ = normalized([row])
    return rows[0] if rows else None
