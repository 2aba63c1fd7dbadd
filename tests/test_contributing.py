"""CONTRIBUTING.md is true: its recipes are put where they say they go, and its command is run."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
import yaml
from conftest import ROOT, make_tokenizer
from transformers import AutoConfig, AutoModelForCausalLM

from romexp.lm.apply_delta import applied
from romexp.lm.architecture import Architecture
from romexp.lm.hooks import capture
from romexp.lm.model import LanguageModel, PretrainedModel
from romexp.lm.tokens import encode, subject_range
from romexp.lm.weight_delta import WeightDelta

BLOCK = re.compile(r"^```(?P<language>\w*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
FACTS = [
    {"id": 7, "subject": "Steve Jobs", "template": "{} was the founder of", "old": "Apple", "new": "Paris"},
    {"id": 8, "subject": "Anna", "template": "It is said that {} plays the", "old": "violin", "new": "piano"},
    {"id": 9, "subject": "Bob", "template": "no slot", "old": "violin", "new": "piano"},
]


def blocks() -> list[tuple[str, str]]:
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    return [(match["language"], match["body"]) for match in BLOCK.finditer(text)]


def recipes() -> dict[str, str]:
    """Content by the path that a block's first line names."""
    found = {}
    for language, body in blocks():
        if language in ("python", "yaml"):
            first = re.match(r"# (\S+)\n", body)
            assert first, f"a block does not name its file: {body[:60]!r}"
            found[first[1]] = body[first.end() :]
    return found


@pytest.fixture(scope="module")
def tree(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of the package and its configuration, with the recipes in place."""
    tree = tmp_path_factory.mktemp("contributor")
    for part in ("romexp", "conf", "sweeps"):
        if (ROOT / part).exists():
            ignore = shutil.ignore_patterns("assets", "__pycache__")
            shutil.copytree(ROOT / part, tree / part, symlinks=True, ignore=ignore)
    for path, content in recipes().items():
        target = tree / path
        assert not target.exists(), f"{path} exists already"
        target.write_text(content, encoding="utf-8")
    (tree / "facts.json").write_text(json.dumps(FACTS))
    return tree


@pytest.fixture(scope="module")
def phi(tree: Path) -> Path:
    """A tiny random Phi."""
    tokenizer = make_tokenizer()
    config = AutoConfig.for_model(
        "phi",
        vocab_size=len(tokenizer),
        hidden_size=32,
        intermediate_size=64,
        num_hidden_layers=4,
        num_attention_heads=4,
        max_position_embeddings=128,
        initializer_range=0.2,
    )
    torch.manual_seed(0)
    AutoModelForCausalLM.from_config(config).save_pretrained(tree / "tiny-phi")
    tokenizer.save_pretrained(tree / "tiny-phi")
    return tree / "tiny-phi"


@pytest.fixture(scope="module")
def output(tree: Path, phi: Path) -> str:
    """What the command of CONTRIBUTING.md prints, on the tiny model."""
    (command,) = [body.strip() for language, body in blocks() if language == "" and body.startswith("romexp ")]
    arguments = [*command.split()[1:], f"model.path={phi}", "model.device=cpu"]
    arguments += ["tracker=none", "save_deltas=true", "output_dir=out", f"cache_dir={tree / 'cache'}"]
    done = subprocess.run(
        [sys.executable, "-m", "romexp", *arguments],
        cwd=tree,
        env={**os.environ, "PYTHONPATH": str(tree), "COLUMNS": "200"},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_recipes_work_together(output: str, tree: Path) -> None:
    assert re.search(r"│ Forget +│", output)
    assert "phi-2, flat, 2 cases" in output
    rows = [json.loads(line) for line in (tree / "out" / "cases.jsonl").read_text().splitlines()]
    assert [row["case_id"] for row in rows] == [7, 8]
    assert all(row["pre"]["rewrite_prompts"] != row["post"]["rewrite_prompts"] for row in rows)


def test_a_bad_record_of_the_new_data_set_is_named(output: str, tree: Path) -> None:
    assert "set aside: 1 records" in output
    (rejected,) = json.loads((tree / "out" / "manifest.json").read_text())["rejected"]
    assert (rejected["index"], rejected["field"]) == (2, "template")


def test_the_editor_does_what_its_formula_says(output: str, tree: Path, phi: Path) -> None:
    """k(W + ΔW) = 0 at the subject's last token, and nothing of the kind without the edit."""
    row = yaml.safe_load(recipes()["conf/model/phi.yaml"])["architecture"]
    del row["_target_"]
    row["attn_qkv"] = tuple(row["attn_qkv"])
    lm = PretrainedModel(path=phi, device="cpu", architecture=Architecture(**row)).load()
    text = FACTS[0]["template"].format(FACTS[0]["subject"])  # type: ignore[attr-defined]
    with applied(lm, WeightDelta.load(tree / "out" / "deltas" / "7.safetensors")):
        edited = memory_output(lm, text, "Steve Jobs")
    assert edited.norm() < 1e-4 * memory_output(lm, text, "Steve Jobs").norm()


def memory_output(lm: LanguageModel, text: str, subject: str) -> torch.Tensor:
    """What the middle layer's MLP gives at the subject's last token, without its bias."""
    module = lm.architecture.mlp_out_name(2)
    (encoding,) = encode(lm.tokenizer, [text])
    with torch.no_grad(), capture(lm, [module]) as seen:
        lm.model(input_ids=torch.tensor([encoding.ids]))
    _, end = subject_range(encoding, text.index(subject), subject)
    return seen[module][0, end - 1] - lm.parameter(f"{module}.bias")


@pytest.mark.parametrize("tool", [["ruff", "check"], ["ruff", "format", "--check"]], ids=" ".join)
def test_recipes_are_in_style(tree: Path, tool: list[str]) -> None:
    files = [str(tree / path) for path in recipes() if path.endswith(".py")]
    assert len(files) == 2
    config = ["--config", str(ROOT / "ruff.toml")]
    done = subprocess.run([sys.executable, "-m", *tool, *config, *files], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_every_file_that_the_text_names_exists() -> None:
    text = BLOCK.sub("", (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8"))
    named = [name for name in re.findall(r"`([\w./]+\.(?:py|yaml|md))`", text) if "/" in name]
    assert len(named) > 3
    assert [name for name in named if not (ROOT / name).exists()] == []
