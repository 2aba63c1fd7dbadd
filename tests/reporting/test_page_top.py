"""The top of the page: who wins and by how much, one case with its texts, headings in words."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from page_runs_made_up import change_rows, studies, write_editors, write_sweep, write_trace
from report_runs import write_run

from romexp.analysis.shared_cases import on_shared_cases
from romexp.reporting.page.featured import featured_case, in_words, marked
from romexp.reporting.page.headings import study_heading, study_name
from romexp.reporting.page.leaders import MOST_ROWS, leaders, leading_first, trace_headline
from romexp.reporting.page.render import write_page


def test_editors_are_sorted_by_s_and_the_best_values_marked(tmp_path: Path) -> None:
    write_editors(tmp_path, editors={"ft": 1.0, "kn": 0.2, "rome": 5.0}, n=40)
    (study,) = studies(tmp_path)
    top = leaders(study, on_shared_cases(study))
    assert [row["label"] for row in top["rows"]] == ["ROME", "FT", "KN", "unedited"]
    score = {entry.label: entry.metrics["S"]["mean"] for entry in study.entries}
    assert score["ROME"] > score["FT"] > score["KN"]
    names = [name for name, _ in top["columns"]]
    assert names[:2] == ["S", "ES"]
    for place, name in enumerate(names):
        values = {entry.label: round(entry.metrics[name]["mean"], 1) for entry in study.entries}
        best = {row["label"] for row in top["rows"] if row["values"][place].best}
        assert best == {label for label, value in values.items() if value == max(values.values())}


def test_the_headline_says_by_how_much_and_whether_the_cases_tell(tmp_path: Path) -> None:
    write_editors(tmp_path / "clear", editors={"ft": 0.5, "rome": 6.0}, n=60)
    (study,) = studies(tmp_path / "clear")
    text = leaders(study, study)["headline"]
    rome, ft = study.entries[1].metrics["S"]["mean"], study.entries[0].metrics["S"]["mean"]
    assert (text["winner"], text["score"]) == ("ROME", f"{rome:.1f}")
    assert f"That is {rome - ft:.1f} points more than FT (95 % interval" in text["lead"]
    # Control: the same editor under two names, and few cases.
    write_editors(tmp_path / "close", editors={"ft": 3.0, "rome": 3.1}, n=8)
    (study,) = studies(tmp_path / "close")
    assert "which 8 cases do not tell apart" in leaders(study, study)["headline"]["lead"]


def test_one_editor_is_compared_with_the_unedited_model(tmp_path: Path) -> None:
    write_editors(tmp_path, editors={"rome": 4.0}, n=5)
    (study,) = studies(tmp_path)
    top = leaders(study, study)
    assert top["headline"]["lead"].startswith("The unedited model has ")
    assert not any(value.best for row in top["rows"] for value in row["values"])


def test_a_large_sweep_shows_the_first_and_says_how_many_more(tmp_path: Path) -> None:
    write_sweep(tmp_path, layers=range(9), n=3)
    (study,) = studies(tmp_path)
    top = leaders(study, study)
    assert (len(top["rows"]), top["hidden"]) == (MOST_ROWS + 1, 18 - MOST_ROWS)
    page = write_page([study], [], [], tmp_path / "page.html").read_text(encoding="utf-8")
    assert '6 more are in <a href="#results">the table</a>' in page


def test_the_study_with_most_runs_comes_first(tmp_path: Path) -> None:
    write_run(tmp_path / "a", range(9), model="a", dataset="zsre", zsre=True)
    write_editors(tmp_path / "b", editors={"ft": 2.0, "rome": 3.0}, n=3)
    pairs = [(study, study) for study in studies(tmp_path)]
    assert [len(pair[0].entries) for pair in pairs] == [1, 2]
    assert [len(pair[0].entries) for pair in leading_first(pairs)] == [2, 1]
    assert leading_first([]) == []
    page = write_page([pair[0] for pair in pairs], [], [], tmp_path / "page.html").read_text(encoding="utf-8")
    order = [page.index(f'id="{name}"') for name in ("winner", "featured", "results", "cases", "runs")]
    assert order == sorted(order)


def test_one_case_with_its_texts(tmp_path: Path) -> None:
    write_editors(tmp_path, editors={"ft": 2.0, "rome": 4.0}, n=4)
    change_rows(tmp_path / "ft0", {0: {"post": None}})  # so that case 0 is not shared
    (study,) = studies(tmp_path)
    case = featured_case(study, on_shared_cases(study))
    assert case is not None
    assert (case["id"], case["new"], case["old"]) == (1, "a", "b")
    assert [side["label"] for side in case["sides"]] == ["unedited", "ROME", "FT"]
    assert ("a", "new") in case["sides"][1]["text"]
    assert ("b", "old") in case["sides"][0]["text"]
    page = write_page([study], [], [], tmp_path / "page.html").read_text(encoding="utf-8")
    assert 'The home of someone is <span class="new">a</span>, said rome.' in page.split('id="featured"')[1]


def test_answers_are_marked_as_whole_words_and_texts_stay_whole() -> None:
    text = "Rome and Romeo, (New York) york; C++ not C+++"
    for new, old in (("Rome", "New York"), ("C++", "York"), ("", ""), ("a.c", "|")):
        assert "".join(part for part, _ in marked(text, new, old)) == text
    assert [part for part, name in marked(text, "Rome", "New York") if name] == ["Rome", "New York"]
    assert marked(text, "", "") == [(text, "")]


@pytest.mark.parametrize(
    ("value", "shown"), [(0.5, "0.500"), (0.001, "0.001"), (4.14e-7, "4.1 × 10⁻⁷"), (1e-30, "1.0 × 10⁻³⁰")]
)
def test_small_probabilities_are_powers_of_ten(value: float, shown: str) -> None:
    assert in_words(value) == shown


def test_headings_are_words(tmp_path: Path) -> None:
    on = {"evaluator": {"type": "CounterFactEvaluator", "generation": "on"}}
    write_run(tmp_path / "a", range(4), editor="rome")
    write_run(tmp_path / "b", range(3), editor="ft")
    write_run(tmp_path / "c", range(1), editor="ft", identity=on)
    write_run(tmp_path / "d", range(2), dataset="minifact_zsre", zsre=True)
    write_run(tmp_path / "e", range(2), dataset="counterfact")
    found = {study_heading(study, on_shared_cases(study)) for study in studies(tmp_path)}
    assert found == {
        "minifact, without generated texts · 3 shared cases",
        "minifact, with generated texts · 1 case",
        "minifact on zsRE · 2 cases",
        "minifact on CounterFact · 2 cases",
    }
    assert not any(re.search(r"generation=|minifact, minifact", study_name(study)) for study in studies(tmp_path))


def test_a_page_of_traces_begins_with_their_total_effect() -> None:
    summary = {
        "high": {"mean": 0.78},
        "low": {"mean": 0.091},
        "ate": {"mean": 0.689},
        "peaks": {"mlp": {"group": "last subject token", "layer": 1, "aie": 0.323}},
    }
    text = trace_headline(summary)
    assert "from 78.0 % to 9.1 %, a total effect of 68.9 %" in text
    assert "at the last subject token, layer 1: 32.3 %" in text
    in_nats = trace_headline({**summary, "setting": {"metric": "kl"}, "peaks": {}})
    assert "0.69" in in_nats
    assert "%" not in in_nats


def test_without_runs_there_is_no_winner(tmp_path: Path) -> None:
    write_trace(tmp_path / "trace")
    page = write_page([], [], [], tmp_path / "page.html").read_text(encoding="utf-8")
    assert 'id="winner"' not in page
