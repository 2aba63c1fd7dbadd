"""What tracing says of edits, as one table: how much of edit success the layer explains, and tracing beside it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rich.table import Table

from romexp.reporting.tables.fitting import FittingTable

OBJECTIVE_TITLES = {
    "error_injection": "error injection",
    "tracing_reversal": "tracing reversal",
    "erasure": "erasure",
    "amplification": "amplification",
    "forcing": "forcing",
}
LEAST_EXPLAINED = 0.0005


def localization_table(summary: Mapping[str, Any], *, title: str, outcome: str = "rewrite") -> Table:
    """One line for each method and objective.

    Args:
        outcome: which score is explained.
    """
    known = f"{summary['n_known']} of {summary['n_facts']} facts are known to the model, {summary['n_edits']} edits"
    caption = (
        f"{known}. R² of the {outcome} score on the layer of the edit, on the fraction that tracing restores there, "
        "and on both; the gain of both over the layer, in brackets what as many columns of noise would gain; p of its "
        "F-test. Then the layer where edits score best (the score there) and the one that restores most."
    )
    if failed := summary["n_edits_failed"]:
        caption += f" {failed} edits could not be made."
    for objective, count in summary["skipped"].items():
        caption += f" {OBJECTIVE_TITLES[objective]}: nothing to do for {count} facts."
    table = FittingTable(
        title=title, caption=caption, title_justify="left", caption_justify="left", less_important=("n", "tracing")
    )
    table.add_column("method, objective")
    for name in ("layer", "tracing", "both", "gain", "p", "best", "restores", "n"):
        table.add_column(name, justify="right")
    for study in summary["studies"]:
        if study["outcome"] == outcome:
            table.add_row(f"{study['method']}, {OBJECTIVE_TITLES[study['objective']]}", *_cells(study))
    return table


def _cells(study: Mapping[str, Any]) -> list[str]:
    best = study["best_layer"]
    where = "–" if best is None else f"{best} ({study['by_layer'][str(best)]:.2f})"
    gain = _shown(study["gain"])
    if study["chance_gain"] is not None:
        gain += f" ({study['chance_gain']:.3f})"
    shares = [_shown(study[name]) for name in ("r2_layer", "r2_tracing", "r2_both")]
    restores = "–" if study["most_restored_layer"] is None else str(study["most_restored_layer"])
    return [*shares, gain, _p(study["p"]), where, restores, str(study["n"])]


def _shown(value: float | None) -> str:
    return "–" if value is None else f"{value:.3f}"


def _p(value: float | None) -> str:
    if value is None:
        return "–"
    return "<.001" if value < LEAST_EXPLAINED else f"{value:.3f}"
