"""Sweeps as tables."""

from __future__ import annotations

from pathlib import Path

from page_runs_made_up import studies
from report_runs import write_run

from romexp.reporting.tables.sweep import sweep_table


def test_a_sweep_by_layer_and_by_another_setting(tmp_path: Path) -> None:
    for layer in (0, 2, 10):
        for bound in (None, 0.001):
            write_run(
                tmp_path / f"{layer}{bound}", range(6), editor="ft", settings={"layer": layer, "norm_constraint": bound}
            )
    write_run(tmp_path / "rome", range(6))
    found = studies(tmp_path)
    (block,) = sweep_table(found).blocks
    assert block.title == "FT by editor.layer, minifact, minifact"
    assert [(line.cells[0].text, line.cells[1].text) for line in block.lines] == [
        ("norm_constraint=null", "0"),
        ("norm_constraint=null", "2"),
        ("norm_constraint=null", "10"),
        ("norm_constraint=0.001", "0"),
        ("norm_constraint=0.001", "2"),
        ("norm_constraint=0.001", "10"),
    ]
    (bounds,) = sweep_table(found, x="editor.norm_constraint").blocks
    assert [(line.cells[0].text, line.cells[1].text) for line in bounds.lines][:3] == [
        ("layer=0", "null"),
        ("layer=0", "0.001"),
        ("layer=2", "null"),
    ]
    assert sweep_table(found, x="editor.lr").blocks == ()
