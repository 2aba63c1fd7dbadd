"""Figures show the numbers that studies hold, and are byte-identical when drawn again."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from page_runs_made_up import change_rows, studies, write_editors, write_sweep
from PIL import Image
from report_runs import write_run

from romexp.analysis.generations import Generations, generations
from romexp.analysis.studies import Study
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
from romexp.reporting.figures.texts import LABELS, WIDTH, _paragraph, _width, generation_figure


def statistic(mean: float, half: float | None = 1.0) -> dict[str, object]:
    return {"mean": mean, "half_width": half, "n": 5}


def sweep_study(root: Path) -> Study:
    write_sweep(root)
    (study,) = studies(root)
    return study


def captions(study: Study) -> dict[str, str]:
    return {what: caption for what, caption, _ in drawings(study)}


class TestSweepFigure:
    def test_lines_and_bands_are_means_and_intervals(self) -> None:
        axis = sweep_axis([{"editor.layer": 0}, {"editor.layer": 2}, {"editor.layer": 1}])
        assert axis is not None
        after = [{"ES": statistic(value, half)} for value, half in ((10, 1), (30, 3), (20, None))]
        figure = sweep_figure(axis, after, before={"ES": statistic(5)}, single=("ROME", "#123456"), title="t")
        panel = next(axes for axes in figure.axes if axes.get_title() == "Efficacy score (ES)")
        edited, unedited = panel.lines
        assert (edited.get_label(), edited.get_color()) == ("ROME", "#123456")
        assert panel.get_ylabel() == "%"
        assert list(edited.get_ydata()) == [10, 20, 30]
        assert list(np.asarray(edited.get_xdata()).round()) == [0, 1, 2]
        assert unedited.get_ydata() == [5, 5]
        (band,) = panel.collections
        ends = band.get_paths()[0].vertices[:, 1]
        assert {9, 11} <= set(ends)
        assert 20 not in ends

    def test_a_run_that_is_missing_breaks_its_line(self) -> None:
        axis = sweep_axis(
            [{"editor.layer": i, "editor.fact_token": t} for t in ("last", "subject_last") for i in (0, 1, 2)][:-2]
        )
        assert axis is not None
        figure = sweep_figure(axis, [{"ES": statistic(50)}] * 4, before=None, single=("ROME", "#123456"), title="t")
        first = figure.axes[0].lines[0]
        assert np.asarray(first.get_ydata()).tolist() == [50]

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
        figure = case_boxes({"ROME": rows}, colors={"ROME": "#222222"}, title="t")
        assert figure is not None
        median = figure.axes[0].lines[4].get_ydata()
        assert median == pytest.approx(100 * np.exp(-1.0) * np.ones(2), abs=0.01)
        assert case_boxes({"ROME": [{"case_id": 0}]}, colors={}, title="t") is None

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
        assert list(generations(study)[0].texts) == ["unedited", "FT"]

    def test_a_large_sweep_is_no_bar_chart(self, tmp_path: Path) -> None:
        write_sweep(tmp_path, layers=range(MOST_BARS // 2 + 1), n=2)
        assert list(captions(studies(tmp_path)[0])) == ["sweep_rome"]
        write_run(tmp_path / "ft", range(2), editor="ft")
        assert list(captions(studies(tmp_path)[0])) == ["editors", "cases", "sweep_rome"]


class TestGenerations:
    def test_one_prompt_each_and_the_unedited_model_first(self, tmp_path: Path) -> None:
        write_editors(tmp_path)
        found = generations(studies(tmp_path)[0])
        assert [each.case_id for each in found] == [0, 1, 2, 3]
        assert list(found[0].texts) == ["unedited", "FT", "ROME"]
        assert found[0].begins == [0, 2]
        assert found[0].prompts == ()
        assert found[0].fact == "subject 0 is"

    def test_the_prompt_stands_once_above_what_was_written_after_it(self, tmp_path: Path) -> None:
        write_editors(tmp_path, n=1)
        asked = ["The home of someone is", "The home of someone is", "He likes"]
        for name in ("ft0", "rome0"):
            change_rows(tmp_path / name, {0: {"prompts": {"generation_prompts": asked}}})
        (case,) = generations(studies(tmp_path)[0])
        assert case.begins == [0, 2]
        figure = generation_figure([case], title="t", texts=2)
        assert figure is not None
        shown = " ".join(each.get_text() for each in figure.texts)
        assert shown.count("The home of someone is") == shown.count("He likes") == 1
        assert shown.count("prompt") == 2
        assert "… a , said rome." in shown

    def test_cases_that_one_editor_lacks_are_left_out(self, tmp_path: Path) -> None:
        write_editors(tmp_path)
        change_rows(tmp_path / "ft0", {1: {"post": None}})
        assert [each.case_id for each in generations(studies(tmp_path)[0])] == [0, 2, 3]

    def test_texts_of_very_many_models_are_no_figure(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        write_editors(tmp_path, n=2)
        assert "generations" in captions(studies(tmp_path)[0])
        monkeypatch.setattr(figures, "MOST_BARS", 2)
        assert "generations" not in captions(studies(tmp_path)[0])

    def test_the_figure_holds_every_word_inside_its_width(self) -> None:
        text = "Ein $wort$ o* 東京 " + "w" * 200 + " judo, " + "and so on " * 40
        case = Generations(
            case_id=0,
            subject="x",
            fact="x plays",
            target_new="judo",
            target_true="boxing",
            texts={"unedited": [text], "an editor with a long name (layer=3)": ["short"]},
        )
        figure = generation_figure([case], title="title")
        assert figure is not None
        shown = [each.get_text() for each in figure.texts]
        assert {r"\$wort\$", "□□", "judo", "title", "short"} <= set(shown)
        assert {each.get_color() for each in figure.texts if each.get_text() == "judo"} == {"#D55E00"}
        FigureCanvasAgg(figure).draw()
        right = max(each.get_window_extent().x1 for each in figure.texts)
        assert right <= figure.bbox.width + 2
        assert generation_figure([], title="none") is None

    def test_wrapping_loses_no_word(self) -> None:
        text = "one two  three " * 30
        pieces, below = _paragraph(text, {"two": "red"}, left=LABELS, right=WIDTH, y=10)
        assert [piece.text for piece in pieces] == text.split()
        assert {piece.color for piece in pieces if piece.text == "two"} == {"red"}
        assert all(piece.x + _width(piece.text, piece.bold) <= WIDTH for piece in pieces)
        assert below > max(piece.y for piece in pieces)


def test_figures_are_byte_identical_when_repeated(tmp_path: Path) -> None:
    write_editors(tmp_path / "runs", n=2)
    first = draw_all(studies(tmp_path / "runs"), tmp_path / "a")
    again = draw_all(studies(tmp_path / "runs"), tmp_path / "b")
    names = [f"minifact_minifact_{what}" for what in ("editors", "cases", "generations")]
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
    monkeypatch.setattr(figures, "drawings", lambda study: [("editors", "a caption", Figure())])
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
