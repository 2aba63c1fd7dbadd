"""A whole run of task=edit on a tiny model: what it leaves on disk, and that what it says there is so."""

from __future__ import annotations

import json
from pathlib import Path

import pandas as pd
import pytest
import yaml
from tiny_runs import SUBJECTS, Command, record, rows

from romexp.lm.apply_delta import applied
from romexp.lm.model import LanguageModel, PretrainedModel
from romexp.lm.packing import Query
from romexp.lm.scoring import score
from romexp.lm.weight_delta import WeightDelta


@pytest.fixture
def lm(tiny_dir: Path) -> LanguageModel:
    return PretrainedModel(path=str(tiny_dir), device="cpu").load()


def test_a_run_leaves_what_the_design_says(romexp: Command, tiny: list[str], tmp_path: Path) -> None:
    done = romexp(
        *tiny, "dataset.limit=3", "evaluator.generation=on", "evaluator.sampler.max_length=12", "references=none"
    )
    assert done.status == 0, done.err
    (folder,) = (tmp_path / "outputs" / "edit" / "tiny" / "counterfact" / "rome").iterdir()
    assert {p.name for p in folder.iterdir()} >= {
        "config.yaml", "manifest.json", "status", "cases.jsonl", "cases.parquet", "summary.json"
    }  # fmt: skip
    assert [p.name for p in tmp_path.iterdir()] == ["outputs"], "nothing else may be written where the command is run"
    assert (folder / "status").read_text().strip() == "done"
    found = rows(folder)
    assert [row["case_id"] for row in found] == [0, 1, 2]
    for row in found:
        for side in ("pre", "post"):
            assert len(row[side]["paraphrase_prompts"]) == 1
            assert [len(pair) for pair in row[side]["rewrite_prompts"]] == [2]
            assert len(row[side]["text"]) == 2
            assert row[side]["ngram_entropy"] > 0
        assert len(row["edit"]["loss"]) == 6
        assert row["pre"]["rewrite_prompts"] != row["post"]["rewrite_prompts"]
    manifest = json.loads((folder / "manifest.json").read_text())
    assert folder.name == manifest["hash"]
    assert manifest["dataset"]["cases"] == 3
    assert manifest["seed"] == 0
    assert manifest["word_tokenizer"]
    (session,) = manifest["sessions"]
    assert session["libraries"]["torch"]
    assert session["timings"]["edit"] > 0
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["editor"]["layer"] == 1
    assert "editor" not in config["task"]
    summary = json.loads((folder / "summary.json").read_text())
    assert summary["n_cases"] == 3
    assert set(pd.read_parquet(folder / "cases.parquet")["case_id"]) == {0, 1, 2}
    assert f"{summary['post']['ES']['mean']:.1f}" in done.out
    assert str(folder.relative_to(tmp_path)) in done.out


def test_a_saved_delta_is_the_edit_that_was_measured(
    romexp: Command, tiny: list[str], tmp_path: Path, lm: LanguageModel
) -> None:
    assert romexp(*tiny, "dataset.limit=2", "save_deltas=true", "output_dir=run").status == 0
    for row in rows(tmp_path / "run"):
        query = Query(prompt=f"{SUBJECTS[row['case_id']]} plays the", targets=("violin", "piano"))
        with applied(lm, WeightDelta.load(tmp_path / "run" / "deltas" / f"{row['case_id']}.safetensors")):
            after = [target.nll for target in score(lm, [query])[0]]
        before = [target.nll for target in score(lm, [query])[0]]
        assert after == pytest.approx(row["post"]["rewrite_prompts"][0], abs=1e-4)
        assert before == pytest.approx(row["pre"]["rewrite_prompts"][0], abs=1e-4)
        assert abs(after[0] - before[0]) > 1e-2


def test_results_do_not_depend_on_batches(romexp: Command, tiny: list[str], tmp_path: Path) -> None:
    for name, size in (("one", 1), ("all", 12)):
        assert (
            romexp(*tiny, f"output_dir={name}", f"task.batch_size={size}", f"cache_dir={tmp_path / name}/c").status == 0
        )
    one, together = rows(tmp_path / "one"), rows(tmp_path / "all")
    assert [row["case_id"] for row in one] == [row["case_id"] for row in together]
    for a, b in zip(one, together, strict=True):
        assert a["pre"]["rewrite_prompts"][0] == pytest.approx(b["pre"]["rewrite_prompts"][0], abs=1e-4)
        assert a["post"]["rewrite_prompts"][0] == pytest.approx(b["post"]["rewrite_prompts"][0], abs=1e-3)


def test_bad_records_are_set_aside_and_named(romexp: Command, tiny: list[str], tmp_path: Path) -> None:
    bad = record(1)
    bad["requested_rewrite"]["target_new"]["str"] = ""
    (tmp_path / "some_bad.json").write_text(json.dumps([record(0), bad, record(2)]))
    done = romexp(*tiny, "dataset.path=some_bad.json", "output_dir=run")
    assert done.status == 0
    assert "1 record" in done.out
    assert [row["case_id"] for row in rows(tmp_path / "run")] == [0, 2]
    (entry,) = json.loads((tmp_path / "run" / "manifest.json").read_text())["rejected"]
    assert entry["index"] == 1
    assert entry["field"] == "requested_rewrite.target_new.str"
    assert entry["file"].endswith("some_bad.json")


def test_editor_none_measures_once(romexp: Command, tiny: list[str], tmp_path: Path) -> None:
    given = [argument for argument in tiny if not argument.startswith("editor")]
    assert romexp(*given, "editor=none", "dataset.limit=2", "output_dir=run").status == 0
    assert all(row["pre"] == row["post"] for row in rows(tmp_path / "run"))
