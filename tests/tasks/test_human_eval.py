"""`task=human_eval` from results to a page, and from returned files to scores."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
from human_cases import answers, prefer_rome, write
from report_runs import write_folder
from tiny_runs import Command

NAMES = {"none": "none", "ft_l": "FT+L", "rome": "ROME"}


def run_folder(
    root: Path, editor: str, *, cases: int = 14, texts: bool = True, status: str = "done", layer: int = 1
) -> Path:
    """A finished run of task=edit as it lies on disk. Texts say by a made-up word what wrote them."""
    identity = {
        "task": "edit",
        "model": {"digest": "m"},
        "dataset": {"sha256": "d", "limit": None},
        "editor": {"type": editor, "layer": layer},
        "evaluator": {"generation": texts},
        "references": {},
    }
    names = {"task": "edit", "model": "m", "dataset": "cf", "editor": editor}
    manifest = {"identity": identity, "names": names, "hash": f"{editor}{layer}", "editor_label": NAMES[editor]}
    word = {"none": "quiggle", "ft_l": "brontle", "rome": "zamfer"}[editor]
    rows = []
    for case in range(cases):
        request = {"subject": f"Subject {case}", "prompt": "{} plays the"}
        request |= {"target_new": "violin", "target_true": "piano"}
        sides = {"pre": side(case, "quiggle", texts=texts), "post": side(case, word, texts=texts)}
        rows.append({"case_id": case, "requested_rewrite": request, "edit": {}, "time": 0.0, **sides})
    folder = root / "edit" / "m" / "cf" / editor / f"{layer}"
    return write_folder(folder, manifest=manifest, rows=rows, status=status)


def side(case: int, word: str, *, texts: bool) -> dict[str, Any]:
    measured: dict[str, Any] = {
        "rewrite_prompts": [[1.0, 2.0]],
        "paraphrase_prompts": [[1.0, 2.0]],
        "neighborhood_prompts": [[2.0, 1.0]],
    }
    if texts:
        measured["text"] = [f"Subject {case} was </script> & a {word} number {i}." for i in range(2)]
    return measured


SMALL = ("task=human_eval", "task.cases=12", "task.participants=6", "task.per_participant=4")


def asked(romexp: Command, *arguments: str) -> Path:
    """The questionnaire's folder."""
    done = romexp(*SMALL, *arguments)
    assert done.status == 0, done.err
    line = next(line for line in done.out.splitlines() if line.startswith("questionnaire: "))
    return Path(line.removeprefix("questionnaire: ").split()[0]).parent


def key_of(folder: Path) -> dict[str, Any]:
    return json.loads((folder / "key.json").read_text())


def test_from_results_to_scores(romexp: Command, tmp_path: Path) -> None:
    for editor in ("ft_l", "rome"):
        run_folder(tmp_path / "outputs", editor)
    folder = asked(romexp)
    assert folder.parent == Path("outputs/human_eval/m/cf")
    key = key_of(folder)
    assert key["systems"] == {"unedited": "unedited", "ft_l": "FT+L", "rome": "ROME"}
    assert len(key["items"]) == 12
    for participant in range(1, 7):
        write(tmp_path / "back", answers(key, participant))
    write(tmp_path / "back", answers(key, 9) | {"questionnaire": "another one!"}, "z.json")
    done = romexp("task=human_eval", "answers=back")
    assert done.status == 0, done.err
    assert "answers: 6 files used, 1 set aside" in done.out
    assert "z.json: answers questionnaire another one!" in done.err + done.out
    assert "ROME than FT+L" in done.out
    assert "24 of 24" in done.out
    assert "1.80" in done.out, "the paper's figure"
    (scores,) = folder.glob("scores/*/scores.json")
    found = json.loads(scores.read_text())
    assert found["fluency"]["systems"]["rome"] == {"mean_rank": 1.0, "first": 1.0}
    assert found["consistency"]["agreement"]["alpha"] == pytest.approx(1)
    assert len((scores.parent / "rankings.jsonl").read_text().splitlines()) == 48
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    write(tmp_path / "back", answers(key, 7, lambda case, measure, system: -prefer_rome(case, measure, system)))
    assert romexp("task=human_eval", "answers=back").status == 0
    assert all(path.read_bytes() == content for path, content in before.items()), "nothing is overwritten"
    assert len(list(folder.glob("scores/*"))) == 2


