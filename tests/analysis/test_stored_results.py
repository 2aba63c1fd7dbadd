"""Results that stay on disk: metrics in memory, rows read when asked for, the same numbers as from rows in memory."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from report_runs import write_run
from scipy import stats

from romexp.analysis.merging import merge
from romexp.analysis.stored_results import StoredResults
from romexp.analysis.studies import to_studies
from romexp.analysis.summary import CHUNK, RESAMPLES, bootstrap, case_frame, scores_of, summarize
from romexp.errors import DataError
from romexp.results.find import find_runs
from romexp.results.rows import CaseResult, read_rows


def stored(root: Path) -> StoredResults:
    return merge(find_runs([root]).runs).results


def test_rows_and_metrics_are_those_of_the_file(tmp_path: Path) -> None:
    write_run(tmp_path / "r", (4, 0, 2))
    rows = [CaseResult.from_json(row) for row in read_rows(tmp_path / "r" / "cases.jsonl")]
    rows.sort(key=lambda row: row.case_id)
    results = stored(tmp_path)
    assert list(results) == rows
    assert results[1] == results.of_case(2) == rows[1]
    assert results.of_case(3) is None
    assert list(results[1:]) == rows[1:]
    assert results.frame.equals(case_frame(rows))


def test_a_part_has_the_numbers_of_its_rows(tmp_path: Path) -> None:
    write_run(tmp_path / "r", range(9))
    results = stored(tmp_path)
    part = results.where(results.ids % 2 == 0)
    assert part.ids.tolist() == [0, 2, 4, 6, 8]
    assert part.frame.equals(case_frame(list(part)))
    assert part == results.where(results.ids % 2 == 0)
    assert part != results
    assert len(results.where(results.ids > 99)) == 0


def test_of_a_case_that_comes_twice_the_later_row_counts_even_if_it_cannot_be_used(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "r", range(3))
    lines = (folder / "cases.jsonl").read_text(encoding="utf-8").splitlines()
    again = {**json.loads(lines[1]), "time": 7.0}
    broken = {**json.loads(lines[2]), "post": 3}
    (folder / "cases.jsonl").write_text("\n".join([*lines, json.dumps(again), json.dumps(broken)]) + "\n")
    merged = merge(find_runs([tmp_path]).runs)
    assert merged.results.ids.tolist() == [0, 1]
    assert merged.results[1].seconds == 7.0
    assert len(merged.problems) == 1
    assert "case 2: not a row of measurements" in merged.problems[0]


def test_a_file_that_was_changed_meanwhile_is_named(tmp_path: Path) -> None:
    folder = write_run(tmp_path / "r", range(3))
    results = stored(tmp_path)
    (folder / "cases.jsonl").write_text("{}\n")
    with pytest.raises(DataError, match="changed while it was read"):
        results[1]


def test_the_unedited_model_is_that_of_the_first_entry_that_has_the_case(tmp_path: Path) -> None:
    write_run(tmp_path / "a", range(2, 6), editor="ft")
    write_run(tmp_path / "b", range(5), editor="rome")
    (study,) = to_studies(find_runs([tmp_path]).runs).studies
    results = study.unedited_results
    assert results.ids.tolist() == [0, 1, 2, 3, 4, 5]
    assert [file.parent.name for file in results.files] == ["a", "b"]
    assert results.places[:, 0].tolist() == [1, 1, 0, 0, 0, 0]
    assert study.unedited == summarize(list(results), sides=("pre",))


@pytest.mark.parametrize("n", [2, 5, 300])
def test_the_bootstrap_is_scipys(n: int) -> None:
    values = np.random.default_rng(n).random((n, 3)).round(1)
    theirs = stats.bootstrap(
        tuple(values.T),
        lambda *columns, axis: scores_of(np.stack([column.mean(axis=axis) for column in columns])),
        paired=True,
        vectorized=True,
        n_resamples=RESAMPLES,
        batch=CHUNK,
        method="percentile",
        rng=np.random.default_rng(3),
    ).confidence_interval
    assert bootstrap(values, scores_of, seed=3) == pytest.approx([theirs.low, theirs.high], rel=1e-12)
    if n == 300:  # the control: of few cases there are few different resamples
        assert bootstrap(values, scores_of, seed=4) != bootstrap(values, scores_of, seed=3)
