"""Does tracing say where to edit? Regressions of edit success on the layer of the edit and on what tracing restores
there (Hase et al. 2023; docs/method.md §14.4).
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd

from romexp.analysis.edit_scores import OUTCOMES, score_frame
from romexp.errors import ConfigError
from romexp.results.rows import Row

Summary = dict[str, Any]


def check_installed() -> None:
    """Make sure that statsmodels is there, before hours of edits.

    Raises:
        ConfigError: it is not.
    """
    try:
        import statsmodels.api  # noqa: F401  # It takes seconds, and other tasks do not need it.
    except ImportError as error:
        raise ConfigError(
            "task=localization needs statsmodels for its regressions: pip install 'romexp[localization]'"
        ) from error


def localization_summary(rows: Sequence[Row]) -> Summary:
    """The summary of a study: numbers of facts, the fraction restored by layer, and for each method, objective and
    outcome the means by layer and the regressions.
    """
    known = [row for row in rows if row["correct_prediction"]]
    frame = score_frame(rows)
    restored = {
        name: np.mean([row[name] for row in known], axis=0).tolist() if known else []
        for name in ("fraction", "fraction_last_subject")
    }
    return {
        "n_facts": len(rows),
        "n_known": len(known),
        "n_edits": len(frame),
        "n_edits_failed": sum("error" in edit for row in known for edit in row["edits"]),
        "skipped": _skipped(known),
        **restored,
        "studies": [
            {"method": method, "objective": objective, "outcome": outcome} | _study(part, outcome)
            for (method, objective), part in frame.groupby(["method", "objective"], sort=False)
            for outcome in OUTCOMES
        ],
    }


def _study(part: pd.DataFrame, outcome: str) -> dict[str, Any]:
    """One method, objective and outcome: means by layer, the layers with the highest, and the regression."""
    used = part.dropna(subset=[outcome, "fraction"])
    by_layer = used.groupby("layer")[[outcome, "fraction"]].mean()
    best = {
        name: int(by_layer.index[int(by_layer[column].argmax())]) if len(by_layer) else None
        for name, column in (("best_layer", outcome), ("most_restored_layer", "fraction"))
    }
    return {
        "n": len(used),
        "n_undefined": len(part) - len(used),
        "by_layer": {str(layer): float(value) for layer, value in by_layer[outcome].items()},
        **best,
        "correlation_within_layers": _within(used, outcome),
        **regression(used, outcome),
    }


def regression(frame: pd.DataFrame, outcome: str) -> dict[str, float | None]:
    """Least squares with one line for each fact and layer.

    Args:
        frame: with the columns `layer`, `fraction` and `outcome`, without missing values.

    Returns:
        R² of the layer alone (a mean for each layer), of tracing alone (one straight line), of both (a straight line
        for each layer); the gain of both over the layer alone, the gain that as many columns of noise would have on
        average, and the F-test of the gain. None where a number is not defined: too few lines, or nothing varies.
    """
    import statsmodels.api as sm  # It takes seconds, and other tasks do not need it.

    nothing = dict.fromkeys(("r2_layer", "r2_tracing", "r2_both", "gain", "chance_gain", "F", "p"), None)
    y = frame[outcome].to_numpy(dtype=float)
    if len(y) < 3 or np.ptp(y) == 0:
        return {**nothing}
    x = frame["fraction"].to_numpy(dtype=float)
    layers = np.unique(frame["layer"])
    dummies = (frame["layer"].to_numpy()[:, None] == layers[None]).astype(float)
    designs = (dummies, sm.add_constant(x, has_constant="add"), np.hstack([dummies, dummies * x[:, None]]))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # on columns that say nothing, which are seen to below
        layer, tracing, both = (sm.OLS(y, design, hasconst=True).fit() for design in designs)
    # A layer in which nothing varies adds a column that says nothing, so ranks are compared and not columns.
    added = round(layer.df_resid - both.df_resid)
    result = nothing | {
        "r2_layer": _number(layer.rsquared) if len(layers) > 1 else 0.0,
        "r2_tracing": _number(tracing.rsquared),
        "r2_both": _number(both.rsquared),
    }
    if added < 1 or both.df_resid < 1 or result["r2_both"] is None:
        return result
    gain = max(0.0, float(layer.ssr - both.ssr) / float(layer.centered_tss))
    chance = float(layer.ssr / layer.centered_tss) * added / float(layer.df_resid)
    f, p = (None, None) if both.ssr <= 1e-12 * both.centered_tss else both.compare_f_test(layer)[:2]
    return result | {"gain": gain, "chance_gain": chance, "F": _number(f), "p": _number(p)}


def _within(frame: pd.DataFrame, outcome: str) -> float | None:
    """Pearson's correlation of outcome and fraction restored after the mean of each layer is taken away."""
    centred = frame[[outcome, "fraction"]] - frame.groupby("layer")[[outcome, "fraction"]].transform("mean")
    if len(centred) < 3 or (centred.abs().max() < 1e-12).any():
        return None
    return _number(centred[outcome].corr(centred["fraction"]))


def _skipped(known: Sequence[Row]) -> dict[str, int]:
    """By objective the number of facts of which it asks nothing."""
    counts: dict[str, int] = {}
    for row in known:
        for objective in row.get("skipped", {}):
            counts[objective] = counts.get(objective, 0) + 1
    return counts


def _number(value: Any) -> float | None:
    return None if value is None or not math.isfinite(value) else float(value)


def flatten_localization(summary: Summary) -> dict[str, float]:
    """The numbers of a summary for a tracker, by names such as `rome/erasure/rewrite/gain`."""
    flat = {name: float(summary[name]) for name in ("n_facts", "n_known", "n_edits")}
    for study in summary["studies"]:
        prefix = "/".join(study[name] for name in ("method", "objective", "outcome"))
        flat |= {
            f"{prefix}/{name}": float(study[name])
            for name in ("r2_layer", "r2_tracing", "r2_both", "gain", "p")
            if study[name] is not None
        }
    return flat