def test_the_page_knows_nothing_of_the_key(romexp: Command, tmp_path: Path) -> None:
    for editor in ("ft_l", "rome"):
        run_folder(tmp_path / "outputs", editor)
    folder = asked(romexp)
    page = (folder / "questionnaire.html").read_text()
    for word in ("rome", "ft_l", "ft", "ft+l", "unedited", "edited", "outputs", "case_id", "post"):
        assert not re.search(rf"\b{re.escape(word)}\b", page, re.IGNORECASE), word
    assert "://" not in page
    assert key_of(folder)["questionnaire"] in page
    assert page.count("zamfer") == page.count("brontle") == page.count("quiggle") == 12, (
        "a control: all texts are there"
    )
    assert page.count("</script>") == 2, "texts cannot break out of the data"


def test_the_same_command_gives_the_same_questionnaire_and_the_seed_another(romexp: Command, tmp_path: Path) -> None:
    for editor in ("ft_l", "rome"):
        run_folder(tmp_path / "outputs", editor)
    first = asked(romexp)
    written = (first / "questionnaire.html").stat().st_mtime_ns
    assert asked(romexp) == first
    assert (first / "questionnaire.html").stat().st_mtime_ns == written
    assert asked(romexp, "seed=1") != first


def test_answers_find_their_questionnaire_among_several(romexp: Command, tmp_path: Path) -> None:
    for editor in ("ft_l", "rome"):
        run_folder(tmp_path / "outputs", editor)
    first, second = asked(romexp), asked(romexp, "seed=1")
    path = write(tmp_path / "back", answers(key_of(first), 1))
    done = romexp("task=human_eval", f"answers={path}")
    assert str(first / "scores") in done.out
    assert not (second / "scores").exists()
    assert romexp("task=human_eval", f"answers={path}", f"output_dir={first}").status == 0
    other = romexp("task=human_eval", f"answers={path}", f"output_dir={second}")
    assert other.status == 2
    assert f"not one of 1 files in {path} could be used: answers-1.json: answers questionnaire" in other.err
    nowhere = romexp("task=human_eval", f"answers={path}", "outputs=elsewhere")
    assert (nowhere.status, "no key.json of questionnaire" in nowhere.err) == (2, True)


def test_what_is_missing_is_said_with_the_command_that_makes_it(romexp: Command, tmp_path: Path) -> None:
    run_folder(tmp_path / "outputs", "rome")
    run_folder(tmp_path / "outputs", "ft_l", texts=False)
    done = romexp(*SMALL)
    assert done.status == 2
    assert "generated texts of ft_l, rome (there are: rome): romexp -m editor=ft_l,rome" in done.err


def test_a_run_that_is_not_finished_is_not_used(romexp: Command, tmp_path: Path) -> None:
    run_folder(tmp_path / "outputs", "rome")
    run_folder(tmp_path / "outputs", "ft_l", status="running")
    assert "(there are: rome)" in romexp(*SMALL).err


def test_an_editor_that_was_run_in_two_ways_must_be_chosen(romexp: Command, tmp_path: Path) -> None:
    run_folder(tmp_path / "outputs", "ft_l")
    one, two = (run_folder(tmp_path / "outputs", "rome", layer=layer) for layer in (1, 2))
    done = romexp(*SMALL)
    assert done.status == 2
    assert "rome was run in 2 ways" in done.err
    assert "task.results=" in done.err
    folder = asked(romexp, f"task.results=[{one.parents[1] / 'ft_l'},{two}]")
    assert key_of(folder)["runs"][-1] == str(two)


def test_fewer_cases_than_wanted(romexp: Command, tmp_path: Path) -> None:
    for editor in ("ft_l", "rome"):
        run_folder(tmp_path / "outputs", editor, cases=5)
    done = romexp(*SMALL)
    assert done.status == 0
    assert "only 5 cases could be drawn, 12 were wanted" in done.out


def test_other_editors_can_be_compared(romexp: Command, tmp_path: Path) -> None:
    for editor in ("ft_l", "rome"):
        run_folder(tmp_path / "outputs", editor)
    folder = asked(romexp, "task.editors=[ft_l,rome]")
    assert {len(item["order"]) for item in key_of(folder)["items"]} == {2}
    twice = romexp(*SMALL, "task.editors=[rome,rome]")
    assert (twice.status, "two or more different names" in twice.err) == (2, True)
