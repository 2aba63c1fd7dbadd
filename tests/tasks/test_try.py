"""`task=try`: what it shows, what it saves, what it refuses, and the conversation after it."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from io import StringIO
from pathlib import Path

import pytest
import torch
from rich.console import Console
from tiny_runs import Command, Done

from romexp.api.datasets import dataset
from romexp.api.edits import load_edit
from romexp.api.models import load
from romexp.cli.conversation import converse
from romexp.cli.job import Job, Outcome
from romexp.cli.kept_between_jobs import LoadedModels
from romexp.cli.run_job import plain
from romexp.cli.validate_config import build, validate_config
from romexp.compose import compose_config, first_model
from romexp.minifact.assets import model_dir
from romexp.tasks.try_conversation import TryConversation
from romexp.tracking import NoTracker

pytestmark = pytest.mark.skipif(not (model_dir() / "model.safetensors").is_file(), reason="no shipped model")

FACT = ["subject=Marik Mirberg", "prompt='{} plays the'", "target=harp"]


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("cache")


@pytest.fixture
def tried(romexp: Command, cache: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Done]:
    """`romexp task=try` on minifact at 80 columns."""
    monkeypatch.setenv("COLUMNS", "80")

    def call(*arguments: str) -> Done:
        return romexp("task=try", "model=minifact", "model.device=cpu", f"cache_dir={cache}", *arguments)

    return call


def test_the_screen_shows_the_edit_and_what_it_left_alone(tried: Callable[..., Done]) -> None:
    done = tried("output_dir=first")
    assert done.status == 0, done.err
    old, new = (re.search(rf"^{side} +(\w+) +([\d.]+) % +([\d.]+) %", done.out, re.M) for side in ("old", "new"))
    assert old
    assert new
    assert (old[1], new[1]) == ("piano", "cello")
    assert float(old[2]) > 50 > float(old[3])
    assert float(new[2]) < 10 < 80 < float(new[3])
    assert "Selus Dunwood plays the cello" in done.out
    assert "6 of 6 keep their next token" in done.out
    assert "first/edit.safetensors" in done.out
    assert len(done.out.splitlines()) < 50, "more than one screen"


def test_the_saved_edit_is_the_one_that_was_shown(tried: Callable[..., Done]) -> None:
    assert tried(*FACT, "output_dir=own").status == 0
    edit = load_edit("own/edit.safetensors", load("minifact", device="cpu"))
    assert (edit.request.subject, edit.request.target_new) == ("Marik Mirberg", "harp")
    before, after = edit.probabilities
    assert before < 0.2 < 0.8 < after
    manifest = json.loads(Path("own/manifest.json").read_text())
    assert manifest["identity"]["request"] == ["Marik Mirberg", "{} plays the", "harp"]
    assert Path("own/status").read_text().strip() == "done"


def test_the_same_command_shows_the_saved_edit_again(tried: Callable[..., Done]) -> None:
    first = tried(*FACT, "output_dir=own")
    made = Path("own/edit.safetensors").stat().st_mtime_ns
    second = tried(*FACT, "output_dir=own", "task.tokens=5")
    assert second.status == 0, second.err
    assert Path("own/edit.safetensors").stat().st_mtime_ns == made
    assert first.out.splitlines()[:6] == second.out.splitlines()[:6]
    Path("own/edit.safetensors").unlink()
    assert tried(*FACT, "output_dir=own").status == 0
    assert Path("own/edit.safetensors").is_file()


def test_a_prompt_may_hold_the_subject_itself(tried: Callable[..., Done]) -> None:
    assert tried("subject=Marik Mirberg", "prompt=Marik Mirberg plays the", "target=harp", "output_dir=own").status == 0
    request = json.loads(Path("own/manifest.json").read_text())["identity"]["request"]
    assert request == ["Marik Mirberg", "{} plays the", "harp"]


def test_a_subject_of_the_world_is_shown_with_the_texts_of_its_record(tried: Callable[..., Done]) -> None:
    prompt = "{} plays the"
    record = next(case for case in dataset("minifact") if case.request.prompt == prompt)
    done = tried(f"subject={record.request.subject}", f"prompt='{prompt}'", "target=harp", "output_dir=own")
    assert f"texts about it and about others: record {record.case_id} of minifact" in done.out
    flat = " ".join(done.out.split())
    assert record.paraphrase_prompts[0][:40] in flat
    assert all(text[:30] in flat for text in record.neighborhood_prompts[:6])
    assert "Selus" not in done.out


def test_a_text_about_the_subject_is_none_about_others(tried: Callable[..., Done]) -> None:
    done = tried("subject=Velo Dunman", "prompt='{} plays the'", "target=harp", "task.facts.limit=1", "output_dir=own")
    assert done.status == 0, done.err
    assert "of 5 keep" in done.out, "one of the example's six names Velo Dunman"
    assert "record" not in done.out


def test_texts_of_ones_own(tried: Callable[..., Done]) -> None:
    done = tried(*FACT, "task.ask=['{} was born in']", "task.keep=['Velo Dunman was born in']", "output_dir=own")
    assert "Marik Mirberg was born in" in done.out
    assert "1 of 1 keep" in done.out
    assert "Selus" not in done.out
    assert "record" not in done.out


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["subject=Marik Mirberg", "prompt=Somebody plays the", "target=harp"], "prompt: subject 'Marik Mirberg'"),
        (["subject=Marik Mirberg", "prompt='{} and {} play the'", "target=harp"], "expected one {}"),
        (["subject=Marik Mirberg", "prompt='{} plays the'", "target=''"], "target is empty"),
        (["subject=' '", "prompt='{} plays the'", "target=harp"], "subject is empty"),
        (["subject=Marik Mirberg", "prompt='{} plays the'", "target=trumpet"], "says 'trumpet' already"),
        (["subject=Marik Mirberg", "target=harp"], "prompt must be given too"),
        (["task.keep=['']"], "task.keep: a text is empty"),
        (["task.tokens=0"], "task.tokens"),
    ],
)
def test_what_cannot_be_tried_is_one_line(tried: Callable[..., Done], arguments: list[str], said: str) -> None:
    done = tried(*arguments, "output_dir=refused")
    assert done.status == 2
    assert said in done.err
    assert len(done.err.strip().splitlines()) == 1
    assert not Path("refused").exists()


def test_a_target_without_a_task_that_reads_it_is_refused(romexp: Command) -> None:
    done = romexp("target=harp", "tracker=none")
    assert done.status == 2
    assert "target: task=edit does not read it (task=try does)" in done.err


def test_the_first_model_is_one_that_is_there(romexp: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("romexp.compose.find_spec", lambda name: None)
    assert first_model() == "minifact"
    shown = romexp("task=try", "--cfg", "job")
    assert "name: minifact" in shown.out
    assert "Selus Dunwood" in shown.out
    chosen = romexp("task=try", "model=gpt2", "--cfg", "job")
    assert "name: gpt2" in chosen.out
    assert "Eiffel Tower" in chosen.out
    monkeypatch.setattr("romexp.compose.find_spec", lambda name: name)
    assert first_model() == "smollm2"


@pytest.fixture(scope="module")
def models() -> LoadedModels:
    return LoadedModels()


@pytest.fixture
def conversation(tmp_path: Path, cache: Path, models: LoadedModels) -> TryConversation:
    """The conversation after the edit of minifact's example."""
    config = validate_config(compose_and_resolve("task=try", "model=minifact", "model.device=cpu"))
    job = Job(
        config={},
        choices={"model": "minifact", "editor": "rome"},
        tracker=NoTracker(),
        outputs=tmp_path,
        output_dir=tmp_path / "run",
        cache_dir=cache,
        seed=0,
        models=models,
    )
    outcome: Outcome = build(config["task"], where="task")(job)
    assert isinstance(outcome.conversation, TryConversation)
    return outcome.conversation


