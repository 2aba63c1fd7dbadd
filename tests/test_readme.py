"""README.md and docs/*.md are true: commands run (on few cases), tables name what is there, links lead somewhere.

A comment before each block of code says how it is tested: `run` as it stands but on few cases, `compose` where it would
take a download (the configuration is composed and its parts are built), `python`, or `skip` with the reason.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import ROOT, make_tokenizer
from transformers import AutoConfig, AutoModelForCausalLM

from romexp.lm.architecture import Architecture
from romexp.lm.model import LanguageModel
from romexp.minifact import assets

PAGES = {str(path.relative_to(ROOT)): path for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))}
README = PAGES["README.md"].read_text(encoding="utf-8")
BLOCK = re.compile(
    r"(?:<!-- test: (?P<mark>.*?) -->\n)?^```(?P<language>\w*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL
)
FILE = re.compile(r"<!-- file: (?P<name>\S+) -->\n```\w+\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
FEW = {
    r"task=lifelong": ["evaluator.generation=off"],
    r"task=dataset": [],
    r"task=covariance": ["covariance.sample_size=100", "task.layers=[0]"],
    r"task=report": ["task.figures=false"],
    r"zsre|task=|questions": ["dataset.limit=2"],
    r"": ["dataset.limit=2", "evaluator.sampler.max_length=30"],
}
"""What is put before a command's own values, by the first pattern found in it: few cases, short texts."""
FEWER_EDITS = [
    (r"(task\.edits=)\d+", r"\g<1>4"),
    (r"(task\.step=)(5|10)$", r"\g<1>2"),
    (r"(task\.step=)\d\d+", r"\g<1>4"),
    (r"(task\.checkpoints=)\[.*\]", r"\g<1>[2]"),
]
"""What takes the place of numbers of edits in sequences."""

DRIVER = """
import contextlib, io, json, sys
from pathlib import Path
from romexp.__main__ import CONFIG, main

def compose(arguments):
    from hydra import compose, initialize_config_dir
    from hydra.utils import instantiate
    with initialize_config_dir(str(CONFIG), version_base="1.3"):
        instantiate(compose("config", arguments).task)

results = []
for kind, code in json.loads(Path("commands.json").read_text()):
    out, status = io.StringIO(), 0
    with contextlib.redirect_stdout(out):
        if kind == "python":
            exec(code, {})
        elif kind == "compose":
            compose(code)
        else:
            sys.argv = ["romexp", *code]
            try:
                main()
            except SystemExit as end:
                status = end.code or 0
    results.append([status, out.getvalue()])
    Path("results.json").write_text(json.dumps(results))
"""


def blocks() -> list[tuple[str, str, str]]:
    """(mark, language, body) of each block of all pages."""
    texts = [page.read_text(encoding="utf-8") for page in PAGES.values()]
    return [(m["mark"] or "", m["language"], m["body"]) for text in texts for m in BLOCK.finditer(text)]


def commands() -> list[tuple[str, Any]]:
    """What the driver does, in the pages' order: arguments of `romexp`, or Python code."""
    found: list[tuple[str, Any]] = []
    for mark, language, body in blocks():
        if mark == "python":
            found.append(("python", body))
        elif mark in ("run", "compose") and language == "sh":
            for line in body.splitlines():
                program, *arguments = shlex.split(line, comments=True)
                assert program == "romexp"
                few = next(extra for pattern, extra in FEW.items() if re.search(pattern, line))
                for pattern, fewer in FEWER_EDITS if mark == "run" else ():
                    arguments = [re.sub(pattern, fewer, argument) for argument in arguments]
                if mark == "run":  # beside the values that are there: options may stand before or after them
                    at = next((i for i, argument in enumerate(arguments) if "=" in argument), len(arguments))
                    arguments[at:at] = few
                if (mark, arguments) not in found:  # what several pages show runs where it comes first
                    found.append((mark, arguments))
    return found


