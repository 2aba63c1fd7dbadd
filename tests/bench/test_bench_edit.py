"""bench/edit.py: all variants run, agree, and are told apart when they do not. What it measures is not tested."""

from __future__ import annotations

import io
import json
import sys
from collections.abc import Callable, Iterator
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from bench_process import ROOT, run_bench
from rich.console import Console

from romexp.editors.many.emmet import Emmet
from romexp.editors.many.memit import Memit
from romexp.errors import ConfigError
from romexp.lm.model import LanguageModel
from romexp.lm.weight_delta import LowRank, WeightDelta

PEOPLE = [("Danielle Darrieux", "French", "English"), ("Steve Jobs", "English", "German")]
MODULES = ("edit", "ours", "plain", "reference", "reference_copy", "reference_memit", "report", "timing", "workload")


def _record(case_id: int, subject: str, new: str, true: str) -> dict[str, Any]:
    return {
        "case_id": case_id,
        "requested_rewrite": {
            "prompt": "The mother tongue of {} is",
            "relation_id": "P103",
            "target_new": {"str": new, "id": "Q1"},
            "target_true": {"str": true, "id": "Q2"},
            "subject": subject,
        },
        "paraphrase_prompts": [f"It is said. {subject}, a native"],
        "neighborhood_prompts": ["The mother tongue of Anna is", "The mother tongue of Bob is"],
        "attribute_prompts": ["The mother tongue of Zoë is"],
        "generation_prompts": [f"The mother tongue of {subject} is", f"{subject} plays the"],
    }


