"""bench/overview.py: a row for every model and work, or the reason why there is none. The numbers are not tested."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator
from functools import partial
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from bench_process import ROOT
from transformers import GPT2Config

import romexp
from romexp.errors import ConfigError
from romexp.lm.model import LanguageModel

NAMES = (
    "overview", "measured_row", "works", "models", "timing", "workload", "ours",
    "reference", "reference_copy", "reference_trace",
)  # fmt: skip
OTHERS = ("kn", "trace", "report", "report_scale", "naive_trace")


@pytest.fixture
def bench(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_factory: Callable[..., LanguageModel]
) -> Iterator[SimpleNamespace]:
    """The modules, imported as the script does and forgotten afterwards: their names are common ones.

    A tiny model takes minifact's place, and the machine's peak is not measured.
    """
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    found = SimpleNamespace(**{name: import_module(name) for name in NAMES})
    tiny = tiny_factory("gpt2")
    lm = romexp.load(tiny.model, tiny.tokenizer, name="tiny")
    model = found.models.BenchModel(lm=lm, data=found.models.MINIFACT, folder=tmp_path)
    monkeypatch.setitem(found.models.MODELS, "minifact", lambda device, folder, settings: model)
    monkeypatch.setattr(found.measured_row, "peak", lambda device, dtype: 1000.0)
    yield found
    for name in (*NAMES, *OTHERS):
        sys.modules.pop(name, None)


def rows(bench: SimpleNamespace, folder: Path, *options: str) -> list[dict[str, Any]]:
    out = folder / "rows.json"
    sizes = ["--records", "1", "--samples", "2", "--text-tokens", "60", "--moment-tokens", "1000"]
    assert bench.overview.main([*sizes, "--output", str(out), *options]) == 0
    return json.loads(out.read_text())["rows"]


WORKS = ("edit", "ft", "trace", "generation", "moments", "kn", "mend", "ke", "zsre", "report")


@pytest.mark.parametrize("chosen", [("kn", "zsre", "report"), pytest.param(WORKS, marks=pytest.mark.slow)])
def test_every_work_has_a_row(
    bench: SimpleNamespace,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    chosen: tuple[str, ...],
) -> None:
    found = {"processor_seconds": 2.5}
    monkeypatch.setattr(bench.overview, "measure", lambda study, report: found)
    results = tmp_path / "RESULTS.md"
    results.write_text("# Results\n\nbefore\n\n<!-- overview -->\nold\n<!-- end of overview -->\n\nafter\n")
    made = rows(bench, tmp_path, "--models", "minifact", "--work", *chosen, "--results", str(results))
    assert [*bench.works.WORKS, "report"] == list(WORKS)
    assert [row["work"] for row in made] == list(chosen)
    for row in made[:-1]:
        assert row["note"] == "", row
        assert min(row["seconds"], row["gflop"], row["peak"], row["count"]) > 0
        assert row["gflop"] / row["seconds"] < 1.2 * row["peak"]
    assert (made[-1]["seconds"], made[-1]["gflop"]) == (2.5, None)
    text = results.read_text()
    assert text.startswith("# Results\n\nbefore\n")
    assert text.endswith("\n\nafter\n")
    assert "old" not in text
    assert text.count("| minifact |") == len(made) - 1
    captured = capsys.readouterr()
    assert "minifact, kn: " in captured.err
    assert "What each work costs" in captured.out


def test_what_cannot_be_run_says_why(
    bench: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def missing(*_: object) -> Any:
        raise ConfigError("model.path: needs a package | that is not installed")

    monkeypatch.setitem(bench.overview.MODELS, "smollm2", missing)
    monkeypatch.setitem(bench.overview.WORKS, "ke", missing)
    made = rows(bench, tmp_path, "--models", "smollm2", "minifact", "--work", "kn", "ke", "zsre")
    assert [(row["model"], row["work"], bool(row["note"])) for row in made] == [
        ("smollm2", "kn", True), ("smollm2", "ke", True), ("smollm2", "zsre", True),
        ("minifact", "kn", False), ("minifact", "ke", True), ("minifact", "zsre", False),
    ]  # fmt: skip
    assert made[0]["note"] == "not run: model.path: needs a package | that is not installed"
    assert "(1) not run: model.path" in capsys.readouterr().out
    text = bench.measured_row.markdown([bench.measured_row.Row(**row) for row in made], about())
    assert text.count("not run") == 1
    assert text.count("(1) |") == 4


def about() -> dict[str, Any]:
    return {
        "date": "2026-11-26T10:00", "accelerators": [], "cpu": "some", "threads": 1, "load_before": 0.0, "torch": "2",
        "wait_policy": "PASSIVE",
    }  # fmt: skip


def test_ratios_are_to_the_authors_code_of_the_same_run(
    bench: SimpleNamespace, monkeypatch: pytest.MonkeyPatch, tiny_factory: Callable[..., LanguageModel]
) -> None:
    a, b = torch.ones(64, 64), torch.ones(64, 64)

    def products(count: int) -> None:
        for _ in range(count):
            a @ b

    monkeypatch.undo()  # the peak is measured
    work = bench.works.Work(
        unit="record", count=2, run=lambda: products(100), authors=lambda: products(4000), note="a note"
    )
    row = bench.measured_row.measured("m", "edit", work, lm=tiny_factory("gpt2"), repeats=1)
    assert row.gflop == pytest.approx(100 * 2 * 64**3 / 2 / 1e9)
    assert row.authors > 4 * row.seconds
    assert row.speed < 3 * row.peak
    shown = bench.measured_row.cells(row, ["a note"])
    assert float(shown[-2]) == pytest.approx(row.seconds / row.authors, abs=0.006)


def test_flops_are_counted_where_gradients_are_asked_for(bench: SimpleNamespace) -> None:
    """torch's own counter cannot follow `torch.autograd.grad` with leaves."""
    x, w = torch.ones(8, 16, requires_grad=True), torch.ones(16, 4)
    assert bench.timing.count_flops(lambda: torch.autograd.grad((x @ w).sum(), x)) == 2 * 2 * 8 * 16 * 4