def own_files(folder: Path) -> None:
    """The files that a reader would bring along, and those that the pages show."""
    tokenizer = make_tokenizer()
    config = AutoConfig.for_model(
        "gpt2", vocab_size=len(tokenizer), n_embd=32, n_layer=4, n_head=4, n_inner=64, n_positions=512
    )
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(folder / "my-model")
    tokenizer.save_pretrained(folder / "my-model")
    for name, source in (("records.json", assets.counterfact_path()), ("questions.json", assets.zsre_path())):
        (folder / name).write_text(json.dumps(json.loads(source.read_text(encoding="utf-8"))[:5]))
    lines = assets.corpus_path().read_text(encoding="utf-8").splitlines()[:100]
    (folder / "text.txt").write_text("\n\n".join(lines), encoding="utf-8")
    for page in PAGES.values():
        for shown in FILE.finditer(page.read_text(encoding="utf-8")):
            (folder / shown["name"]).write_text(shown["body"], encoding="utf-8")
    np.savez(folder / "second_moments.npz", moment=np.eye(64, dtype=np.float32))


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory, minifact_lm: LanguageModel) -> list[tuple[str, Any, int, str]]:
    """Every command with its exit status and what it printed; all in one process, in a folder of their own."""
    folder = tmp_path_factory.mktemp("reader")
    own_files(folder)
    todo = commands()
    (folder / "commands.json").write_text(json.dumps(todo))
    environment = {**os.environ, "ROMEXP_CACHE": str(folder / "cache"), "COLUMNS": "200", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", DRIVER], cwd=folder, env=environment, capture_output=True, text=True, timeout=900
    )
    assert done.returncode == 0, done.stderr
    ended = json.loads((folder / "results.json").read_text())
    failed = [code for (_, code), (status, _) in zip(todo, ended, strict=True) if status]
    assert not failed, f"{failed}: {done.stderr}"
    return [(kind, code, status, out) for (kind, code), (status, out) in zip(todo, ended, strict=True)]


def test_every_command_runs(results: list[tuple[str, Any, int, str]]) -> None:
    assert len(results) > 15
    for kind, code, _, out in results:
        if kind == "run" and "--cfg" not in code and not any(argument.startswith("task=") for argument in code):
            assert "results: " in out, code
            # A sweep's table has a row for the unedited model only where all jobs measured the same one.
            assert ("cases each" if {"-m", "-cn"} & set(code) else "unedited") in out, code


def test_every_block_says_how_it_is_tested() -> None:
    for mark, language, body in blocks():
        if language in ("sh", "python"):
            assert re.match(r"(run|compose|python)$|skip \(.+\)$", mark), body


def test_the_table_of_groups_is_complete() -> None:
    rows = re.findall(r"^\| `(\w+)` \| [^|]+ \| (.+) \|$", README, re.MULTILINE)
    named = {group: set(re.findall(r"`([\w.-]+)`", options)) for group, options in rows}
    there = {
        folder.name: {file.stem for file in folder.glob("*.yaml")}
        for folder in (ROOT / "conf").iterdir()
        if folder.is_dir() and folder.name not in ("hydra", "editor_model")
    }
    assert named == there


@pytest.mark.parametrize("name", PAGES)
def test_links_and_paths_lead_somewhere(name: str) -> None:
    page = PAGES[name]
    for target in re.findall(r"\]\(([^)]+)\)", page.read_text(encoding="utf-8")):
        if target.startswith("https://"):
            continue
        file, _, anchor = target.partition("#")
        there = page.parent / file if file else page
        assert there.exists(), target
        assert not anchor or anchor in anchors(there), target


def anchors(page: Path) -> set[str]:
    """What a page's headings are called in links to them."""
    headings = re.findall(r"^#+ (.+)$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_the_shown_output_is_that_of_the_default_run() -> None:
    """`python docs/refresh.py` writes it; here only that it is there, and of the shape it has today."""
    shown = README.partition("<!-- refresh: output -->")[2].partition("<!-- /refresh -->")[0]
    for text in ("unedited", "ROME", "100 cases", "results: outputs/edit/minifact/minifact/rome/", "W&B run: "):
        assert text in shown


def test_the_messages_that_it_explains_are_those_of_the_program() -> None:
    table = README.partition("## When something goes wrong")[2].partition("## ")[0]
    source = "".join(file.read_text(encoding="utf-8") for file in (ROOT / "romexp").rglob("*.py"))
    messages = re.findall(r"^\| `(.+?)` \|", table, re.MULTILINE)
    assert len(messages) >= 4
    for message in messages:
        assert message.strip("… ") in source, message


def test_a_family_takes_as_many_lines_as_it_says() -> None:
    numbers = {"eight": 8, "nine": 9, "ten": 10, "eleven": 11}
    match = re.search(r"write `model\.architecture`, (\w+) lines", README)
    assert match
    needed = [field for field in fields(Architecture) if field.name != "weight_layout"]
    assert numbers[match[1]] == len(needed)


@pytest.mark.parametrize("name", [*PAGES, "CONTRIBUTING.md"])
def test_every_configuration_value_that_is_named_exists(name: str) -> None:
    """`editor.keys`, `task.batch_size`, …: looked up in the group's options."""
    text = (ROOT / name).read_text(encoding="utf-8")
    groups = {folder.name for folder in (ROOT / "conf").iterdir() if folder.is_dir()}
    for group, key in set(re.findall(r"\b([a-z]+)\.([a-z_]+)\b(?=[=`])", text)):
        if group not in groups:
            continue
        options = [file.read_text(encoding="utf-8") for file in (ROOT / "conf" / group).glob("*.yaml")]
        assert any(re.search(rf"^{key}:", option, re.MULTILINE) for option in options), f"{group}.{key}"
