"""Rows with the settings of another model are marked in every table, format, page and figure."""

from __future__ import annotations

from pathlib import Path

from page_runs_made_up import no_difference, studies
from report_runs import write_run

from romexp.reporting.figures.draw_all import drawings
from romexp.reporting.page.render import write_page
from romexp.reporting.tables.latex import to_latex
from romexp.reporting.tables.model import NOT_TUNED, ReportTable
from romexp.reporting.tables.paired import paired_table
from romexp.reporting.tables.paper import paper_table
from romexp.reporting.tables.sweep import sweep_table
from romexp.reporting.tables.writers import to_csv, to_markdown


def test_the_mark_is_in_every_table_and_format(tmp_path: Path) -> None:
    said = {"settings_not_tuned": {"norm_constraint": 0.0005}}
    label = {"editor_label": "FT+L"}
    for layer in (0, 1):
        write_run(tmp_path / f"l{layer}", range(5), editor="ft_l", settings={"layer": layer}, manifest=said | label)
    write_run(tmp_path / "rome", range(5))
    (study,) = studies(tmp_path)
    tables: list[ReportTable] = [
        paper_table(4, [study], difference=no_difference, only_begun=True),
        sweep_table([study]),
        paired_table([study]),
    ]
    for table in tables:
        assert "† settings not tuned for this model: FT+L (layer=0) (norm_constraint=0.0005)" in " ".join(
            table.blocks[0].remarks
        )
        for text in (to_markdown(table), to_latex(table)):
            assert "settings not tuned for this model" in text
        assert "FT+L" in to_csv(table)
        assert "settings_not_tuned" in to_csv(table).splitlines()[0]
    page = write_page([study], tables, [], tmp_path / "page.html").read_text(encoding="utf-8")
    assert "FT+L (layer=0) †" in page
    assert page.count(NOT_TUNED) >= 4
    captions = [caption for _, caption, _ in drawings(study)]
    assert all(NOT_TUNED in caption for caption in captions)
    assert not any("ROME †" in to_markdown(table) for table in tables), "the control"