def test_their_traces_find_the_blocks_of_any_family(bench: SimpleNamespace, tiny_lm: LanguageModel) -> None:
    name = bench.reference_trace.layer_name
    assert tiny_lm.module(name(tiny_lm, 2)) is tiny_lm.block(2)
    for kind in ("mlp", "attn"):
        assert name(tiny_lm, 2, kind).startswith(name(tiny_lm, 2) + ".")
        tiny_lm.module(name(tiny_lm, 2, kind))
    assert tiny_lm.module(name(tiny_lm, None, "embed")) is tiny_lm.model.get_input_embeddings()


def test_rows_are_measured_in_their_precision(
    bench: SimpleNamespace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = GPT2Config(n_embd=32, n_layer=3, n_head=4)
    monkeypatch.setitem(bench.models.MODELS, "smollm2", partial(bench.models._shaped, "small", small))
    seen: list[tuple[str, torch.dtype]] = []
    original = bench.works.ZsreEvaluator.__call__

    def call(self: Any, lm: LanguageModel, *arguments: Any, **settings: Any) -> Any:
        seen.append((torch.get_float32_matmul_precision(), lm.dtype))
        return original(self, lm, *arguments, **settings)

    monkeypatch.setattr(bench.works.ZsreEvaluator, "__call__", call)
    made = rows(
        bench, tmp_path, "--models", "smollm2", "--work", "zsre", "--precision", "highest", "medium", "bfloat16"
    )
    assert [row["model"] for row in made] == ["smollm2", "smollm2, medium", "smollm2, bfloat16"]
    assert [row["note"] for row in made] == [""] * 3
    assert set(seen) == {("highest", torch.float32), ("medium", torch.float32), ("highest", torch.bfloat16)}
    assert torch.get_float32_matmul_precision() == "highest"
    path = bench.models.MODELS["smollm2"]("cpu", tmp_path, {}).path
    assert (Path(path) / "model.safetensors").is_file(), "the authors' code loads it from there"
