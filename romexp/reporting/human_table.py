"""Scores of a human evaluation as tables for the terminal, with the paper's statement beside."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

_ADJECTIVE = {"consistency": "more consistent", "fluency": "more fluent"}
_DASH = "–"


def score_tables(scores: Mapping[str, Mapping[str, Any]], labels: Mapping[str, str]) -> list[Table]:
    """One table of pairs a measure, and one of the systems.

    Args:
        scores: of `human_scores.score`.
        labels: of the systems, for people.
    """
    return [*(_pairs(measure, entry, labels) for measure, entry in scores.items()), _systems(scores, labels)]


def _pairs(measure: str, entry: Mapping[str, Any], labels: Mapping[str, str]) -> Table:
    agreement = entry["agreement"]
    title = (
        f"{measure}: {entry['rankings']} rankings of {agreement['cases']} cases by {agreement['participants']} people"
    )
    alpha = f"Krippendorff's alpha {_number(agreement['alpha'])} {_interval(agreement['interval'])}".rstrip()
    table = Table(title=title, caption=f"{alpha}; 95 % intervals in brackets")
    table.add_column("ranked " + _ADJECTIVE[measure], no_wrap=True)
    for column in ("times", "share", "", "ratio", "", "paper"):
        table.add_column(column, justify="right", no_wrap=True)
    for pair in entry["pairs"]:
        percent = [None if value is None else 100 * value for value in pair["share_interval"]]
        table.add_row(
            f"{labels[pair['one']]} than {labels[pair['other']]}",
            f"{pair['wins']} of {pair['wins'] + pair['losses']}",
            f"{100 * pair['share']:.1f} %",
            _interval(percent, digits=1),
            _number(pair["ratio"]),
            _interval(pair["ratio_interval"]),
            _number(pair["published_ratio"]),
        )
    return table


def _systems(scores: Mapping[str, Mapping[str, Any]], labels: Mapping[str, str]) -> Table:
    table = Table(title="mean rank (1 is best), and how often first")
    table.add_column("system")
    for measure in scores:
        table.add_column(measure, justify="right")
    for system, label in labels.items():
        entries = [entry["systems"][system] for entry in scores.values()]
        table.add_row(label, *(f"{entry['mean_rank']:.2f} ({100 * entry['first']:.0f} %)" for entry in entries))
    return table


def _number(value: float | None, digits: int = 2) -> str:
    return _DASH if value is None else f"{value:.{digits}f}"


def _interval(interval: list[float | None], digits: int = 2) -> str:
    low, high = interval
    return "" if low is None and high is None else f"[{_number(low, digits)}, {_number(high, digits)}]"
