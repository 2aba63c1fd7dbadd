"""Runs become studies: shards merge, configurations are told apart, what cannot be used is named."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from report_runs import write_run

from romexp.analysis.merging import agree
from romexp.analysis.missing import entry_gap, study_gaps
from romexp.analysis.studies import Studies, to_studies
from romexp.results.find import find_runs
from romexp.results.rows import CaseResult
from romexp.results.settings import differing, flat, short


def studies(root: Path) -> Studies:
    found = find_runs([root])
    assert found.problems == ()
    return to_studies(found.runs)


def test_shards_are_the_whole(tmp_path: Path) -> None:
    write_run(tmp_path / "whole" / "a", range(30))
    for i in range(3):
        write_run(tmp_path / "parts" / f"s{i}", range(i, 30, 3), selection={"shard": f"{i + 1}/3"})
    whole, parts = studies(tmp_path / "whole"), studies(tmp_path / "parts")
    (one,), (other,) = whole.studies[0].entries, parts.studies[0].entries
    assert one.results == other.results
    assert one.summary == other.summary
    assert (one.label, other.label, len(other.runs)) == ("ROME", "ROME", 3)
    assert parts.problems == ()
    # Control: two shards alone are not the whole.
    (two,) = to_studies(find_runs([tmp_path / "parts"]).runs[:2]).studies[0].entries
    assert two.summary != one.summary


def test_a_run_that_differs_in_more_than_its_cases_is_another_entry(tmp_path: Path) -> None:
    write_run(tmp_path / "a", range(5), selection={"limit": 5})
    write_run(tmp_path / "b", range(10), selection={"limit": 10})
    write_run(tmp_path / "c", range(10), selection={"limit": 10}, identity={"save_deltas": True})
    write_run(tmp_path / "d", range(10), identity={"seed": 1})
    (study,) = studies(tmp_path).studies
    assert [(e.label, len(e.runs), e.n_cases) for e in study.entries] == [
        ("ROME (seed=0)", 3, 10),
        ("ROME (seed=1)", 1, 10),
    ]


def test_configurations_are_named_by_what_differs_and_sorted(tmp_path: Path) -> None:
    for layer in (10, 2, 9):
        write_run(tmp_path / f"r{layer}", range(3), settings={"layer": layer})
    write_run(tmp_path / "bound", range(3), editor="ft_l")
    write_run(tmp_path / "free", range(3), editor="ft_l", settings={"norm_constraint": None, "layer": 1})
    write_run(tmp_path / "own", range(3), editor="own")
    (study,) = studies(tmp_path).studies
    assert [entry.label for entry in study.entries] == [
        "FT+L (layer=0, norm_constraint=0.0005)",
        "FT+L (layer=1, norm_constraint=null)",
        "ROME (layer=2)",
        "ROME (layer=9)",
        "ROME (layer=10)",
        "own",
    ]
    assert study.entries[2].distinct == {"editor.layer": 2}


def test_no_two_rows_have_one_name(tmp_path: Path) -> None:
    """Paired differences, colours and cases on the page are found by label."""
    for editor, settings in (("ft_l", {}), ("copy", {"layer": 3}), ("third", {})):
        write_run(
            tmp_path / editor, range(4), editor=editor, settings={"type": "FineTune", "layer": 0, **settings},
            manifest={"editor_label": "FT+L"},
        )  # fmt: skip
    for number, bound in enumerate((0.0005, 0.00050000001)):
        write_run(tmp_path / f"b{number}", range(4), editor="ft", settings={"norm_constraint": bound})
    (study,) = studies(tmp_path).studies
    assert [entry.label for entry in study.entries] == [
        "FT (norm_constraint=0.0005)",
        "FT (norm_constraint=0.00050000001)",
        "FT+L (editor=ft_l)",
        "FT+L (editor=copy)",
        "FT+L (editor=third)",
    ]
    assert {entry.editor: entry.distinct for entry in study.entries if entry.name == "FT+L"} == {
        "ft_l": {}, "copy": {}, "third": {},
    }  # fmt: skip


def test_texts_name_a_study_only_where_nothing_else_does(tmp_path: Path) -> None:
    texts = {"snippets": "a1", "idf": "b2"}
    generating = {"type": "CounterFactEvaluator", "generation": "on"}
    write_run(tmp_path / "a", range(3))
    write_run(tmp_path / "b", range(3), identity={"evaluator": generating, "references": texts})
    assert [study.label for study in studies(tmp_path).studies] == [
        "minifact, minifact (generation=off)",
        "minifact, minifact (generation=on)",
    ]
    write_run(tmp_path / "c", range(3), identity={"evaluator": generating, "references": texts | {"idf": "c3"}})
    labels = [study.label for study in studies(tmp_path).studies]
    assert len(set(labels)) == 3
    assert "idf=c3" in labels[2]


def test_models_data_sets_and_evaluators_are_studies_of_their_own(tmp_path: Path) -> None:
    write_run(tmp_path / "a", range(3))
    write_run(tmp_path / "b", range(3), identity={"evaluator": {"type": "CounterFactEvaluator", "generation": "on"}})
    write_run(tmp_path / "c", range(3), model="other", identity={"model": {"digest": "o", "dtype": "float32"}})
    write_run(tmp_path / "d", range(3), dataset="zsre", zsre=True)
    found = studies(tmp_path).studies
    assert [(study.label, study.kind) for study in found] == [
        ("minifact, minifact (generation=off)", "counterfact"),
        ("minifact, minifact (generation=on)", "counterfact"),
        ("minifact, zsre", "zsre"),
        ("other, minifact", "counterfact"),
    ]
    assert found[2].columns == ("S", "Efficacy", "Paraphrase", "Specificity")


def test_the_unedited_model_has_every_case_of_any_entry_once(tmp_path: Path) -> None:
    write_run(tmp_path / "a", range(6), editor="ft")
    write_run(tmp_path / "b", range(3, 10), editor="rome")
    (study,) = studies(tmp_path).studies
    assert study.unedited["n_cases"] == 10
    assert [result.case_id for result in study.unedited_results] == list(range(10))
    pairs = [(result.before or {})["rewrite_prompts"][0] for result in study.unedited_results]
    successes = [true > new for new, true in pairs]
    assert study.unedited["pre"]["ES"]["mean"] == pytest.approx(100 * np.mean(successes))


def test_of_runs_that_disagree_the_later_counts_and_it_is_said(tmp_path: Path) -> None:
    write_run(tmp_path / "z_early", range(4), finished="2026-01-01T00:00:00+00:00")
    write_run(tmp_path / "a_late", range(2, 6), selection={"offset": 2}, finished="2026-01-02T00:00:00+00:00", seed=9)
    found = studies(tmp_path)
    (entry,) = found.studies[0].entries
    late = CaseResult.from_json(json.loads((tmp_path / "a_late" / "cases.jsonl").read_text().splitlines()[0]))
    assert next(result for result in entry.results if result.case_id == 2) == late
    (problem,) = found.problems
    assert "a_late: 2 cases differ" in problem
    assert "case 2" in problem
    assert "the later run counts" in problem


def test_rounding_is_no_disagreement(tmp_path: Path) -> None:
    row = json.loads((write_run(tmp_path / "a", [1]) / "cases.jsonl").read_text())
    close = json.loads(json.dumps(row))
    close["post"]["rewrite_prompts"][0][0] += 1e-4
    far = json.loads(json.dumps(row))
    far["post"]["rewrite_prompts"][0][0] += 0.5
    missing = json.loads(json.dumps(row))
    missing["post"]["rewrite_prompts"] = []
    result, *others = map(CaseResult.from_json, (row, close, far, missing))
    assert [agree(result, other) for other in others] == [True, False, False]


def test_answers_of_zsre_may_disagree(tmp_path: Path) -> None:
    row = json.loads((write_run(tmp_path / "a", [1], dataset="zsre", zsre=True) / "cases.jsonl").read_text())
    other = json.loads(json.dumps(row))
    other["post"]["rewrite_prompts_correct"][0] ^= True
    result, same, different = map(CaseResult.from_json, (row, json.loads(json.dumps(row)), other))
    assert agree(result, same)
    assert not agree(result, different)


@pytest.mark.parametrize(
    "manifest",
    [
        [1],
        {"manifest_version": 3},
        {"identity": {"task": "edit", "dataset": "x"}},
        {"identity": {"task": "edit"}, "names": "x"},
        {"identity": {"task": "edit"}, "names": {"model": None}},
        {"identity": {"task": "edit"}, "sessions": 3},
        {"identity": {"task": "edit"}, "set_aside": [1]},
    ],
)
def test_a_manifest_of_something_else_is_named(tmp_path: Path, manifest: object) -> None:
    write_run(tmp_path / "good", range(3))
    other = write_run(tmp_path / "other", range(3))
    (other / "manifest.json").write_text(json.dumps(manifest))
    found = find_runs([tmp_path])
    assert [run.path.name for run in found.runs] == ["good"]
    assert "other/manifest.json: not a run's manifest" in found.problems[0]


def test_what_cannot_be_used_is_named_and_the_rest_is_used(tmp_path: Path) -> None:
    write_run(tmp_path / "good", range(5), editor="ft")
    torn = write_run(tmp_path / "torn", range(5), editor="ft_l", status="running")
    text = (torn / "cases.jsonl").read_text()
    (torn / "cases.jsonl").write_text(text[:-40])  # killed while writing
    broken = write_run(tmp_path / "broken", range(5), editor="kn")
    lines = (broken / "cases.jsonl").read_text().splitlines()
    (broken / "cases.jsonl").write_text("\n".join([lines[0], "{]", *lines[1:]]) + "\n")
    strange = write_run(tmp_path / "strange", range(5))
    rows = [json.loads(line) for line in (strange / "cases.jsonl").read_text().splitlines()]
    rows[3]["post"]["paraphrase_prompts"] = ["text"]
    rows[4]["pre"] = "text"
    (strange / "cases.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "cases.jsonl").write_text("")
    (tmp_path / "bad" / "manifest.json").write_text("[]")
    found = find_runs([tmp_path])
    merged = to_studies(found.runs)
    (study,) = merged.studies
    assert [(entry.label, entry.n_cases) for entry in study.entries] == [("FT", 5), ("FT+L", 4), ("ROME", 3)]
    assert "bad/manifest.json: not a run's manifest" in found.problems[0]
    assert any("broken/cases.jsonl, line 2" in problem for problem in merged.problems)
    assert any("strange/cases.jsonl, case 3" in problem for problem in merged.problems)
    (of_four,) = [problem for problem in merged.problems if "strange/cases.jsonl, case 4" in problem]
    assert "pre: expected an object, found str" in of_four
    assert len(merged.problems) == 3


def test_a_half_done_study_says_what_is_missing_and_how_to_go_on(tmp_path: Path) -> None:
    write_run(tmp_path / "a", range(12), editor="ft", selection={"limit": 12})
    write_run(tmp_path / "b", range(5), editor="ft_l", selection={"limit": 12}, status="running")
    write_run(tmp_path / "c", range(0, 12, 3), selection={"limit": 12, "shard": "1/3"})
    write_run(tmp_path / "d", range(2, 12, 3), selection={"limit": 12, "shard": "3/3"})
    write_run(tmp_path / "e", range(4), editor="kn", selection={"limit": 4})
    (study,) = studies(tmp_path).studies
    gaps = {gap.entry: gap for gap in study_gaps(study)}
    start = "romexp model=minifact dataset=minifact"
    assert "5 of 12 cases" in gaps["FT+L"].note
    assert "1 of 1 runs not finished" in gaps["FT+L"].note
    assert gaps["FT+L"].commands == (f"{start} editor=ft_l dataset.limit=12",)
    assert gaps["ROME"].commands == (f"{start} editor=rome dataset.limit=12 dataset.shard=2/3",)
    assert gaps["KN"].commands == (f"{start} editor=kn dataset.limit=12",)
    assert "FT" not in gaps


def test_the_papers_cases_are_asked_for_where_they_stop(tmp_path: Path) -> None:
    whole = write_run(tmp_path / "a" / "r", range(40))
    begun = write_run(
        tmp_path / "b" / "r", range(25), selection={"limit": 25}, manifest={"set_aside": [{"case_id": 25}]}
    )
    holes = write_run(tmp_path / "c" / "r", [1, 5], selection={"case_ids": [1, 5]})
    gaps = []
    for folder in (whole, begun, holes):
        (entry,) = studies(folder).studies[0].entries
        gaps.append(entry_gap(entry, records=40, base=["model=m", "editor=rome"]))
    assert gaps[0] is None
    assert gaps[1] is not None
    assert gaps[2] is not None
    assert gaps[1].commands == ("romexp model=m editor=rome dataset.offset=26 dataset.limit=14",)
    assert "26 of 40 cases" in gaps[1].note
    assert "1 set aside (25)" in gaps[1].note
    assert gaps[2].commands == ("romexp model=m editor=rome dataset.limit=40",)


def test_fields_that_differ() -> None:
    a = {"editor": {"layer": 1, "x": [1]}, "seed": 0}
    b = {"editor": {"layer": None, "x": [1]}, "more": {"seed": 2}, "seed": 0}
    assert flat(a) == {"editor.layer": 1, "editor.x": [1], "seed": 0}
    fields = differing([a, b])
    assert [short(each) for each in fields] == ["layer=1, seed=(none)", "layer=null, seed=2"]
    assert differing([a, a]) == [{}, {}]


def test_labels_name_one_of_several_fields_that_follow_from_each_other(tmp_path: Path) -> None:
    """Two corpora differ in everything that only one of them has; an editor's own settings all stay."""
    corpora = {
        "a": {"type": "Sampled", "length": 100, "max_tokens": None},
        "b": {"type": "Sampled", "length": 100, "max_tokens": 7680},
        "c": {"type": "Texts", "sha256": "c2565c", "max_tokens": 76800},
    }
    for name, corpus in corpora.items():
        write_run(tmp_path / name, range(2), identity={"covariance": {"corpus": corpus}})
    write_run(tmp_path / "d", range(2), editor="ft", settings={"layer": 3, "v_lr": 0.5})
    write_run(tmp_path / "e", range(2), editor="ft", settings={"layer": 5, "v_lr": 0.1})
    (study,) = studies(tmp_path).studies
    labels = {entry.label for entry in study.entries}
    assert labels == {
        "FT (layer=3, v_lr=0.5)",
        "FT (layer=5, v_lr=0.1)",
        "ROME (max_tokens=null)",
        "ROME (max_tokens=7680)",
        "ROME (max_tokens=76800)",
    }
