"""Sweeps as tables, and that the figure of the same sweep agrees with them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import product
from pathlib import Path
from typing import Any

import pytest
from page_runs_made_up import studies
from report_runs import write_run

from romexp.analysis.studies import Study
from romexp.reporting.figures.draw_all import drawings
from romexp.reporting.tables.model import Block
from romexp.reporting.tables.sweep import sweep_table


def sweep_of(root: Path, editor: str, settings: Mapping[str, Sequence[Any]], seeds: Sequence[int] = (0,)) -> Study:
    """Every combination run once, in the reverse of the given order, so that no order comes from the files."""
    combinations = [
        dict(zip(settings, values, strict=True)) | {"seed": seed}
        for values in product(*settings.values())
        for seed in seeds
    ]
    for number, chosen in enumerate(reversed(combinations)):
        seed = chosen.pop("seed")
        write_run(root / f"{number:02}", range(3), editor=editor, settings=chosen, identity={"seed": seed}, seed=number)
    (study,) = studies(root)
    return study


def shown(block: Block) -> list[tuple[str, str]]:
    return [(line.cells[0].text, line.cells[1].text) for line in block.lines]


def test_a_sweep_by_layer_and_by_another_setting(tmp_path: Path) -> None:
    found = sweep_of(tmp_path / "ft", "ft", {"layer": (0, 2, 10), "norm_constraint": (None, 0.001)})
    (block,) = sweep_table([found]).blocks
    assert block.title == "FT by editor.layer, minifact, minifact"
    assert shown(block) == [(series, layer) for series in ("ε = 0.001", "no bound") for layer in ("0", "2", "10")]
    (bounds,) = sweep_table([found], x="editor.norm_constraint").blocks
    assert shown(bounds) == [(f"layer = {layer}", bound) for layer in (0, 2, 10) for bound in ("0.001", "none")]
    assert sweep_table([found], x="editor.lr").blocks == ()


def test_an_editor_that_was_run_once_is_no_sweep(tmp_path: Path) -> None:
    write_run(tmp_path / "rome", range(3))
    assert sweep_table(studies(tmp_path)).blocks == ()
    write_run(tmp_path / "other", range(3), settings={"layer": 3})
    (block,) = sweep_table(studies(tmp_path)).blocks
    assert shown(block) == [("ROME", "3"), ("ROME", "17")]


def test_numbers_are_those_of_the_entry(tmp_path: Path) -> None:
    study = sweep_of(tmp_path, "rome", {"v_lr": (0.5, None, 0.1)})
    by_value = {entry.settings["v_lr"]: entry.metrics["ES"]["mean"] for entry in study.entries}
    table = sweep_table([study])
    at = [column.name for column in table.columns].index("ES")
    assert [line.cells[at].value for line in table.blocks[0].lines] == [by_value[v] for v in (0.1, 0.5, None)]
    assert [(each["setting"], each["value"], each["ES"]) for each in table.records] == [
        ("editor.v_lr", text, by_value[value]) for text, value in (("0.1", 0.1), ("0.5", 0.5), ("null", None))
    ]


@pytest.mark.parametrize(
    ("editor", "settings", "seeds", "field", "title"),
    [
        ("rome", {"keys": ("prompt", "mixed", "averaged"), "v_lr": (0.1, 0.5)}, (0,), "editor.keys", "keys"),
        ("rome", {"keys": ("mixed", "averaged"), "v_lr": (0.1, 0.5)}, (0,), "editor.v_lr", "v lr"),
        ("rome", {}, (2, 0, 1), "seed", "seed"),
        ("rome", {"keys": ("mixed", "averaged")}, (0, 1, 2), "editor.keys", "keys"),
        ("ft", {"norm_constraint": (5e-4, None, 1e-2)}, (0,), "editor.norm_constraint", "norm constraint ε"),
        ("ft", {"norm_constraint": (None, 5e-4), "layer": (4, 10, 16, 24)}, (0,), "editor.layer", "layer"),
        ("rome", {"fact_token": ("last", "subject_last", "subject_first")}, (0,), "editor.fact_token", "fact token"),
    ],
)
def test_table_and_figure_agree(
    tmp_path: Path, editor: str, settings: Mapping[str, Sequence[Any]], seeds: Sequence[int], field: str, title: str
) -> None:
    study = sweep_of(tmp_path, editor, settings, seeds)
    table = sweep_table([study])
    (block,) = table.blocks
    assert f" by {field}, " in block.title
    figure = next(figure for what, _, figure in drawings(study) if what == f"sweep_{editor}")
    panel = next(axes for axes in figure.axes if axes.get_title() == "Efficacy magnitude (EM)")
    assert panel.get_xlabel() == title
    assert [text.get_text() for text in panel.get_xticklabels()] == list(dict.fromkeys(v for _, v in shown(block)))
    drawn = [line for line in panel.lines if line.get_label() in {series for series, _ in shown(block)}]
    assert [line.get_label() for line in drawn] == list(dict.fromkeys(series for series, _ in shown(block)))
    # The same means in the same order: 0 to n of the table are the points of the lines, one line after another.
    at = [column.name for column in table.columns].index("EM")
    means = [line.cells[at].value for line in block.lines]
    assert len(set(means)) == len(means) == len(study.entries)
    assert [y for line in drawn for y in line.get_ydata() if y == y] == means
