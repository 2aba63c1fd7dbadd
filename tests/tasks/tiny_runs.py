"""A tiny model on disk, a few records, and the command as a function, in this process or in one of its own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]

SUBJECTS = ("Anna Zoë", "Bob", "Steve Jobs", "Danielle Darrieux", "The Space Needle", "The bank", "Édouard", "Paris")


def record(case_id: int) -> dict[str, Any]:
    """A record in CounterFact's schema; the texts are what the tiny tokenizer was trained on."""
    subject = SUBJECTS[case_id % len(SUBJECTS)]
    return {
        "case_id": case_id,
        "requested_rewrite": {
            "prompt": "{} plays the",
            "relation_id": "P1",
            "subject": subject,
            "target_new": {"str": "violin", "id": "Q1"},
            "target_true": {"str": "piano", "id": "Q2"},
        },
        "paraphrase_prompts": [f"It is said that {subject} plays the"],
        "neighborhood_prompts": ["Müller plays the"],
        "attribute_prompts": ["Zürich plays the"],
        "generation_prompts": [f"{subject} is", f"{subject} plays"],
    }


@dataclass(frozen=True)
class Done:
    """What a command left behind."""

    status: int
    out: str
    err: str


@pytest.fixture(scope="session")
def tiny_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny random GPT-2 as a local folder."""
    from conftest import make_tiny

    folder = tmp_path_factory.mktemp("model") / "tiny"
    lm = make_tiny("gpt2")
    lm.model.save_pretrained(folder)
    lm.tokenizer.save_pretrained(folder)
    return folder


@pytest.fixture(scope="session")
def records_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve good records."""
    path = tmp_path_factory.mktemp("records") / "records.json"
    path.write_text(json.dumps([record(i) for i in range(12)]))
    return path


@pytest.fixture(scope="session")
def tiny(tiny_dir: Path, records_file: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Overrides for a run of seconds: ROME on the tiny model, two contexts, no second moment, no texts."""
    contexts = tmp_path_factory.mktemp("contexts") / "contexts.json"
    contexts.write_text(json.dumps(["{}", "Paris, Paris! {}"]))
    return [
        "model=hf",
        f"model.path={tiny_dir}",
        "model.device=cpu",
        "dataset=counterfact",
        f"dataset.path={records_file}",
        "editor=rome",
        "editor.layer=1",
        "editor.v_num_grad_steps=6",
        "editor.v_lr=0.1",
        "editor.mom2_adjustment=false",
        "editor.clamp_norm_factor=4",  # as by default, but chosen for this model
        f"editor.context_templates={contexts}",
        "evaluator.generation=off",
        "tracker=none",
        f"cache_dir={tmp_path_factory.mktemp('cache')}",
    ]


Command = Callable[..., Done]


@pytest.fixture
def romexp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """The command in this process, in an empty folder: `romexp(*arguments) -> Done`."""
    from romexp.__main__ import main

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")  # tables in one piece
    monkeypatch.setattr("romexp.cli.run_job.ANNOUNCE_AFTER_S", 3600.0)  # what is said does not depend on the machine
    monkeypatch.setenv("HYDRA_FULL_ERROR", "")  # the command sets it; this takes it back afterwards

    def call(*arguments: str) -> Done:
        monkeypatch.setattr(sys, "argv", ["romexp", *arguments])
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main()
        captured = capsys.readouterr()
        return Done(status=int(end.value.code or 0), out=captured.out, err=captured.err)

    return call


def start(*arguments: str, cwd: Path) -> subprocess.Popen[str]:
    """The command in a process of its own."""
    environment = os.environ | {"PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1", "COLUMNS": "200"}
    command = [sys.executable, "-m", "romexp", *arguments]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, cwd=cwd, env=environment, stdout=pipe, stderr=pipe, text=True)


def rows(folder: Path, *, without: tuple[str, ...] = ("time",)) -> list[dict[str, Any]]:
    """Lines of `cases.jsonl`, without what differs from run to run."""
    lines = [json.loads(line) for line in (folder / "cases.jsonl").read_text().splitlines()]
    return [{key: value for key, value in line.items() if key not in without} for line in lines]
