"""Differences between editors on the same cases."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from page_runs_made_up import studies
from report_runs import write_run

from romexp.analysis.metrics import case_metrics
from romexp.analysis.summary import harmonic_mean
from romexp.reporting.tables.paired import MOST_PAIRS, paired, paired_table, pairs


def test_paired_differences_are_those_of_a_naive_computation(tmp_path: Path) -> None:
    write_run(tmp_path / "a", range(0, 60), editor="ft", strength=2.0)
    write_run(tmp_path / "b", range(20, 80), editor="rome", strength=3.0)
    (study,) = studies(tmp_path)
    ft, rome = study.entries
    pair = paired(rome, ft, seed=3)
    by_id = [{each.case_id: case_metrics(each.after or {}) for each in entry.results} for entry in (rome, ft)]
    common = sorted(set(by_id[0]) & set(by_id[1]))
    assert (pair.n, common) == (40, list(range(20, 60)))
    for name in ("ES", "EM", "PS", "PM", "NS", "NM"):
        d = [by_id[0][i][name] - by_id[1][i][name] for i in common]
        mean = sum(d) / 40
        half = 1.96 * (sum((x - mean) ** 2 for x in d) / 40) ** 0.5 / 40**0.5
        assert pair.differences[name]["mean"] == pytest.approx(100 * mean)
        assert pair.differences[name]["half_width"] == pytest.approx(100 * half)
    score = [harmonic_mean(np.mean([side[i][m] for i in common]) for m in ("ES", "PS", "NS")) for side in by_id]
    assert pair.differences["S"]["mean"] == pytest.approx(100 * (score[0] - score[1]))
    # A bootstrap written out, with other random numbers: the interval is the same but for its noise.
    random = np.random.default_rng(99)
    values = [np.array([[side[i][m] for m in ("ES", "PS", "NS")] for i in common]) for side in by_id]
    drawn = []
    for _ in range(2000):
        again = random.integers(40, size=40)
        drawn.append(100 * (harmonic_mean(values[0][again].mean(0)) - harmonic_mean(values[1][again].mean(0))))
    assert pair.differences["S"]["interval"] == pytest.approx(np.percentile(drawn, [2.5, 97.5]).tolist(), abs=1.5)
    assert paired(ft, rome, seed=3).differences["S"]["interval"] == pytest.approx(
        [-x for x in reversed(pair.differences["S"]["interval"])]
    )


def test_pairing_narrows_the_interval_of_editors_that_fail_on_the_same_cases(tmp_path: Path) -> None:
    write_run(tmp_path / "a", range(60), editor="ft")
    write_run(tmp_path / "b", range(60), editor="rome")  # the same seed and strength: the same rows
    (study,) = studies(tmp_path)
    ft, rome = study.entries
    assert paired(rome, ft).differences["EM"] == {"mean": 0.0, "half_width": 0.0, "std": 0.0, "n": 60}
    assert paired(rome, ft).differences["S"]["interval"] == [0.0, 0.0]
    assert rome.metrics["EM"]["half_width"] > 1


def test_every_pair_or_all_against_the_best(tmp_path: Path) -> None:
    for layer in range(11):
        write_run(tmp_path / f"r{layer}", range(8), settings={"layer": layer}, strength=layer / 2)
    few = studies(tmp_path)[0]
    assert len(few.entries) * (len(few.entries) - 1) // 2 > MOST_PAIRS
    assert len(pairs(few)) == 10
    table = paired_table([few])
    assert "whose S is highest" in table.blocks[0].notes[0]
    three = replace(few, entries=few.entries[:3])
    assert [(p.first.label, p.second.label) for p in pairs(three)] == [
        ("ROME (layer=1)", "ROME (layer=0)"),
        ("ROME (layer=2)", "ROME (layer=0)"),
        ("ROME (layer=2)", "ROME (layer=1)"),
    ]
