"""The paper's numbers as this project holds them."""

from __future__ import annotations

import pytest

from romexp.analysis.published import TABLES, published_table
from romexp.analysis.summary import harmonic_mean


@pytest.mark.parametrize("number", TABLES)
def test_published_numbers_agree_with_their_own_scores(number: int) -> None:
    """S is the harmonic mean of three means: a typing error in one of the four would show."""
    table = published_table(number)
    parts = ("Efficacy", "Paraphrase", "Specificity") if table.kind == "zsre" else ("ES", "PS", "NS")
    for model in table.models:
        assert model.rows[0].editor == ""
        assert len({row.editor for row in model.rows}) == len(model.rows)
        for row in model.rows:
            assert tuple(row.values) == table.columns
            assert row.values["S"].mean == pytest.approx(harmonic_mean(row.values[p].mean for p in parts), abs=0.1)
            assert all((value.half_width is None) == (name == "S") for name, value in row.values.items())
            assert all(0 <= (value.half_width or 0) <= 8 for value in row.values.values())


def test_published_tables_are_the_papers() -> None:
    assert {n: [(m.model, m.records, len(m.rows)) for m in published_table(n).models] for n in TABLES} == {
        1: [("gpt2-xl", 10000, 8)],
        4: [("gpt2-xl", 7500, 9), ("gpt-j-6b", 2000, 5)],
        5: [("gpt2-medium", 7500, 3), ("gpt2-large", 7500, 3)],
        6: [("gpt2-medium", 10000, 3), ("gpt2-large", 10000, 3)],
    }
    rome = published_table(4).models[0].row("rome")
    assert rome is not None
    assert [(v.mean, v.half_width) for v in rome.values.values()] == [
        (89.2, None), (100.0, 0.1), (97.9, 0.2), (96.4, 0.3), (62.7, 0.8),
        (75.4, 0.7), (4.2, 0.2), (621.9, 0.5), (41.9, 0.3),
    ]  # fmt: skip