@pytest.fixture(scope="module")
def arguments(tiny_factory: Callable[..., LanguageModel], tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """Options for two records on a tiny model, all of it in a folder of its own."""
    folder = tmp_path_factory.mktemp("bench")
    lm = tiny_factory("gpt2")
    lm.model.save_pretrained(folder / "model")
    lm.tokenizer.save_pretrained(folder / "model")
    (folder / "records.json").write_text(json.dumps([_record(i, *person) for i, person in enumerate(PEOPLE)]))
    (folder / "contexts.json").write_text(json.dumps(["{}", "Paris, Paris. {}", "It is said. {}"]))
    keys = torch.randn(500, 64)
    np.savez(folder / "covariance.npz", moment=(keys.T @ keys / 500).numpy())
    paths = {"model": "model", "data": "records.json", "contexts": "contexts.json", "covariance": "covariance.npz"}
    given = [part for option, name in paths.items() for part in (f"--{option}", str(folder / name))]
    return ["--records", "2", "--repeats", "1", "--device", "cpu", "--layer", "1", "--max-length", "16", *given]


@pytest.fixture(scope="module")
def report(arguments: list[str]) -> dict[str, Any]:
    """What the command prints."""
    done = run_bench("edit", [*arguments, "--generation", "--output", "json"])
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture
def bench(monkeypatch: pytest.MonkeyPatch) -> Iterator[SimpleNamespace]:
    """The benchmark's modules, imported as the script does and forgotten afterwards: their names are common ones."""
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    modules = {name: import_module(name) for name in MODULES}
    assert all(str(module.__file__).startswith(str(ROOT / "bench")) for module in modules.values())
    yield SimpleNamespace(**modules)
    for name in MODULES:
        sys.modules.pop(name, None)


def test_every_variant_is_timed_against_every_other(report: dict[str, Any]) -> None:
    edits = {row["variant"]: row for row in report["rows"] if row["task"] == "edits"}
    assert list(edits) == ["batched", "single", "plain"]
    for name, row in edits.items():
        assert row["records"] == 2
        assert row["seconds_per_record"] == pytest.approx(row["phases"]["edit"] + row["phases"]["metrics"])
        assert row["records_per_second"] == pytest.approx(1 / row["seconds_per_record"])
        for other, times in row["times_faster"].items():
            assert times == pytest.approx(edits[other]["seconds_per_record"] / row["seconds_per_record"])
        assert set(row["times_faster"]) == set(edits) - {name}
    assert {"torch", "cpu", "threads", "date"} <= set(report["environment"])


def test_variants_agree(report: dict[str, Any]) -> None:
    assert report["failures"] == []
    for row in report["rows"]:
        if row["task"] == "edits" and row["variant"] != "batched":
            assert 0 <= row["differences"]["u"] < 1e-4
            assert 0 <= row["differences"]["right"] < 1e-3
            assert 0 <= row["differences"]["nll"] < 1e-3
    texts = {row["variant"]: row["differences"] for row in report["rows"] if row["task"] == "generation"}
    assert texts == {"batched": {"same_texts": 1.0}, "single": {"same_texts": 1.0}}


def test_the_table_has_a_line_a_variant(report: dict[str, Any], bench: SimpleNamespace) -> None:
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(bench.report.table(report["rows"], title=report["title"], caption=report["caption"]))
    text = console.export_text()
    lines = [line.split("│")[1:3] for line in text.splitlines() if line.startswith("│")]
    shown = [(task.strip(), variant.strip()) for task, variant in lines]
    assert shown == [(row["task"], row["variant"]) for row in report["rows"]]
    assert "100% same texts" in text


def test_differences_are_seen(bench: SimpleNamespace) -> None:
    def edited(u: torch.Tensor, right: torch.Tensor, nll: float) -> Any:
        terms = {"a.weight": LowRank(left=u[:, None], right=right[:, None])}
        return bench.workload.Edited(deltas=[WeightDelta(terms=terms)], nlls=[[nll, 1.0]])

    u, right = torch.tensor([0.6, 0.8]), torch.tensor([3.0, 4.0])
    found = bench.report.edit_differences(edited(u, right + torch.tensor([0.0, 0.5]), 2.25), edited(u, right, 2.0))
    assert found == {"u": 0.0, "right": pytest.approx(0.1), "nll": 0.25}
    row = {"variant": "single", "device": "cpu", "ours": True, "differences": {"u": 0.0, "right": 2e-3, "nll": 0.0}}
    assert len(bench.edit._failures([row])) == 1
    assert "right" in bench.edit._failures([row])[0]
    assert len(bench.edit._failures([{**row, "differences": {"u": float("nan")}}])) == 1
    assert bench.edit._failures([{**row, "differences": {"right": 5e-4}}]) == []
    assert bench.edit._failures([{**row, "ours": False}]) == []


def test_disagreement_ends_in_status_one(
    arguments: list[str], bench: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    honest = bench.plain._nlls
    monkeypatch.setattr(bench.plain, "_nlls", lambda lm, case: [nll + 0.01 for nll in honest(lm, case)])
    assert bench.edit.main([*arguments, "--output", "json"]) == 1
    captured = capsys.readouterr()
    assert "NOT EQUAL: plain on cpu: nll differs by 1.0e-02" in captured.err
    assert "single" not in captured.err.partition("NOT EQUAL")[2]


def _checkout(folder: Path, modules: list[str]) -> None:
    for name in modules:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text('WHERE = ["cuda", "cuda:0", "cuda_like"]\nf = lambda x: x.cuda()\n')


def test_a_checkout_is_copied_with_another_device(bench: SimpleNamespace, tmp_path: Path) -> None:
    _checkout(tmp_path / "given", [*bench.reference.NEEDED, "rome/layer_stats.py"])
    bench.reference_copy._copy(tmp_path / "given", tmp_path / "copy", torch.device("cpu"), {})
    changed = (tmp_path / "copy/rome/rome_main.py").read_text()
    assert changed == "WHERE = ['cpu', 'cpu', \"cuda_like\"]\nf = lambda x: x.to('cpu')\n"
    assert "cuda" not in (tmp_path / "copy/rome/layer_stats.py").read_text()
    assert '"cuda"' in (tmp_path / "given/rome/rome_main.py").read_text()


def test_a_folder_without_the_authors_code_is_refused(bench: SimpleNamespace, tmp_path: Path) -> None:
    _checkout(tmp_path, list(bench.reference.NEEDED[1:]))
    with pytest.raises(ConfigError, match=r"no checkout of kmeng01/rome, it lacks rome/rome_main\.py"):
        bench.reference.load(tmp_path, torch.device("cpu"))


def test_values_of_other_code_are_refused_without_it(
    bench: SimpleNamespace, tiny_factory: Callable[..., LanguageModel], tmp_path: Path
) -> None:
    given = {"lm": tiny_factory("gpt2"), "path": "", "layer": 1, "templates": [["{}"]]}
    with pytest.raises(ConfigError, match=r"no checkout of kmeng01/memit, it lacks memit/compute_z\.py"):
        bench.reference_memit.authors_values(tmp_path, editor=Memit(layers=[1]), **given)
    with pytest.raises(ConfigError, match="goes with --method memit"):
        bench.reference_memit.authors_values(tmp_path, editor=Emmet(layers=[1]), **given)


def test_modules_are_as_listed() -> None:
    others = ("attribution", "kn", "lifelong", "measured_row", "models", "overview", "reference_trace", "report_scale")
    assert sorted((*MODULES, *others, "trace", "works")) == sorted(path.stem for path in (ROOT / "bench").glob("*.py"))
