"""What a sweep runs over, in which order, and what tells its lines apart."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Any

import pytest

from romexp.analysis.sweeps import SweepAxis, setting, sweep_axis
from romexp.results.settings import ABSENT

LAYER, BOUND, TOKEN = "editor.layer", "editor.norm_constraint", "editor.fact_token"
KEYS, V_LR = "editor.keys", "editor.v_lr"


def grid(**fields: Sequence[Any]) -> list[dict[str, Any]]:
    """An entry for each combination; `__` stands for the dot in a name."""
    names = [name.replace("__", ".") for name in fields]
    return [dict(zip(names, values, strict=True)) for values in product(*fields.values())]


def axis_of(entries: Sequence[dict[str, Any]], x: str | None = None) -> SweepAxis:
    axis = sweep_axis(entries, x=x)
    assert axis is not None
    return axis


class TestWhichField:
    @pytest.mark.parametrize(
        ("entries", "swept"),
        [
            (grid(editor__norm_constraint=[1e-3, 2e-3, 3e-3], editor__layer=[0, 1]), LAYER),
            (grid(editor__keys=["mixed", "averaged", "prompt"], editor__v_lr=[0.1, 0.5]), KEYS),
            (grid(editor__keys=["mixed", "averaged"], editor__v_lr=[0.1, 0.5, 1.0]), V_LR),
            (grid(editor__keys=["mixed", "averaged"], editor__v_lr=[0.1, 0.5]), V_LR),
            (grid(editor__v_lr=[0.1, 0.5], editor__keys=["mixed", "averaged"]), V_LR),
            (grid(editor__lr=[0.1, 0.5], editor__v_lr=[0.1, 0.5]), "editor.lr"),
            (grid(editor__keys=["mixed", "averaged"], editor__v_lr=[0.5, None]), V_LR),
            (grid(editor__train_bias=[True, False]), "editor.train_bias"),
            (grid(seed=range(5), editor__keys=["mixed", "averaged"]), KEYS),
            (grid(seed=range(5)), "seed"),
            (grid(covariance__corpus__seed=range(5), editor__v_lr=[0.1, 0.5]), V_LR),
        ],
    )
    def test_the_layer_then_most_values_then_numbers_and_a_seed_last(
        self, entries: list[dict[str, Any]], swept: str
    ) -> None:
        assert axis_of(entries).name == swept
        assert axis_of(entries[::-1]).name == swept

    @pytest.mark.parametrize("entries", [[], [{}], [{LAYER: 3}, {LAYER: 3}], [{"seed": 0}]])
    def test_nothing_is_swept_where_nothing_varies(self, entries: list[dict[str, Any]]) -> None:
        assert sweep_axis(entries) is None

    def test_the_user_may_choose_any_field_that_varies(self) -> None:
        entries = grid(editor__layer=[0, 1, 2], seed=[0, 1], editor__keys=["mixed"])
        assert axis_of(entries).name == LAYER
        chosen = axis_of(entries, x="seed")
        assert (chosen.name, chosen.values) == ("seed", [0, 1])
        assert [line.label for line in chosen.lines] == ["layer = 0", "layer = 1", "layer = 2"]
        assert sweep_axis(entries, x=KEYS) is None
        assert sweep_axis(entries, x="editor.lr") is None


class TestOrder:
    def test_runs_over_layers_with_a_line_for_each_token_in_the_order_of_the_text(self) -> None:
        axis = axis_of(grid(editor__fact_token=["last", "subject_first"], editor__layer=[10, 2, 1]))
        assert (axis.name, axis.values, axis.title) == (LAYER, [1, 2, 10], "layer")
        assert [line.label for line in axis.lines] == ["first subject token", "last token"]
        assert list(axis.lines[0].members.items()) == [(0, 5), (1, 4), (2, 3)]

    def test_null_is_last_on_the_axis_and_among_the_lines(self) -> None:
        bounds = [None, 5e-4, 1e-2]
        axis = axis_of(grid(editor__norm_constraint=bounds, editor__layer=[0, 1]))
        assert [line.label for line in axis.lines] == ["ε = 0.0005", "ε = 0.01", "no bound"]
        alone = axis_of(grid(editor__norm_constraint=bounds))
        assert (alone.title, alone.ticks) == ("norm constraint ε", ["0.0005", "0.01", "none"])
        assert axis_of(grid(editor__keys=[None, "mixed", "averaged"])).ticks == ["averaged", "mixed", "none"]

    def test_an_entry_without_the_field_is_no_null(self) -> None:
        axis = axis_of([{V_LR: ABSENT}, {V_LR: None}, {V_LR: 0.5}, {}][:3])
        assert (axis.values, axis.ticks) == ([0.5, None, ABSENT], ["0.5", "none", "not set"])

    def test_a_field_that_does_not_vary_tells_no_lines_apart(self) -> None:
        axis = axis_of(grid(editor__norm_constraint=[None, 1e-3], seed=[0]))
        assert [line.label for line in axis.lines] == [""]

    def test_no_entry_is_lost(self) -> None:
        entries = grid(editor__layer=[3, 1, None], editor__keys=["a", None, "none", True, 1, 1.0, ["x"]], seed=[1, 0])
        axis = axis_of(entries)
        assert len(axis.lines) == 14
        shown = {index: (line, axis.values[place]) for line in axis.lines for place, index in line.members.items()}
        assert sorted(shown) == list(range(len(entries)))
        assert all(value == entries[index][LAYER] for index, (_, value) in shown.items())


class TestScale:
    @pytest.mark.parametrize(
        ("field", "values", "scale", "n_placed"),
        [
            (LAYER, range(1, 48), "linear", 47),
            (LAYER, [4, 10, None], "linear", 2),
            ("editor.steps", [1, 100], "linear", 2),
            (BOUND, [5e-4, 5e-3], "log", 2),
            (BOUND, [5e-4, 5e-3, None], "log", 2),
            (BOUND, [5e-3, 1e-2, 3e-2], "linear", 3),
            (V_LR, [0.0, 1e-3, 1.0], "linear", 3),
            (V_LR, [1, 0.1, 0.01], "log", 3),
            (TOKEN, ["last", "subject_last"], "names", 0),
            (KEYS, ["mixed", 1], "names", 0),
            (KEYS, [None, ABSENT], "names", 0),
            ("editor.train_bias", [True, False], "names", 0),
            ("seed", [0, 1], "names", 0),
        ],
    )
    def test_numbers_by_size_and_names_side_by_side(
        self, field: str, values: Sequence[Any], scale: str, n_placed: int
    ) -> None:
        axis = axis_of([{field: value} for value in values])
        assert (axis.scale, axis.n_placed) == (scale, n_placed)


def test_settings_as_readers_know_them() -> None:
    assert setting(TOKEN, "subject_first_after_last") == "first subsequent token"
    assert setting(BOUND, None) == "no bound"
    assert setting(V_LR, 0.5) == "v lr = 0.5"
    assert setting(V_LR, None) == "v lr = none"
