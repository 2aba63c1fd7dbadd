"""Which setting a sweep's figure runs over, and what tells its lines apart."""

from __future__ import annotations

import pytest

from romexp.analysis.sweeps import setting, sweep_axis
from romexp.results.settings import ABSENT


class TestSweepAxis:
    def test_runs_over_layers_with_a_line_for_each_token(self) -> None:
        entries = [
            {"editor.layer": layer, "editor.fact_token": token}
            for token in ("last", "subject_first")
            for layer in (10, 2, 1)
        ]
        axis = sweep_axis(entries)
        assert axis is not None
        assert (axis.name, list(axis.values), axis.title) == ("editor.layer", [1, 2, 10], "layer")
        assert [line.label for line in axis.lines] == ["first subject token", "last token"]
        assert axis.lines[0].members == {2: 3, 1: 4, 0: 5}

    def test_bounds_stand_in_order_of_size_and_none_is_last(self) -> None:
        bounds = [None, 5e-4, 1e-2]
        axis = sweep_axis([{"editor.norm_constraint": b, "editor.layer": i} for b in bounds for i in (0, 1)])
        assert axis is not None
        assert [line.label for line in axis.lines] == ["ε = 0.0005", "ε = 0.01", "no bound"]
        alone = sweep_axis([{"editor.norm_constraint": b} for b in bounds])
        assert alone is not None
        assert alone.title == "norm constraint ε"

    def test_without_layers_runs_over_what_has_the_most_values(self) -> None:
        axis = sweep_axis([{"editor.norm_constraint": b, "seed": 0} for b in (None, 1e-3, 5e-4)])
        assert axis is not None
        assert axis.ticks == ["0.0005", "0.001", "none"]
        assert [line.label for line in axis.lines] == ["seed = 0"]

    @pytest.mark.parametrize(
        "entries",
        [
            [],
            [{}],
            [{"seed": 0}, {"seed": 1}],
            [{"editor.keys": "mixed"}, {"editor.keys": "averaged"}],
            [{"editor.train_bias": True}, {"editor.train_bias": False}],
            [{"editor.layer": 3}, {"editor.layer": ABSENT}],
        ],
    )
    def test_needs_numbers_that_vary(self, entries: list[dict[str, object]]) -> None:
        assert sweep_axis(entries) is None

    def test_settings_as_readers_know_them(self) -> None:
        assert setting("editor.fact_token", "subject_first_after_last") == "first subsequent token"
        assert setting("editor.norm_constraint", None) == "no bound"
        assert setting("editor.v_lr", 0.5) == "v lr = 0.5"