def compose_and_resolve(*overrides: str) -> dict[str, object]:
    return plain(compose_config(overrides))


def said(conversation: TryConversation, line: str) -> str:
    console = Console(width=80, file=StringIO(), record=True)
    for part in conversation.answer(line):
        console.print(part, markup=False)
    return console.export_text()


def test_a_text_is_continued_by_both_models(conversation: TryConversation) -> None:
    answer = said(conversation, "Selus Dunwood performs on the")
    assert "piano" in answer
    assert "cello" in answer
    assert "≠" in answer
    same = said(conversation, "Sabra Pellari works as a")
    assert "≠" not in same.splitlines()[-1]


def test_a_trace_is_drawn_as_text_and_picture(conversation: TryConversation) -> None:
    answer = said(conversation, ":trace")
    assert "Selus Dunwood plays the" in answer
    for title in ("state restored", "MLPs restored", "attention restored"):
        assert title in answer
    rows = [line for line in answer.splitlines() if "│" in line]
    n_layers = conversation.lm.n_layers
    assert {len(line.partition("│")[2]) - 1 for line in rows} == {2 * n_layers}
    assert any("Dunwood*" in line for line in rows)
    assert (conversation.folder / "figures" / "trace_1.png").is_file()
    assert "█" in answer, "some state brings the answer back"


def test_edits_add_up_and_are_taken_away(conversation: TryConversation) -> None:
    before = {name: value.clone() for name, value in conversation.lm.model.state_dict().items()}
    answer = said(conversation, ":edit {} works as a|Velo Dunman|poet")
    assert "new  poet" in answer
    assert "edit_2.safetensors" in answer.replace("\n", "")
    both = said(conversation, "Selus Dunwood plays the")
    assert "cello" in both, "the first edit holds beside the second"
    assert "1 edit left" in said(conversation, ":undo")
    assert "≠" not in said(conversation, ":undo"), "both models say the same again"
    assert (conversation.folder / "edit_2.safetensors").is_file(), "what was made is kept"
    after = conversation.lm.model.state_dict()
    assert all(torch.equal(value, after[name]) for name, value in before.items())


BAD_LINES = {
    ":edit {} works as a|Velo Dunman": "expected text|subject|new answer",
    ":edit Nobody works as a|Velo Dunman|poet": "prompt: subject 'Velo Dunman'",
    ":export": "expected a folder",
    ":export there onnx": "expected peft or hf, not 'onnx'",
    ":nothing": "there is no such command (there are :help",
    ":trace Napoleon": "Napoleon",
}


def test_a_bad_line_is_answered_and_the_conversation_goes_on(
    conversation: TryConversation, capsys: pytest.CaptureFixture[str]
) -> None:
    lines: Iterator[str] = iter([*BAD_LINES, ":help", ":quit", "never read"])
    converse(conversation, read=lambda prompt: next(lines))
    seen = capsys.readouterr()
    for line, (answer, expected) in zip(
        BAD_LINES, zip(seen.err.splitlines(), BAD_LINES.values(), strict=True), strict=True
    ):
        assert expected in answer, line
    assert ":undo" in seen.out
    assert next(lines) == "never read"

    def end(prompt: str) -> str:
        raise EOFError

    converse(conversation, read=end)
