from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from romexp.analysis.traces import GROUPS, flatten_trace, group_tokens, trace_summary
from romexp.errors import ConfigError
from romexp.reporting.figures import traces as trace_figures
from romexp.reporting.tables.traces import trace_table


def row(case_id: int, *, tokens: int, span: tuple[int, int], low: float, high: float, grid: np.ndarray) -> dict:
    return {
        "case_id": case_id,
        "prompt": "a prompt " * 10,
        "tokens": [f"t{i}" for i in range(tokens)],
        "subject_range": list(span),
        "answer": " x",
        "low_score": low,
        "high_score": high,
        "correct_prediction": True,
        "hidden": grid.tolist(),
        "mlp": (grid / 2).tolist(),
        "attn": (grid / 4).tolist(),
        "severed_mlp": (grid[span[1] - 1] / 10).tolist(),
        "severed_attn": (grid[span[1] - 1] / 5).tolist(),
        "integrated_gradients": [0.1, -0.2] + [0.0] * (tokens - 2),
    }


@pytest.fixture
def rows() -> list[dict]:
    a = np.arange(12, dtype=float).reshape(6, 2) / 100 + 0.2
    b = np.arange(10, dtype=float).reshape(5, 2) / 50 + 0.1
    return [
        row(0, tokens=6, span=(1, 4), low=0.1, high=0.9, grid=a),
        row(1, tokens=5, span=(0, 1), low=0.05, high=0.65, grid=b),
        {"case_id": 2, "tokens": ["z"], "subject_range": [0, 1], "correct_prediction": False, "high_score": 0.3},
    ]


def test_groups_of_tokens() -> None:
    groups = {name: list(tokens) for name, tokens in group_tokens((1, 4), 8).items()}
    assert groups == dict(zip(GROUPS, ([1], [2], [3], [4], [5, 6], [7]), strict=True))
    short = {name: list(tokens) for name, tokens in group_tokens((0, 1), 2).items()}
    assert short == dict(zip(GROUPS, ([0], [], [0], [1], [], [1]), strict=True))


def test_averages_by_hand(rows: list[dict]) -> None:
    summary = trace_summary(rows)
    assert (summary["n"], summary["n_incorrect"]) == (2, 1)
    assert summary["ate"]["mean"] == pytest.approx((0.8 + 0.6) / 2)
    assert summary["ate"]["half_width"] == pytest.approx(1.96 * 0.1 / 2**0.5)
    last = summary["groups"]["last subject token"]["hidden"]
    # Prompt 0: token 3, 0.26 and 0.27, less 0.1; prompt 1: token 0, 0.10 and 0.12, less 0.05.
    assert last["mean"] == pytest.approx([(0.16 + 0.05) / 2, (0.17 + 0.07) / 2])
    assert last["half_width"] == pytest.approx([1.96 * 0.055 / 2**0.5, 1.96 * 0.05 / 2**0.5])
    middle = summary["groups"]["middle subject tokens"]["hidden"]
    assert (middle["n"], middle["mean"]) == (1, pytest.approx([0.14, 0.15]))
    assert summary["severed"]["ordinary"]["mean"] == pytest.approx(last["mean"])
    assert summary["severed"]["mlp"]["mean"] == pytest.approx(
        [(0.026 - 0.1 + 0.01 - 0.05) / 2, (0.027 - 0.1 + 0.012 - 0.05) / 2]
    )


def test_pooling_as_the_authors(rows: list[dict]) -> None:
    further = trace_summary(rows, pooling="authors")["groups"]["further tokens"]["hidden"]
    # Prompt 1's tokens 2 and 3 alone (prompt 0 has none): 0.18, 0.22 and 0.20, 0.24; low is over both prompts.
    assert further["mean"] == pytest.approx([0.20 - 0.075, 0.22 - 0.075])
    per_prompt = trace_summary(rows)["groups"]["further tokens"]["hidden"]
    assert per_prompt["mean"] == pytest.approx([0.20 - 0.05, 0.22 - 0.05])
    with pytest.raises(ConfigError, match="pooling"):
        trace_summary(rows, pooling="mine")  # type: ignore[arg-type]


def test_the_suggested_layer_is_where_mlps_matter_at_the_last_subject_token(rows: list[dict]) -> None:
    summary = trace_summary(rows)
    assert summary["suggested_layer"] == 1
    assert summary["peaks"]["hidden"]["group"] in GROUPS
    flat = flatten_trace(summary)
    assert flat["ate"] == pytest.approx(0.7)
    assert flat["suggested_layer"] == 1
    assert all(isinstance(v, int | float) for v in flat.values())


