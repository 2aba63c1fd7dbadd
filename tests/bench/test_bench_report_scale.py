"""bench/report_scale.py: it makes runs that a report reads. What it measures is not tested."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path

import pytest
from bench_process import ROOT

from romexp.analysis.studies import to_studies
from romexp.results.find import find_runs


def test_made_up_runs_are_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "bench"))
    scale = import_module("report_scale")
    try:
        for number in range(10):
            scale.write_run(tmp_path / str(number), number=number, cases=3, texts=2)
    finally:
        sys.modules.pop("report_scale")
    (study,) = (found := to_studies(find_runs([tmp_path]).runs)).studies
    assert found.problems == ()
    assert len(study.entries) == 10
    assert {entry.n_cases for entry in study.entries} == {3}
    assert {"S", "ES", "NM", "GE", "RS"} <= set(study.columns)
    labels = {entry.label for entry in study.entries}
    assert {"ROME (layer=0)", "ROME (layer=1)", "KN"} <= labels
    assert len({entry.metrics["EM"]["mean"] for entry in study.entries}) == 10  # the control: they differ
