"""The table and figures of sequences of edits, and the table of disabling edits, from rows that were made up."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from romexp.analysis.lifelong_studies import LifelongStudy, lifelong_studies
from romexp.analysis.studies import to_studies
from romexp.reporting.figures.lifelong import lifelong_drawings
from romexp.reporting.tables.disabling import disabling_report
from romexp.reporting.tables.lifelong import lifelong_report
from romexp.results.find import find_runs


def measured(success: bool) -> dict[str, Any]:
    pair = [1.0, 2.0] if success else [2.0, 1.0]
    return {"rewrite_prompts": [pair], "paraphrase_prompts": [pair], "neighborhood_prompts": [pair[::-1]]}


def write_run(
    folder: Path, editor: str, *, model: str = "m", task: str = "lifelong", edits: int = 4, step: int = 2, **more: Any
) -> None:
    """A run of four edits, two at a time: all succeed right after their step; case 0 is lost at the end."""
    folder.mkdir(parents=True)
    identity = {"task": task, "model": {"digest": model}, "dataset": {"sha256": "d"}, "editor": {"type": editor}}
    identity |= {"edits": edits, "step": step} if task == "lifelong" else {}
    names = {"task": task, "model": model, "dataset": "counterfact", "editor": editor}
    manifest = {
        "identity": identity,
        "names": names,
        "editor_label": editor.upper(),
        "overrides": [f"task={task}"],
        **more,
    }
    (folder / "manifest.json").write_text(json.dumps(manifest))
    (folder / "status").write_text("done\n")
    request = {"subject": "s", "prompt": "{} is", "target_new": "a", "target_true": "b"}
    rows = []
    for case, edited_at, measured_at in ((0, 2, 2), (1, 2, 2), (2, 4, 4), (3, 4, 4), (0, 2, 4), (1, 2, 4)):
        times = {"edited_at": edited_at * edits // 4, "measured_at": measured_at * edits // 4}
        after = measured(not (case == 0 and measured_at == 4))
        about = {
            "requested_rewrite": request,
            "pre": measured(False),
            "post": after,
            "edit": {"update_norm": 1.0 + case},
        }
        rows.append({"case_id": case, **(times if task == "lifelong" else {}), **about})
    (folder / "cases.jsonl").write_text(
        "".join(json.dumps(row) + "\n" for row in rows[: 6 if task == "lifelong" else 4])
    )
    points = [
        {"step": 0, "perplexity": 3.0, "entropy": 0.9},
        {"step": edits, "perplexity": 4.0, "weight_change/1": 0.5},
    ]
    (folder / "curves.jsonl").write_text("".join(json.dumps(point) + "\n" for point in points))


def studies(root: Path) -> list[LifelongStudy]:
    found, problems = lifelong_studies(find_runs([root]).runs)
    assert problems == []
    return found


def test_runs_that_differ_in_the_editor_are_one_study(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "memit")
    write_run(tmp_path / "b", "rome")
    write_run(tmp_path / "c", "rome", model="other")
    one, other = studies(tmp_path)
    assert [entry.label for entry in one.entries] == ["MEMIT", "ROME"]
    assert one.label == "m, counterfact, 4 edits, 2 at a time"
    assert [entry.label for entry in other.entries] == ["ROME"]
    table = lifelong_report([one, other])
    lines = [[cell.text for cell in line.cells] for line in table.blocks[0].lines]
    assert [line[:3] for line in lines] == [
        ["unedited", "", ""],
        ["MEMIT", "right after", "4"],
        ["MEMIT", "at the end", "4"],
        ["ROME", "right after", "4"],
        ["ROME", "at the end", "4"],
    ]
    es = [column.name for column in table.columns].index("ES")
    assert lines[1][es].startswith("100.0")
    assert lines[2][es].startswith("75.0")
    assert {record["measured"] for record in table.records} == {
        "unedited",
        "immediate",
        "final",
        "after 2",
        "after 4",
    }
    assert [name for name, _, _ in lifelong_drawings(one)] == ["scores", "retention", "collapse"]


def test_published_values_stand_below_their_own_editor(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "alphaedit", model="gpt2-xl", edits=2000, step=100)
    (table,) = lifelong_report(studies(tmp_path)).blocks
    roles = [line.role for line in table.lines]
    assert roles == ["measured", "published", "measured", "measured", "published"]
    assert "99.5" in [cell.text for cell in table.lines[-1].cells]


def test_an_unfinished_or_stopped_run_says_so(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "memit", stopped={"edits": 2, "reason": "perplexity 100"})
    write_run(tmp_path / "b", "rome")
    (tmp_path / "b" / "status").write_text("running\n")
    (block,) = lifelong_report(studies(tmp_path)).blocks
    assert block.notes == ("ROME: not finished, its end is the last checkpoint so far",)
    assert "MEMIT: stopped after 2 edits: perplexity 100" in block.remarks
    assert block.commands


def test_a_damaged_run_is_named(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "memit")
    (tmp_path / "a" / "cases.jsonl").write_text('{"case_id": 1}\n')
    found, problems = lifelong_studies(find_runs([tmp_path]).runs)
    assert found == []
    assert len(problems) == 1
    assert str(tmp_path / "a") in problems[0]


def test_disabling_edits_by_editor(tmp_path: Path) -> None:
    write_run(tmp_path / "a", "rome", task="edit")
    found = to_studies(find_runs([tmp_path]).runs).studies
    (block,) = disabling_report(found).blocks
    (line,) = block.lines
    assert [cell.text for cell in line.cells] == ["ROME", "4", "2.5", "4", "–", "–", "0", "0", "0"]
    (entry,) = found[0].entries
    far = replace(entry.results[0], case_id=9, edit={"update_norm": 1e9})
    study = replace(found[0], entries=(replace(entry, results=(*list(entry.results) * 3, far)),))
    (block,) = disabling_report([study]).blocks
    assert block.lines[0].cells[-1].text == "1"
    assert block.remarks == ("ROME: disabling: case 9 (s, ‖ΔW‖ 1e+09)",)
    assert disabling_report([]).blocks == ()


def test_an_axis_of_few_edits_has_ticks(tmp_path: Path) -> None:
    """Between 2 and 4 edits there is no power of ten."""
    write_run(tmp_path / "a", "memit")
    (study,) = studies(tmp_path)
    scores = next(figure for name, _, figure in lifelong_drawings(study) if name == "scores")
    axes = next(axes for axes in scores.axes if axes.axison)
    low, high = axes.get_xlim()
    assert [tick for tick in axes.get_xticks() if low <= tick <= high] == [2, 3, 4]
