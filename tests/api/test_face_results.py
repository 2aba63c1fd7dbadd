"""`romexp.trace`, `romexp.dataset` and `romexp.evaluate` give what the command line gives."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from face_cases import SENTENCE, SUBJECT

import romexp
from romexp.api.models import LoadedModel
from romexp.errors import ConfigError, DataError, RomexpError


class TestTrace:
    def test_it_is_what_the_command_line_traces(self, face_lm: LoadedModel, tmp_path: Path) -> None:
        from romexp.results.rows import read_rows

        found = romexp.trace(face_lm, SENTENCE, subject=SUBJECT)
        arguments = ["task=trace", f"prompt={SENTENCE}", f"subject={SUBJECT}", f"output_dir={tmp_path / 'run'}"]
        command = [sys.executable, "-m", "romexp", *arguments, "tracker=none", "model.device=cpu"]
        subprocess.run(command, check=True, capture_output=True)
        (row,) = read_rows(tmp_path / "run" / "cases.jsonl")
        assert row["tokens"] == found.row["tokens"]
        for kind in ("hidden", "mlp", "attn"):
            torch.testing.assert_close(torch.tensor(row[kind]), torch.tensor(found.row[kind]), atol=1e-5, rtol=0)

    def test_the_subject_is_no_part_of_another_word(self, face_lm: LoadedModel) -> None:
        quick = {"severed": False, "kinds": [], "samples": 1}
        found = romexp.trace(face_lm, f"{SUBJECT}ine knows {SENTENCE}", subject=SUBJECT, settings=quick)
        begin, end = found.row["subject_range"]
        assert "".join(found.row["tokens"][:begin]).strip() == f"{SUBJECT}ine knows"
        assert "".join(found.row["tokens"][begin:end]).strip() == SUBJECT

    def test_the_frame(self, face_lm: LoadedModel) -> None:
        found = romexp.trace(face_lm, SENTENCE, subject=SUBJECT, settings={"severed": False})
        frame = found.to_frame()
        tokens = len(found.row["tokens"])
        assert len(frame) == 3 * 8 * tokens
        assert set(frame["kind"]) == {"hidden", "mlp", "attn"}
        assert found.answer.strip() == "piano"
        assert found.total_effect == pytest.approx(found.row["high_score"] - found.row["low_score"])
        last = frame[(frame.kind == "hidden") & (frame.layer == 7) & (frame.position == tokens - 1)].iloc[0]
        assert last["probability"] == pytest.approx(found.row["high_score"], abs=1e-4), "all of it is restored there"
        assert frame[frame.subject].position.max() == found.row["subject_range"][1] - 1

    def test_it_plots_and_shows_itself(self, face_lm: LoadedModel) -> None:
        found = romexp.trace(face_lm, SENTENCE, subject=SUBJECT, settings={"samples": 2})
        assert len(found.plot().axes) >= 3
        shown = found._repr_html_()
        assert "data:image/png;base64," in shown
        assert "Selus Dunwood plays the" in shown
        assert repr(found).startswith("<trace of 'Selus Dunwood plays the' in minifact: 'piano' with P 0.76")

    @pytest.mark.parametrize(
        ("arguments", "message"),
        [
            ({"subject": "Zed"}, "subject 'Zed' does not occur in"),
            ({"subject": ""}, "subject is empty"),
            ({"prompt": ""}, "prompt is empty"),
            ({"settings": {"windw": 3}}, "tracer: there is no setting 'windw'"),
            ({"settings": {"noise": "x"}}, "tracer.noise: 'x' is none of"),
        ],
    )
    def test_what_cannot_be_traced(self, face_lm: LoadedModel, arguments: dict[str, object], message: str) -> None:
        given: dict[str, object] = {"prompt": SENTENCE, "subject": SUBJECT} | arguments
        with pytest.raises(RomexpError, match=message):
            romexp.trace(face_lm, given.pop("prompt"), **given)  # type: ignore[arg-type]


class TestEvaluate:
    def test_its_numbers_are_those_of_the_command_line(self, face_lm: LoadedModel, tmp_path: Path) -> None:
        found = romexp.evaluate(face_lm, romexp.dataset("minifact", limit=6), method="ft")
        arguments = ["editor=ft", "dataset.limit=6", "evaluator.generation=off", f"output_dir={tmp_path / 'run'}"]
        command = [sys.executable, "-m", "romexp", *arguments, "tracker=none", "model.device=cpu"]
        subprocess.run(command, check=True, capture_output=True)
        theirs = json.loads((tmp_path / "run" / "summary.json").read_text())
        for side in ("pre", "post"):
            for name, entry in theirs[side].items():
                assert found.summary[side][name]["mean"] == pytest.approx(entry["mean"], abs=0.01), (side, name)
        assert found.summary["n_cases"] == 6

    def test_texts_where_the_evaluator_draws_none_are_refused(self, face_lm: LoadedModel) -> None:
        with pytest.raises(ConfigError, match="generation: the evaluator of minifact_zsre draws no texts"):
            romexp.evaluate(face_lm, romexp.dataset("minifact_zsre", limit=1), method="ft", generation=True)

    def test_the_frame_and_the_table(self, face_lm: LoadedModel) -> None:
        cases = romexp.dataset("minifact_zsre", limit=3)
        found = romexp.evaluate(face_lm, cases, method="ft", batch_size=2)
        assert list(found.frame["case_id"]) == [case.case_id for case in cases]
        assert {"pre/Efficacy", "post/Efficacy"} <= set(found.frame)
        assert list(found.table.index) == ["unedited", "FT"]
        assert "FT on minifact, minifact_zsre: 3 cases" in repr(found)
        assert "<table" in found._repr_html_()

    def test_a_bad_case_is_set_aside_and_named(self, face_lm: LoadedModel) -> None:
        cases = romexp.dataset("minifact", limit=3)
        long = replace(cases[1], request=replace(cases[1].request, subject="Ada " * 200))
        mixed = replace(cases, loaded=replace(cases.loaded, items=(cases[0], long, cases[2])))
        found = romexp.evaluate(face_lm, mixed, method="ft")
        assert [result.case_id for result in found.results] == [cases[0].case_id, cases[2].case_id]
        assert "sees 128 at once" in found.set_aside[cases[1].case_id]
        assert "1 set aside" in repr(found)
        only = replace(cases, loaded=replace(cases.loaded, items=(long,)))
        with pytest.raises(DataError, match="not one of 1 cases could be edited"):
            romexp.evaluate(face_lm, only, method="ft")

    def test_records_of_a_file(self, tmp_path: Path, face_lm: LoadedModel) -> None:
        from romexp.minifact.assets import counterfact_path

        file = tmp_path / "mine.json"
        file.write_text(json.dumps(json.loads(counterfact_path().read_text())[:4]))
        cases = romexp.dataset(file, limit=2)
        assert len(cases) == 2
        assert list(cases.to_frame()["case_id"]) == [0, 1]
        assert repr(cases) == "<counterfact: 2 cases>"
        table = tmp_path / "mine.csv"
        table.write_text("subject,prompt,target_new\nAnna,{} plays the,harp\n")
        assert repr(romexp.dataset(table)) == "<facts: 1 cases>"

    @pytest.mark.parametrize(
        ("name", "message"),
        [
            ("minifat", "there is no 'minifat' .*did you mean 'minifact'"),
            ("minifact_known", "holds facts for tracing, not cases to edit"),
            ("", "dataset is empty"),
        ],
    )
    def test_no_such_data_set(self, name: str, message: str) -> None:
        with pytest.raises(ConfigError, match=message):
            romexp.dataset(name)

    def test_what_is_no_data_set(self, face_lm: LoadedModel) -> None:
        with pytest.raises(ConfigError, match=r"cases: expected a data set of romexp\.dataset, got list"):
            romexp.evaluate(face_lm, [1])  # type: ignore[arg-type]