def test_cells_that_were_not_traced_leave_their_group_out(rows: list[dict]) -> None:
    for r in rows[:2]:
        last = r["subject_range"][1] - 1
        r["hidden"] = [cells if i == last else [None, None] for i, cells in enumerate(r["hidden"])]
    groups = trace_summary(rows)["groups"]
    assert "hidden" in groups["last subject token"]
    assert "hidden" not in groups["last token"]
    assert "mlp" in groups["last token"]


def test_nothing_traced_gives_an_empty_summary(rows: list[dict]) -> None:
    summary = trace_summary(rows[2:])
    assert (summary["n"], summary["suggested_layer"], summary["groups"]) == (0, None, {})
    assert flatten_trace(summary) == {"n": 0, "n_incorrect": 1}


def test_figures_are_drawn_and_repeat_byte_for_byte(rows: list[dict], tmp_path) -> None:
    summary = trace_summary(rows)
    for name, draw in {
        "one": lambda: trace_figures.prompt_heatmap(rows[0], window=3, model="m"),
        "gradients": lambda: trace_figures.prompt_gradients(rows[0], model="m"),
        "heat": lambda: trace_figures.average_heatmaps(summary, window=3, model="m"),
        "lines": lambda: trace_figures.average_lines(summary, window=3, model="m"),
        "severed": lambda: trace_figures.severed_bars(summary, model="m"),
    }.items():
        first = [p.read_bytes() for p in trace_figures.save(draw(), tmp_path / "a" / name)]
        again = [p.read_bytes() for p in trace_figures.save(draw(), tmp_path / "b" / name)]
        assert first == again
        assert all(len(content) > 2000 for content in first)
    with Image.open(tmp_path / "a" / "severed.png") as image:
        assert image.info["Description"].startswith("Restored states with parts severed: m, ")
    assert trace_figures.severed_bars(trace_summary(rows[2:]), model="m") is None
    assert trace_figures.prompt_gradients(rows[2], model="m") is None
    assert trace_figures.prompt_heatmap(rows[2], window=3, model="m") is None


def test_what_single_prompt_figures_say(rows: list[dict]) -> None:
    one = trace_figures.prompt_heatmap(rows[0], window=3, model="gpt_$2")
    assert one.get_suptitle().startswith(r"gpt_\$2: … ")
    assert one.get_suptitle().endswith("→ x (90%)")
    assert [label.get_text() for label in one.axes[0].get_yticklabels()] == ["t0", "t1*", "t2*", "t3*", "t4", "t5"]
    images = [axes.collections[0] for axes in one.axes[:3]]
    assert [image.get_cmap().name for image in images] == ["Purples", "Greens", "Reds"]
    assert {image.norm.vmin for image in images} == {0.1}
    assert all(image.norm.vmax > 0.1 for image in images)  # attention has no cell above the low score here
    bars = trace_figures.prompt_gradients({**rows[0], "hidden": None}, model="m").axes[0].patches
    assert [bar.get_width() for bar in bars] == rows[0]["integrated_gradients"]


def test_average_heat_maps_share_the_scale_of_the_hidden_states(rows: list[dict]) -> None:
    summary = trace_summary(rows)
    figure = trace_figures.average_heatmaps(summary, window=3, model="m")
    images = [axes.collections[0] for axes in figure.axes[:3]]
    top = max(max(cells["hidden"]["mean"]) for cells in summary["groups"].values())
    assert [image.norm.vmin for image in images] == [0, 0, 0]
    assert [image.norm.vmax for image in images] == pytest.approx([top] * 3)
    assert all(image.get_array().min() >= 0 for image in images)  # negative effects are clipped
    assert "2 facts" in figure.get_suptitle()


def test_one_fact_has_no_interval(rows: list[dict]) -> None:
    summary = trace_summary(rows[:1])
    assert summary["ate"]["half_width"] is None
    assert summary["groups"]["last token"]["mlp"]["half_width"] == [None, None]
    assert "ate_half_width" not in flatten_trace(summary)
    for figure in (trace_figures.average_lines, trace_figures.average_heatmaps):
        assert figure(summary, window=1, model="m").axes
    assert trace_figures.severed_bars(summary, model="m") is not None
    assert "(–)" in trace_table(summary, rows[:1] * 2, title="t").columns[1]._cells[0]  # type: ignore[operator]
