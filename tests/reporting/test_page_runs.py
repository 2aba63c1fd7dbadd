"""What the page says of each run: its command, its place, what was set aside."""

from __future__ import annotations

from pathlib import Path

from report_runs import write_run

from romexp.reporting.page.render import write_page
from romexp.reporting.page.runs import MOST_ASIDE, describe_run, run_ids
from romexp.results.find import find_runs


def test_commands_are_quoted_for_a_shell(tmp_path: Path) -> None:
    write_run(tmp_path / "r", range(1), manifest={"overrides": ["prompt=a b", "editor=rome"]})
    described = describe_run(find_runs([tmp_path]).runs[0], identifier="run-r", label="ROME", group="g")
    assert dict(described["facts"])["Command"] == "romexp 'prompt=a b' editor=rome"


def test_runs_of_one_hash_have_their_own_place(tmp_path: Path) -> None:
    for name in ("a/x", "b/x"):
        write_run(tmp_path / name, range(1))
    assert list(run_ids(find_runs([tmp_path]).runs).values()) == ["run-x", "run-x-2"]


def test_many_records_set_aside_are_counted(tmp_path: Path) -> None:
    many = [{"index": i, "field": "prompt", "reason": "empty"} for i in range(MOST_ASIDE + 3)]
    write_run(tmp_path / "r", range(1), manifest={"rejected": many})
    described = describe_run(find_runs([tmp_path]).runs[0], identifier="run-r", label="ROME", group="g")
    assert described["aside"][0] == "index 0, not loaded: prompt empty"
    assert len(described["aside"]) == MOST_ASIDE
    assert described["more_aside"] == 3


def test_a_bare_manifest_is_enough(tmp_path: Path) -> None:
    (tmp_path / "r").mkdir()
    (tmp_path / "r" / "manifest.json").write_text('{"identity": {"task": "trace"}}')
    (tmp_path / "r" / "cases.jsonl").write_text('{"case_id": 0}\n')
    text = write_page([], [], [], tmp_path / "p.html", others=find_runs([tmp_path]).runs).read_text()
    assert '<details id="run-r"' in text
