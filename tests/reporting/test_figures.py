"""Figures show the numbers that studies hold, and are byte-identical when drawn again."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from page_runs_made_up import change_rows, studies, write_editors, write_sweep
from PIL import Image
from report_runs import write_run

from romexp.analysis.studies import Study
from romexp.analysis.summary import case_frame
from romexp.analysis.sweeps import sweep_axis
from romexp.reporting.figures import draw_all as figures
from romexp.reporting.figures.draw_all import MOST_BARS, draw_all, drawings
from romexp.reporting.figures.editors import case_boxes, editor_bars
from romexp.reporting.figures.style import (
    EDITORS,
    UNEDITED_COLOR,
    editor_color,
    interval,
    panel_rows,
    plain,
    write_figure,
)
from romexp.reporting.figures.sweeps import sweep_figure
from romexp.results.rows import CaseResult


def statistic(mean: float, half: float | None = 1.0) -> dict[str, object]:
    return {"mean": mean, "half_width": half, "n": 5}


def sweep_study(root: Path) -> Study:
    write_sweep(root)
    (study,) = studies(root)
    return study


def captions(study: Study) -> dict[str, str]:
    return {what: caption for what, caption, _ in drawings(study)}


def efficacy(
    entries: Sequence[Mapping[str, Any]], means: Sequence[float | None] | None = None, half: float | None = 1.0
) -> Axes:
    """The panel of ES in the figure of a sweep; the n-th entry has the mean 10 n if nothing else is said."""
    axis = sweep_axis(entries)
    assert axis is not None
    after = [{} if mean is None else {"ES": statistic(mean, half)} for mean in means or range(0, 10 * len(entries), 10)]
    figure = sweep_figure(axis, after, before=None, single=("ROME", "#123456"), title="t")
    return next(axes for axes in figure.axes if axes.get_title() == "Efficacy score (ES)")


def ticks(panel: Axes) -> dict[str, float]:
    return {text.get_text(): float(at) for text, at in zip(panel.get_xticklabels(), panel.get_xticks(), strict=True)}


def bars(panel: Axes) -> list[tuple[float, float]]:
    """Ends of the upright intervals of points without neighbours."""
    segments = [each for c in panel.collections if isinstance(c, LineCollection) for each in c.get_segments()]
    return [(float(each[0][1]), float(each[1][1])) for each in segments]


class TestSweepFigure:
    def test_lines_and_bands_are_means_and_intervals(self) -> None:
        axis = sweep_axis([{"editor.layer": 0}, {"editor.layer": 2}, {"editor.layer": 1}, {"editor.layer": 3}])
        assert axis is not None
        after = [{"ES": statistic(value, half)} for value, half in ((10, 1), (30, None), (20, 2), (40, 3))]
        figure = sweep_figure(axis, after, before={"ES": statistic(5)}, single=("ROME", "#123456"), title="t")
        panel = next(axes for axes in figure.axes if axes.get_title() == "Efficacy score (ES)")
        edited, unedited = panel.lines
        assert (edited.get_label(), edited.get_color()) == ("ROME", "#123456")
        assert panel.get_ylabel() == "%"
        assert list(edited.get_ydata()) == [10, 20, 30, 40]
        assert list(edited.get_xdata()) == [0, 1, 2, 3]
        assert unedited.get_ydata() == [5, 5]
        ends = panel.collections[0].get_paths()[0].vertices[:, 1]
        assert {9, 11, 18, 22} <= set(ends)
        assert 30 not in ends
        assert bars(panel) == [(37, 43)]

    def test_layers_stand_at_their_numbers(self) -> None:
        panel = efficacy([{"editor.layer": layer} for layer in (24, 4, 16, 10)])
        (line,) = panel.lines
        assert list(line.get_xdata()) == [4, 10, 16, 24]
        assert list(line.get_ydata()) == [10, 30, 20, 0]
        assert ticks(panel) == {"4": 4, "10": 10, "16": 16, "24": 24}
        # On paper too: 10 and 24 are further from each other than 4 and 10, as 14 is more than 6.
        at = panel.transData.transform([(x, 0) for x in (4, 10, 24)])[:, 0]
        assert (at[2] - at[1]) / (at[1] - at[0]) == pytest.approx(14 / 6)

    def test_lines_with_the_same_values_are_seen_beside_each_other(self) -> None:
        panel = efficacy([{"editor.layer": i, "editor.fact_token": t} for i in (4, 10, 24) for t in ("last", "a")])
        first, second = (np.asarray(line.get_xdata()) for line in panel.lines)
        assert (second - first) == pytest.approx(0.06 * 6 * np.ones(3))
        assert (first + second) / 2 == pytest.approx([4, 10, 24])

    def test_bounds_stand_on_a_logarithmic_axis_and_null_apart(self) -> None:
        panel = efficacy([{"editor.norm_constraint": bound} for bound in (None, 5e-4, 5e-3, 5e-2)], [50, 20, 30, 40])
        at = ticks(panel)
        assert panel.get_xscale() == "log"
        assert list(at) == ["0.0005", "0.005", "0.05", "none"]
        assert [at[text] for text in ("0.0005", "0.005", "0.05")] == pytest.approx([5e-4, 5e-3, 5e-2])
        assert at["none"] / at["0.05"] > 10
        line, border = panel.lines
        # NaN: the line does not lead from the last number to null.
        assert np.asarray(line.get_ydata()).tolist() == pytest.approx([20, 30, 40, np.nan, 50], nan_ok=True)
        assert at["0.05"] < border.get_xdata()[0] < at["none"]
        assert bars(panel) == [(49, 51)]

    def test_without_null_nothing_stands_apart(self) -> None:
        panel = efficacy([{"editor.norm_constraint": bound} for bound in (5e-4, 5e-3)])
        assert len(panel.lines) == 1
        assert bars(panel) == []

    def test_names_stand_side_by_side_and_nothing_joins_them(self) -> None:
        panel = efficacy([{"editor.keys": keys} for keys in ("prompt", None, "averaged")])
        assert ticks(panel) == {"averaged": 0, "prompt": 1, "none": 2}
        (line,) = panel.lines
        assert line.get_linestyle() == "None"
        assert bars(panel) == [(19, 21), (0, 1), (9, 11)]
        assert efficacy([{"editor.layer": i} for i in (0, 1)]).lines[0].get_linestyle() == "-"

    def test_labels_do_not_overlap(self) -> None:
        bounds = [1e-4 * i for i in (*range(5, 11), 20, 30, 40, 50)]
        for entries in (
            [{"editor.norm_constraint": round(bound, 5)} for bound in (*bounds, 1e-4)] + [{}],
            [{"editor.steps": steps} for steps in (1, 2, 3, 500)],
            [{"editor.layer": layer} for layer in range(48)],
            [{"editor.keys": f"a very long name {i} that goes on and on"} for i in range(4)],
        ):
            panel = efficacy(entries, [50] * len(entries))
            FigureCanvasAgg(panel.figure).draw()
            labels = panel.get_xticklabels()
            starts = [float(text.get_transform().transform(text.get_position())[0]) for text in labels]
            height = labels[0].get_fontsize() * panel.figure.dpi / 72
            assert all(right - left > height for left, right in pairwise(starts))
            # Each value has a tick, and the first one has its label.
            assert len(panel.get_xticks()) + len(panel.get_xticks(minor=True)) == len(entries)
            assert labels[0].get_text()

    def test_a_run_that_is_missing_breaks_its_line(self) -> None:
        tokens, layers = ("last", "subject_last"), (0, 1, 2)
        whole = [{"editor.layer": i, "editor.fact_token": t} for t in tokens for i in layers]
        first, second = efficacy(whole[:4] + whole[5:], [50] * 5).lines
        assert np.asarray(first.get_ydata()).tolist() == pytest.approx([50, np.nan, 50], nan_ok=True)
        assert np.asarray(second.get_ydata()).tolist() == [50, 50, 50]

    def test_of_a_study_has_the_papers_panels(self, tmp_path: Path) -> None:
        study = sweep_study(tmp_path)
        drawn = {what: figure for what, _, figure in drawings(study)}
        titles = [axes.get_title() for axes in drawn["sweep_rome"].axes if axes.axison]
        assert [title.split("(")[1][:-1] for title in titles] == ["S", "ES", "PS", "NS", "EM", "PM", "NM"]


class TestEditors:
    def test_bars_are_means_and_whiskers_intervals(self) -> None:
        sides = {"FT": {"EM": statistic(-20.04, 2)}, "ROME": {"EM": statistic(90, 3)}}
        figure = editor_bars(
            sides, before={"EM": statistic(-0.04, 0)}, colors={"FT": "#111111", "ROME": "#222222"}, title="t"
        )
        panel = next(axes for axes in figure.axes if axes.get_title() == "Efficacy magnitude (EM)")
        assert [bar.get_width() for bar in panel.patches] == [-0.04, -20.04, 90]
        assert [to_hex(bar.get_facecolor()) for bar in panel.patches] == [UNEDITED_COLOR, "#111111", "#222222"]
        assert panel.get_xlabel() == "percentage points"
        assert [text.get_text() for text in panel.texts] == ["0.0", "−20.0", "90.0"]
        assert max(panel.get_xticks()) <= 100
        low, high = panel.get_xlim()
        assert low < -22.04
        assert high > 93
        names = [text.get_text() for axes in figure.axes if axes is not panel for text in axes.texts]
        assert names == ["unedited", "FT", "ROME"]

    def test_boxes_are_quartiles_of_cases(self) -> None:
        nlls = [0.1, 0.5, 1.0, 2.0, 3.0]
        rows = [{"case_id": i, "post": {"rewrite_prompts": [[nll, 50.0]]}} for i, nll in enumerate(nlls)]
        frame = case_frame([CaseResult.from_json(row) for row in rows])
        figure = case_boxes({"ROME": frame}, colors={"ROME": "#222222"}, title="t")
        assert figure is not None
        median = figure.axes[0].lines[4].get_ydata()
        assert median == pytest.approx(100 * np.exp(-1.0) * np.ones(2), abs=0.01)
        nothing = case_frame([CaseResult.from_json({"case_id": 0})])
        assert case_boxes({"ROME": nothing}, colors={}, title="t") is None

    def test_rome_and_attnedit_get_a_figure_of_their_own(self, tmp_path: Path) -> None:
        write_editors(tmp_path, editors={"rome": 4.0, "ft_attn": 3.0})
        assert "rome_attnedit" not in captions(studies(tmp_path)[0])  # "cases" shows these two
        write_editors(tmp_path / "more", editors={"ft": 2.0})
        assert "rome_attnedit" in captions(studies(tmp_path)[0])

    def test_an_editor_has_one_colour_in_all_figures(self, tmp_path: Path) -> None:
        write_editors(tmp_path / "texts", editors={"ft": 2.0, "rome": 3.0})
        for layer in (0, 1):
            write_run(tmp_path / f"q{layer}", range(2), dataset="zsre", zsre=True, settings={"layer": layer})
        drawn = {what: figure for study in studies(tmp_path) for what, _, figure in drawings(study)}
        bars = {to_hex(bar.get_facecolor()) for bar in drawn["editors"].axes[0].patches}
        assert bars == {UNEDITED_COLOR, EDITORS["rome"].lower()}  # zsRE: two layers of ROME
        assert drawn["sweep_rome"].axes[0].lines[0].get_color() == EDITORS["rome"]
        first = next(figure for what, _, figure in drawings(studies(tmp_path)[0]) if what == "editors")
        assert [to_hex(bar.get_facecolor()) for bar in first.axes[0].patches] == [
            UNEDITED_COLOR,
            EDITORS["ft"].lower(),
            EDITORS["rome"].lower(),
        ]
        assert len(set(EDITORS.values())) == len(EDITORS)
        assert editor_color("mine") == editor_color("mine") not in EDITORS.values()

    def test_the_editor_that_does_nothing_is_the_unedited_model(self, tmp_path: Path) -> None:
        write_editors(tmp_path, editors={"none": 0.0})
        assert "editors" in captions(studies(tmp_path)[0])  # alone it is shown
        write_editors(tmp_path / "more", editors={"ft": 2.0})
        (study,) = studies(tmp_path)
        bars = next(figure for what, _, figure in drawings(study) if what == "editors")
        assert [label.get_text() for label in bars.axes[0].get_yticklabels()] == ["unedited", "FT"]

    def test_a_large_sweep_is_no_bar_chart(self, tmp_path: Path) -> None:
        write_sweep(tmp_path, layers=range(MOST_BARS // 2 + 1), n=2)
        assert list(captions(studies(tmp_path)[0])) == ["sweep_rome"]
        write_run(tmp_path / "ft", range(2), editor="ft")
        assert list(captions(studies(tmp_path)[0])) == ["editors", "cases", "sweep_rome"]


def test_figures_are_byte_identical_when_repeated(tmp_path: Path) -> None:
    write_editors(tmp_path / "runs", n=2)
    first = draw_all(studies(tmp_path / "runs"), tmp_path / "a")
    again = draw_all(studies(tmp_path / "runs"), tmp_path / "b")
    names = [f"minifact_minifact_{what}" for what in ("editors", "cases")]
    assert [path.name for path in first] == [f"{name}{ending}" for name in names for ending in (".pdf", ".png")]
    assert [path.read_bytes() for path in first] == [path.read_bytes() for path in again]
    with Image.open(tmp_path / "a" / "minifact_minifact_editors.png") as image:
        assert image.info["Description"] == "Editors on minifact, minifact, 2 cases; whiskers are 95 % intervals."
    # The control: other results look otherwise.
    change_rows(tmp_path / "runs" / "ft0", {0: {"post": {"rewrite_prompts": [[9.0, 0.1]]}}})
    _, caption, figure = next(drawings(studies(tmp_path / "runs")[0]))
    other = write_figure(figure, tmp_path / "c" / "editors", caption=caption)
    assert [path.read_bytes() for path in other] != [path.read_bytes() for path in first[:2]]


def test_studies_of_one_name_do_not_overwrite_each_other(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(figures, "drawings", lambda study, **_: [("editors", "a caption", Figure())])
    write_editors(tmp_path / "runs", editors={"rome": 3.0}, n=1)
    write_run(tmp_path / "runs" / "other", range(1))
    names = [path.name for path in draw_all(studies(tmp_path / "runs"), tmp_path / "figures")]
    assert names == [f"minifact_minifact{number}_editors{end}" for number in ("", "_2") for end in (".pdf", ".png")]


def test_a_sweep_of_zsre_has_its_own_panels(tmp_path: Path) -> None:
    for layer in (0, 1):
        write_run(tmp_path / str(layer), range(3), zsre=True, settings={"layer": layer})
    figure = next(figure for what, _, figure in drawings(studies(tmp_path)[0]) if what == "sweep_rome")
    titles = [axes.get_title() for axes in figure.axes if axes.axison]
    assert titles == ["Score (S)", "Efficacy", "Paraphrase", "Specificity"]


def test_nothing_is_drawn_of_nothing(tmp_path: Path) -> None:
    assert draw_all([], tmp_path / "figures") == []


def test_panels_stand_below_the_scores_they_belong_to() -> None:
    metrics = {name: statistic(1) for name in ("S", "ES", "EM", "PS", "PM", "NS", "NM")}
    assert panel_rows([metrics], spare=True) == [["S", "ES", "PS", "NS"], ["", "EM", "PM", "NM"]]
    zsre = {name: statistic(1) for name in ("S", "Efficacy", "Paraphrase", "Specificity")}
    assert panel_rows([zsre], spare=True) == [["S", "Efficacy", "Paraphrase", "Specificity", ""]]
    assert panel_rows([{}], spare=False) == []


def test_intervals() -> None:
    assert interval(statistic(5, 2)) == (3, 7)
    assert interval({"mean": 5, "half_width": None, "interval": [1, 6]}) == (1, 6)
    # Few cases: 87.5 ± 22.9 of 100 is no share that there is.
    assert interval(statistic(90, 20), "ES") == (70, 100)
    assert interval(statistic(5, 20), "PS") == (0, 25)
    assert interval(statistic(-90, 20), "EM") == (-100, -70)
    assert interval(statistic(620, 20), "GE") == (600, 640)
    assert np.isnan(interval({"mean": 5, "half_width": None, "interval": [None, None]})).all()


def test_plain_text_is_no_mathematics() -> None:
    assert plain("a $x$ of\n東") == r"a \$x\$ of □"
