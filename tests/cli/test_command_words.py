"""Words of the command line that are not Hydra's own: other names, `.env`, debug, trees, every job's configuration."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
import yaml
from tiny_runs import Command, rows

from romexp.cli.command_line import read_dotenv, ready_for_hydra
from romexp.cli.torch_settings import cpu_threads
from romexp.errors import ConfigError, FileError


@pytest.mark.parametrize(
    ("given", "ours"),
    [
        ("logger=tensorboard", "logger: it is called tracker here: tracker=tensorboard"),
        ("+logger=[csv,wandb]", "logger: it is called tracker here: tracker=[csv,wandb]"),
        ("logger.wandb.project=x", "logger: it is called tracker here: tracker.wandb.project=x"),
        ("~logger", "logger: it is called tracker here: tracker"),
        ("optimized_metric=S", "optimized_metric: it is called objective here: objective=S"),
    ],
)
def test_another_projects_name_is_told_ours(given: str, ours: str) -> None:
    with pytest.raises(ConfigError) as seen:
        ready_for_hydra(["editor=ft", given])
    assert str(seen.value) == ours


def test_other_words_are_let_through() -> None:
    given = ["loggers=1", "editor.logger=2", "debug=default", "debug=mine", "x=logger"]
    assert ready_for_hydra(given) == given


def test_it_is_one_line_of_the_command(romexp: Command) -> None:
    done = romexp("logger=csv")
    assert (done.status, done.err) == (2, "romexp: error: logger: it is called tracker here: tracker=csv\n")


@pytest.mark.parametrize("word", ["debug=true", "debug=on", "debug=default"])
def test_debug_is_one_record_without_a_tracker(
    word: str, romexp: Command, tiny: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    threads: list[int] = []
    monkeypatch.setattr(torch, "set_num_threads", threads.append)
    given = [each for each in tiny if each != "tracker=none"]
    done = romexp(*given, word, "output_dir=run")
    assert done.status == 0, done.err
    assert len(rows(tmp_path / "run")) == 1
    assert threads[0] == 1
    assert not (tmp_path / "run" / "wandb").exists()
    assert "Traceback" in romexp(*given, word, "task.batch_size=0").err


def test_debug_can_be_switched_off() -> None:
    assert ready_for_hydra(["debug=false", "seed=1", "debug=null"]) == ["seed=1"]


def test_threads_are_put_back() -> None:
    before = torch.get_num_threads()
    with cpu_threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
    with pytest.raises(ConfigError, match="threads: expected a number of at least 1, not 0"), cpu_threads(0):
        pass


def test_the_configuration_is_printed_as_a_tree(romexp: Command, tiny: list[str]) -> None:
    done = romexp(*tiny, "extras.print_config=true", "dataset.limit=1", "tags=[draft]", "editor.v_lr=0.125")
    assert done.status == 0, done.err
    tree = done.out[: done.out.index("tiny, ")]
    assert "v_lr: 0.125" in tree
    assert "- draft" in tree
    assert "${" not in tree
    assert "v_lr: 0.125" not in romexp(*tiny, "dataset.limit=1", "editor.v_lr=0.125").out, "a control"
    assert "extras.print_config: expected a valid boolean" in romexp(*tiny, "extras.print_config=3").err


def test_env_is_read_if_it_is_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("dotenv")
    monkeypatch.setenv("ROMEXP_TEST_SET", "kept")
    monkeypatch.delenv("ROMEXP_TEST_NEW", raising=False)
    read_dotenv(tmp_path)
    (tmp_path / ".env").write_text('ROMEXP_TEST_SET=other\nexport ROMEXP_TEST_NEW="a b"  # why\nnot a line\n')
    read_dotenv(tmp_path)
    assert (os.environ["ROMEXP_TEST_SET"], os.environ.pop("ROMEXP_TEST_NEW")) == ("kept", "a b")
    (tmp_path / ".env").write_bytes(b"A=\xff\xfe\n")
    with pytest.raises(FileError, match=r"\.env: not UTF-8 text$"):
        read_dotenv(tmp_path)


def test_the_command_reads_env(romexp: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("dotenv")
    monkeypatch.setenv("ROMEXP_CACHE", "taken back afterwards")
    monkeypatch.delenv("ROMEXP_CACHE")
    (tmp_path / ".env").write_text("ROMEXP_CACHE=/from/env\n")
    assert romexp("--cfg", "job", "--resolve", "-p", "cache_dir").out == "/from/env\n"


def test_every_job_of_a_sweep_shows_its_configuration(romexp: Command) -> None:
    done = romexp("-m", "editor=rome,ft", "seed=3", "editor.layer=1,2", "--cfg", "job")
    assert done.status == 0, done.err
    documents = list(yaml.safe_load_all(done.out))
    assert [(d["editor"]["name"], d["editor"]["layer"], d["seed"]) for d in documents] == [
        ("ROME", 1, 3), ("ROME", 2, 3), ("FT", 1, 3), ("FT", 2, 3),
    ]  # fmt: skip
    assert done.out.count("---\n") == 4
    assert "# job 2 of 4 (editor=rome editor.layer=2)" in done.out
    assert romexp("--cfg", "job", "-m", "seed=1", "-p", "seed").out == "---\n# job 1 of 1 (seed=1)\n1\n"


def test_also_those_of_a_study(romexp: Command) -> None:
    done = romexp("-m", "-cn", "fig5_minifact", "dataset.limit=3", "--cfg", "job", "-p", "editor.layer")
    assert done.status == 0, done.err
    assert done.out.count("---\n") == 32
    assert "# job 32 of 32 (editor.fact_token=last editor.layer=7)\n7\n" in done.out


@pytest.mark.parametrize("given", [["editor.lyer=1,2"], ["editor=rome,nothing"], ["seed=1,"]])
def test_a_mistake_there_is_one_line(given: list[str], romexp: Command) -> None:
    done = romexp("-m", *given, "--cfg", "job")
    assert (done.status, done.err.count("\n")) == (2, 1), done.err
    assert done.err.startswith("romexp: error: ")
