"""Effects where states are corrupted, other metrics are read or scores are normalized; and nothing is mixed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from romexp.analysis.trace_settings import setting_text
from romexp.analysis.traces import flatten_trace, trace_summary
from romexp.errors import ConfigError, DataError
from romexp.reporting.figures.traces import average_heatmaps, prompt_heatmap
from romexp.reporting.tables.traces import trace_table
from romexp.reporting.terminal_heatmap import terminal_heatmap


def row(case_id: int, *, high: float, low: float, cell: float, **setting: Any) -> dict[str, Any]:
    """Two tokens, the first of them the subject; its one replaced state at layer 1 gives `cell`."""
    base = high if setting.get("direction") == "noise" else low
    grid = [[base, cell], [base, base]]
    made: dict[str, Any] = {
        "case_id": case_id, "prompt": "x", "tokens": ["a", "b"], "subject_range": [0, 1], "answer": " y",
        "high_score": high, "low_score": low, "correct_prediction": True, "hidden": grid, "mlp": grid, "attn": grid,
    }  # fmt: skip
    return made | ({"setting": setting, "probability": 0.5} if setting else {})


@pytest.mark.parametrize(
    ("setting", "high", "low", "cell", "effect", "total"),
    [
        ({}, 0.8, 0.2, 0.5, 0.3, 0.6),
        ({"direction": "noise"}, 0.8, 0.2, 0.5, 0.3, 0.6),
        ({"direction": "noise"}, 0.8, 0.2, 0.9, -0.1, 0.6),
        ({"metric": "kl"}, 0.0, 3.0, 1.0, 2.0, 3.0),
        ({"metric": "kl", "direction": "noise"}, 0.0, 3.0, 1.0, 1.0, 3.0),
        ({"metric": "kl", "normalized": True}, 0.0, 4.0, 1.0, 0.75, 1.0),
        ({"metric": "logit_difference", "normalized": True}, 4.0, -4.0, 2.0, 0.75, 1.0),
        ({"metric": "logit_difference", "normalized": True, "direction": "noise"}, 4.0, -4.0, 2.0, 0.25, 1.0),
        ({"metric": "log_probability", "direction": "noise"}, -1.0, -5.0, -2.0, 1.0, 4.0),
    ],
)
def test_effects_by_hand(
    setting: dict[str, Any], high: float, low: float, cell: float, effect: float, total: float
) -> None:
    rows = [row(i, high=high, low=low, cell=cell, **setting) for i in range(2)]
    summary = trace_summary(rows)
    for kind in ("hidden", "mlp", "attn"):
        assert summary["groups"]["last subject token"][kind]["mean"] == pytest.approx([0, effect], abs=1e-12)
    assert summary["ate"]["mean"] == pytest.approx(total)
    assert summary.get("setting", {}) == setting
    names = flatten_trace(summary)
    assert all(name.startswith(setting_text(setting).replace(", ", ",")) for name in names)
    assert ("ate" in names) == (not setting)


def test_facts_without_a_scale_are_counted_and_left_out() -> None:
    setting = {"metric": "kl", "normalized": True}
    rows = [row(0, high=0, low=2.0, cell=1.0, **setting), row(1, high=0, low=0.01, cell=3.0, **setting)]
    summary = trace_summary([*rows, {"case_id": 2, "correct_prediction": False}])
    assert (summary["n"], summary["n_without_scale"], summary["n_incorrect"]) == (1, 1, 1)
    assert summary["peaks"]["mlp"]["aie"] == pytest.approx(0.5)
    assert "1 whose total effect is too small" in str(trace_table(summary, rows, title="t").caption)
    assert prompt_heatmap(rows[1], window=1, model="m") is None


def test_different_settings_are_never_averaged_together() -> None:
    rows = [row(0, high=0.8, low=0.2, cell=0.5), row(1, high=0.8, low=0.2, cell=0.5, corruption="str")]
    with pytest.raises(DataError, match="the paper's setting and corruption=str measure different things"):
        trace_summary(rows)
    with pytest.raises(ConfigError, match="authors"):
        trace_summary(rows[1:], pooling="authors")


def test_tables_and_figures_say_which_setting() -> None:
    setting = {"corruption": "str", "metric": "kl", "direction": "noise"}
    rows = [row(i, high=0.0, low=3.0, cell=1.0, **setting) for i in range(2)]
    summary = trace_summary(rows)
    table = trace_table(summary, rows, title="minifact")
    assert str(table.title) == "minifact (corruption=str, metric=kl, direction=noise)"
    assert str(table.caption).startswith("KL from the clean run: 2 facts")
    assert "%" not in str(table.caption)
    title = average_heatmaps(summary, window=3, model="m").get_suptitle()
    assert "KL from the clean run" in title
    assert "(corruption=str, metric=kl, direction=noise)" in title
    figure = prompt_heatmap(rows[0], window=3, model="m")
    assert figure is not None
    assert "corruption=str, metric=kl, direction=noise" in figure.get_suptitle()
    assert [axes.get_title() for axes in figure.axes[:3]] == [
        "state corrupted", "MLP corrupted, 3 layers", "attention corrupted, 3 layers",
    ]  # fmt: skip
    text = terminal_heatmap(rows[0], "mlp", window=3).plain
    assert text.startswith("MLPs corrupted, 3 layers around: KL from the clean run 0.000 to 1.000")
    assert "█" in text


def test_the_panels_of_a_prompt_share_one_scale_that_marks_both_runs() -> None:
    weak = row(0, high=0.8, low=0.2, cell=0.5) | {"attn": [[0.2, 0.21], [0.2, 0.2]]}
    figure = prompt_heatmap(weak, window=3, model="m")
    assert figure is not None
    images = [axes.collections[0] for axes in figure.axes[:3]]
    assert {(image.norm.vmin, image.norm.vmax) for image in images} == {(0.2, 0.8)}
    bars = [axes for axes in figure.axes if axes.get_label() == "<colorbar>"]
    for bar in bars:
        marked = {text.get_text(): text.xy[1] for text in bar.texts}  # type: ignore[attr-defined]
        assert marked == {"clean": 0.8, "corrupted": 0.2}
    falling = prompt_heatmap(row(0, high=0.8, low=0.2, cell=0.5, direction="noise"), window=3, model="m")
    assert falling is not None
    (first, *_) = (axes.collections[0] for axes in falling.axes[:3])
    assert (first.norm.vmin, first.norm.vmax, first.get_cmap().name) == (0.2, 0.8, "Purples_r")
    assert np.isfinite(first.get_array()).all()
