"""A killed run goes on as if nothing had happened; nobody writes into somebody else's folder."""

from __future__ import annotations

import json
import shutil
import signal
import time
from pathlib import Path

import pytest
from tiny_runs import Command, rows, start

from romexp.analysis.merging import merge
from romexp.results.find import find_runs
from romexp.results.folder import RunFolder

SLOWLY = ("task.batch_size=1", "save_deltas=true")


def test_a_killed_run_goes_on_to_the_same_rows(romexp: Command, tiny: list[str], tmp_path: Path) -> None:
    arguments = [*tiny, *SLOWLY, f"cache_dir={tmp_path / 'cache'}"]
    process = start(*arguments, "output_dir=killed", cwd=tmp_path)
    file = tmp_path / "killed" / "cases.jsonl"
    try:
        deadline = time.monotonic() + 300
        while not file.exists() or file.read_bytes().count(b"\n") < 2:
            assert process.poll() is None, process.communicate()[1]
            assert time.monotonic() < deadline
            time.sleep(0.01)
    finally:
        process.send_signal(signal.SIGKILL)
        process.communicate()
    survived = rows(tmp_path / "killed")
    assert 2 <= len(survived) < 12, "the kill came too late to show anything"
    assert RunFolder(tmp_path / "killed").status == "running"
    with file.open("ab") as torn:
        torn.write(b'{"case_id": 11, "pre": {"rew')

    assert romexp(*arguments, "output_dir=killed").status == 0
    assert romexp(*tiny, *SLOWLY, "output_dir=whole").status == 0
    killed, whole = rows(tmp_path / "killed"), rows(tmp_path / "whole")
    assert killed[: len(survived)] == survived
    assert killed == whole
    assert len(killed) == 12
    assert len(list((tmp_path / "killed" / "deltas").iterdir())) == 12
    summaries = [RunFolder(tmp_path / name).read("summary") for name in ("killed", "whole")]
    assert summaries[0] == summaries[1]
    assert len(json.loads((tmp_path / "killed" / "manifest.json").read_text())["sessions"]) == 2


def test_rows_that_do_not_say_their_prompts_are_gone_on_after(romexp: Command, tiny: list[str], tmp_path: Path) -> None:
    """As they were written before rows had that part."""
    arguments = [*tiny, "dataset.limit=3"]
    assert romexp(*arguments, "output_dir=whole").status == 0
    whole = rows(tmp_path / "whole")
    assert all(row["prompts"]["rewrite_prompts"] for row in whole)
    shutil.copytree(tmp_path / "whole", tmp_path / "early")
    early = [{key: value for key, value in row.items() if key != "prompts"} for row in whole[:2]]
    (tmp_path / "early" / "cases.jsonl").write_text("".join(json.dumps(row) + "\n" for row in early))
    RunFolder(tmp_path / "early").set_status("running")
    assert romexp(*arguments, "output_dir=early").status == 0
    gone_on = rows(tmp_path / "early")
    assert gone_on[:2] == early
    assert gone_on[2]["prompts"] == whole[2]["prompts"]
    merged = merge(find_runs([tmp_path]).runs)
    assert (len(merged.results), merged.problems) == (3, ())  # they agree


def test_a_finished_run_is_not_done_again(romexp: Command, tiny: list[str], tmp_path: Path) -> None:
    first = romexp(*tiny, "dataset.limit=2", "output_dir=run")
    before = (tmp_path / "run" / "cases.jsonl").stat().st_mtime_ns
    again = romexp(*tiny, "dataset.limit=2", "output_dir=run")
    assert again.status == 0
    assert "finished before" in again.err
    assert again.out == first.out
    assert (tmp_path / "run" / "cases.jsonl").stat().st_mtime_ns == before


def test_a_second_process_is_refused(romexp: Command, tiny: list[str], tmp_path: Path) -> None:
    with RunFolder(tmp_path / "run").locked():
        done = romexp(*tiny, "output_dir=run")
    assert done.status == 2
    assert done.err.count("\n") == 1
    assert "another romexp process is writing into run" in done.err
    assert not (tmp_path / "run" / "cases.jsonl").exists()
    assert romexp(*tiny, "dataset.limit=1", "output_dir=run").status == 0


def test_a_folder_of_another_configuration_is_refused(romexp: Command, tiny: list[str], tmp_path: Path) -> None:
    assert romexp(*tiny, "dataset.limit=1", "output_dir=run").status == 0
    before = (tmp_path / "run" / "cases.jsonl").read_bytes()
    done = romexp(*tiny, "dataset.limit=1", "output_dir=run", "editor.layer=2", "seed=3")
    assert done.status == 2
    assert done.err.count("\n") == 1
    assert "editor.layer is 1 there, 2 here" in done.err
    assert "seed is 0 there, 3 here" in done.err
    assert (tmp_path / "run" / "cases.jsonl").read_bytes() == before


@pytest.mark.parametrize("same", ["task.batch_size=1", "model.name=other", "model.device=auto", "tracker.mode=offline"])
def test_what_does_not_affect_results_does_not_matter(
    romexp: Command, tiny: list[str], tmp_path: Path, same: str
) -> None:
    given = [argument for argument in tiny if argument != "tracker=none"]
    assert romexp(*given, "tracker=none", "dataset.limit=1", "output_dir=run").status == 0
    done = romexp(*given, "dataset.limit=1", "output_dir=run", same)
    assert (done.status, "finished before" in done.err) == (0, True)


def test_a_changed_file_is_another_configuration(romexp: Command, tiny: list[str], tmp_path: Path) -> None:
    contexts = tmp_path / "contexts.json"
    contexts.write_text(json.dumps(["{}"]))
    given = [*(a for a in tiny if "context_templates" not in a), f"editor.context_templates={contexts}"]
    assert romexp(*given, "dataset.limit=1", "output_dir=run").status == 0
    contexts.write_text(json.dumps(["{}", "Anna. {}"]))
    done = romexp(*given, "dataset.limit=1", "output_dir=run")
    assert done.status == 2
    assert "editor.context_templates" in done.err
