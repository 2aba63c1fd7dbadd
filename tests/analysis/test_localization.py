"""Scores of edits and regressions on layer and tracing, against numbers worked out by hand or with numpy."""

from __future__ import annotations

from typing import Any

import numpy as np
import pandas as pd
import pytest

from romexp.analysis.edit_scores import FLOOR, edit_scores, erased, kept, raised, score_frame
from romexp.analysis.fraction_restored import fractions
from romexp.errors import RecordError


def test_scores() -> None:
    assert raised(0.2, 0.6) == pytest.approx(0.5)
    assert raised(0.2, 0.1) == FLOOR
    assert raised(1.0, 1.0) is None
    assert erased(0.8, 0.2) == pytest.approx(0.75)
    assert (erased(0.8, 0.9), erased(0.0, 0.0)) == (0.0, None)
    assert kept(0.3, 0.3) == 1
    assert kept(0.9, 0.0) == pytest.approx(0)
    assert kept(0.5, 0.75) == pytest.approx(0.5)


def test_overall_is_the_mean_of_three() -> None:
    edit = {"objective": "erasure", "rewrite": [0.8, 0.2], "paraphrase": [0.5, 0.5], "neighborhood": [0.3, 0.3]}
    assert edit_scores(edit)["overall"] == pytest.approx((0.75 + 0 + 1) / 3)
    assert edit_scores({**edit, "paraphrase": None})["overall"] is None
    assert edit_scores({**edit, "objective": "amplification"})["rewrite"] == FLOOR


def test_fractions() -> None:
    row = {"high_score": 0.9, "low_score": 0.1, "subject_range": [1, 2]}
    row["mlp"] = [[None, 0.1], [0.5, 0.05], [0.3, 0.9]]  # type: ignore[assignment]
    found = fractions(row, kind="mlp")
    assert found["fraction"] == pytest.approx([0.5, 1.0])
    assert found["fraction_last_subject"] == pytest.approx([0.5, 0.0])
    raised_by_noise = fractions({**row, "high_score": 0.05}, kind="mlp")
    assert raised_by_noise["fraction"] == pytest.approx([0.4 / 0.05, 0.8 / 0.05])
    with pytest.raises(RecordError, match="does not change"):
        fractions({**row, "high_score": 0.1}, kind="mlp")


def frame(slope: float, noise: float, seed: int = 0) -> pd.DataFrame:
    """40 facts × 3 layers: score = the layer's mean + slope · fraction + noise."""
    random = np.random.default_rng(seed)
    layer = np.tile([0, 4, 8], 40)
    fraction = random.uniform(size=len(layer))
    score = np.array([0.1, 0.3, 0.6])[layer // 4] + slope * fraction + noise * random.normal(size=len(layer))
    return pd.DataFrame({"layer": layer, "fraction": fraction, "rewrite": score})


def explained(y: np.ndarray, x: np.ndarray) -> float:
    residual = y - x @ np.linalg.lstsq(x, y, rcond=None)[0]
    return 1 - float(residual @ residual) / float(((y - y.mean()) ** 2).sum())


def test_regression_against_numpy() -> None:
    regression = pytest.importorskip("romexp.analysis.localization").regression
    pytest.importorskip("statsmodels")
    data = frame(0.5, 0.1)
    y, x = data["rewrite"].to_numpy(), data["fraction"].to_numpy()
    layers = np.stack([data["layer"] == layer for layer in (0, 4, 8)], axis=1).astype(float)
    found = regression(data, "rewrite")
    assert found["r2_layer"] == pytest.approx(explained(y, layers))
    assert found["r2_tracing"] == pytest.approx(explained(y, np.stack([np.ones_like(x), x], axis=1)))
    both = explained(y, np.hstack([layers, layers * x[:, None]]))
    assert found["r2_both"] == pytest.approx(both)
    assert found["gain"] == pytest.approx(both - explained(y, layers))
    n = len(y)
    assert found["F"] == pytest.approx((found["gain"] / 3) / ((1 - both) / (n - 6)))
    assert found["p"] < 1e-6
    assert found["chance_gain"] == pytest.approx((1 - explained(y, layers)) * 3 / (n - 3))


def test_a_fraction_that_says_nothing_gains_what_chance_gives() -> None:
    regression = pytest.importorskip("romexp.analysis.localization").regression
    pytest.importorskip("statsmodels")
    found = [regression(frame(0.0, 0.2, seed), "rewrite") for seed in range(40)]
    gains, chances = (np.mean([each[name] for each in found]) for name in ("gain", "chance_gain"))
    assert gains == pytest.approx(chances, rel=0.3)
    assert 0.2 < np.mean([each["p"] for each in found]) < 0.8


@pytest.mark.parametrize(
    "data",
    [
        frame(0, 0).iloc[:2],
        frame(0, 0).assign(rewrite=0.5),
    ],
)
def test_what_is_not_defined_is_none(data: pd.DataFrame) -> None:
    regression = pytest.importorskip("romexp.analysis.localization").regression
    pytest.importorskip("statsmodels")
    assert set(regression(data, "rewrite").values()) == {None}


def test_one_layer_and_a_constant_fraction() -> None:
    regression = pytest.importorskip("romexp.analysis.localization").regression
    pytest.importorskip("statsmodels")
    one = regression(frame(0.5, 0.1).query("layer == 4"), "rewrite")
    assert one["r2_layer"] == 0
    assert one["gain"] == pytest.approx(one["r2_tracing"])
    same = regression(frame(0.0, 0.1).assign(fraction=0.0), "rewrite")
    assert same["gain"] is None
    assert same["r2_layer"] == pytest.approx(same["r2_both"])


def rows() -> list[dict[str, Any]]:
    edit = {"method": "rome", "objective": "erasure", "rewrite": [0.8, 0.2], "paraphrase": None, "neighborhood": None}
    known = {"case_id": 1, "correct_prediction": True, "fraction": [0.1, 0.7], "fraction_last_subject": [0.0, 0.6]}
    return [
        {**known, "edits": [{**edit, "layer": 1}, {"method": "ft", "objective": "erasure", "layer": 0, "error": "no"}]},
        {"case_id": 2, "correct_prediction": False},
    ]


def test_the_frame_has_a_line_for_each_edit_that_was_made() -> None:
    found = score_frame(rows())
    assert found[["case_id", "method", "layer", "fraction"]].values.tolist() == [[1, "rome", 1, 0.7]]
    assert found["rewrite"].tolist() == [pytest.approx(0.75)]
    assert found["overall"].isna().all()
    assert score_frame([]).empty


def test_summary() -> None:
    pytest.importorskip("statsmodels")
    from romexp.analysis.localization import flatten_localization, localization_summary

    summary = localization_summary(rows())
    assert [summary[name] for name in ("n_facts", "n_known", "n_edits", "n_edits_failed")] == [2, 1, 1, 1]
    assert summary["fraction"] == [0.1, 0.7]
    study = summary["studies"][0]
    assert (study["by_layer"], study["best_layer"], study["gain"]) == ({"1": pytest.approx(0.75)}, 1, None)
    assert flatten_localization(summary)["n_known"] == 1
