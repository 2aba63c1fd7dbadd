"""The paper's Tables 1, 4, 5 and 6 with measured values, published ones and differences (docs/method.md §5.7, §8).

Models that are not in the paper get the same columns without published lines, in Table 4 or, for zsRE, in Table 1.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace

from romexp.analysis.metrics import Kind
from romexp.analysis.missing import Gap, as_few_commands, command, entry_gap, study_gaps
from romexp.analysis.published import MODEL_NAMES, TABLES, PublishedModel, PublishedTable, published_table
from romexp.analysis.shared_cases import on_shared_cases
from romexp.analysis.studies import Entry, Study, editor_position
from romexp.reporting.tables.model import (
    HALF_WIDTH_EXPLAINED,
    MARKS_EXPLAINED,
    REACH_EXPLAINED,
    Block,
    Column,
    ReportTable,
    metric_columns,
)
from romexp.reporting.tables.paper_rows import PaperRow, lines_of, measured_row, record_of, unedited_row
from romexp.reporting.tables.remarks import remarks

Difference = Callable[[Study, Entry], str]
"""Describes how an entry's settings differ from the paper's; empty if they do not differ."""

HOME = {"counterfact": 4, "zsre": 1}
"""Number of the table for models that are not in the paper, by kind of data set."""

CAPTION = (
    "Where model, data and settings are the paper's, its values and the difference are shown below. * marks a "
    "difference that is larger than both half-widths 1.96·σ/√n together (the root of the sum of their squares)."
)
S_ADDED = "The paper's zsRE tables have no S; the published one is made from its three means."
OWN_CASES = (
    "each row has all of its cases, for the comparison with the paper's row; the editors do not share all of them, so "
    "no value is marked as the highest"
)

Cut = Callable[[Study], Study]
"""Cuts a study to the cases that its editors are compared on."""

Part = tuple[Block, list[PaperRow]]


def paper_table(
    number: int,
    studies: Sequence[Study],
    *,
    difference: Difference,
    suffix: Sequence[str] = (),
    only_begun: bool = False,
    shared: bool = True,
) -> ReportTable:
    """One of the paper's tables, with the results that there are, and commands to compute what is missing.

    Args:
        number: number of the table in the paper.
        difference: describes how an entry differs from the paper's; only entries that do not differ are compared.
        suffix: arguments that every command needs, such as `outputs=…`.
        only_begun: leave out the paper's models for which there is no run.
        shared: compare the editors of a study on the cases that they share.
    """
    table = published_table(number)
    cut = on_shared_cases if shared else _as_it_is
    mine = [study for study in studies if belongs(study, table)]
    parts: list[Part] = []
    for published in table.models:
        of_model = [study for study in mine if study.model == published.model]
        if of_model or not only_begun:
            parts += _ModelPart(table.kind, published, difference, suffix, cut).blocks(of_model)
    for study in mine:
        if table.model(study.model) is None:
            parts.append(_other_block(study, cut))
    as_paper = any(row.published is not None for _, rows in parts for row in rows)
    return ReportTable(
        name=f"table{number}",
        title=f"{table.title} (the paper's Table {number})",
        columns=(Column(name="Editor", numeric=False), Column(name="Cases"), *metric_columns(table.columns)),
        blocks=tuple(replace(b, lines=lines_of(rows, table.kind, as_paper=as_paper)) for b, rows in parts),
        caption=_caption(table.kind, as_paper=as_paper),
        records=tuple(record_of(row, table.kind) for _, rows in parts for row in rows),
    )


def belongs(study: Study, table: PublishedTable) -> bool:
    """Whether a study is shown in this table: its model is there, or it is in no table and this one is in `HOME`."""
    if study.kind != table.kind:
        return False
    homes = [n for n in TABLES if (t := published_table(n)).kind == study.kind and t.model(study.model) is not None]
    return table.number in homes if homes else table.number == HOME[study.kind]


def _caption(kind: Kind, *, as_paper: bool) -> str:
    """Explains the cells: beside published values the measured ones have the paper's half-width."""
    if not as_paper:
        return f"{REACH_EXPLAINED} {MARKS_EXPLAINED}"
    return " ".join([HALF_WIDTH_EXPLAINED, MARKS_EXPLAINED, CAPTION, *([S_ADDED] if kind == "zsre" else [])])


def _as_it_is(study: Study) -> Study:
    return study


def _other_block(study: Study, cut: Cut) -> Part:
    compared = cut(study)
    rows = [unedited_row(compared, published=None, records=None)]
    rows += [measured_row(compared, entry, published=None, records=None) for entry in compared.entries]
    block, _ = _block(f"{study.label} (not in the paper)", rows, study_gaps(study), remarks(compared))
    return replace(block, commands=as_few_commands(block.commands)), rows


def _block(title: str, rows: list[PaperRow], gaps: Sequence[Gap], remarks: Sequence[str] = ()) -> Part:
    """A block still without its lines, and the rows that they are made of."""
    block = Block(
        title=title,
        lines=(),
        notes=tuple(gap.note for gap in gaps),
        remarks=tuple(remarks),
        commands=tuple(dict.fromkeys(each for gap in gaps for each in gap.commands)),
    )
    return block, rows


class _ModelPart:
    """The part of a table that belongs to one model of the paper: a block for each of its studies.

    Rows that are compared with the paper's keep all their cases; the editors of other studies are cut to shared ones.
    """

    def __init__(
        self, kind: Kind, published: PublishedModel, difference: Difference, suffix: Sequence[str], cut: Cut
    ) -> None:
        self.kind, self.published, self.difference, self.cut = kind, published, difference, cut
        self.base, self.suffix = [f"model={published.model}", f"dataset={kind}"], suffix
        self.name = MODEL_NAMES[published.model]

    def blocks(self, studies: Sequence[Study]) -> Iterator[Part]:
        """The study with the most comparable entries comes first, and has a row for each of the paper's editors."""
        ordered = sorted(studies, key=lambda study: (-len(self._comparable(study)), -len(study.columns)))
        done = {entry.editor for study in studies for entry in self._comparable(study)}
        lacking = [row.editor for row in self.published.rows if row.editor and row.editor not in done]
        if not ordered:
            rows = [self._only_published(row.editor) for row in self.published.rows]
            yield _block(self.name, rows, [self._no_run(lacking)])
        for position, study in enumerate(ordered):
            yield self._block(study, lacking if position == 0 else [])

    def _comparable(self, study: Study) -> list[Entry]:
        return [entry for entry in study.entries if not self.difference(study, entry)]

    def _block(self, study: Study, lacking: Sequence[str]) -> Part:
        reasons = {entry.label: self.difference(study, entry) for entry in study.entries}
        comparable = not all(reasons.values())
        whole = first_records(study, self.published.records) if comparable else study
        cut = whole if comparable else self.cut(whole)
        alike = not comparable or self.cut(whole) is whole
        theirs = self.published.row("") if comparable else None
        rows = [unedited_row(cut, published=theirs, records=self.published.records)]
        gaps: list[Gap] = []
        for editor in sorted({*lacking, *(entry.editor for entry in cut.entries)}, key=editor_position):
            row = self.published.row(editor)
            for entry, measured in zip(cut.entries, whole.entries, strict=True):
                if entry.editor != editor:
                    continue
                reason = reasons[entry.label] if row else ""
                compared = None if reason else row
                made = measured_row(cut, entry, published=compared, records=self.published.records)
                label = f"{made.label}, {_kind_of(reason)}" if reason else made.label
                rows.append(replace(made, label=label, apart=made.apart or not alike))
                gaps += self._gaps(study, measured, reason, compared=compared is not None)
            if editor in lacking:
                rows.append(self._only_published(editor))
        if lacking:
            gaps.append(self._no_run(lacking))
        if whole is not study:
            gaps.append(Gap(note=f"of the cases only the paper's first {self.published.records} count"))
        notes = [*remarks(cut), *([] if alike else [OWN_CASES])]
        return _block(f"{self.name} ({study.label})", rows, gaps, notes)

    def _gaps(self, study: Study, entry: Entry, reason: str, *, compared: bool) -> list[Gap]:
        if reason:
            return [Gap(note=f"{entry.label}: not compared, {reason}", entry=entry.label)]
        if not compared:
            return []
        base = [*self.base, f"editor={entry.editor}"]
        gap = entry_gap(entry, records=self.published.records, base=base, suffix=self.suffix)
        return [gap] if gap else []

    def _no_run(self, lacking: Sequence[str]) -> Gap:
        labels = [row.label for row in self.published.rows if row.editor in lacking]
        return Gap(note=f"no run to compare: {', '.join(labels)}", commands=tuple(map(self._whole, lacking)))

    def _only_published(self, editor: str) -> PaperRow:
        row = self.published.row(editor)
        return PaperRow(
            model=self.published.model,
            label=row.label if row else editor,
            editor=editor,
            dataset=self.kind,
            name=row.label if row and editor else "",
            published=row,
            records=self.published.records,
        )

    def _whole(self, editor: str) -> str:
        return command(*self.base, f"dataset.limit={self.published.records}", f"editor={editor}", *self.suffix)


def first_records(study: Study, records: int) -> Study:
    """The study without cases beyond the first `records`; the same object if it has no such cases."""
    if all((entry.results.ids < records).all() for entry in study.entries):
        return study
    kept = [replace(entry, results=entry.results.where(entry.results.ids < records)) for entry in study.entries]
    return replace(study, entries=tuple(entry for entry in kept if entry.results))


def _kind_of(reason: str) -> str:
    return "other data" if reason.startswith("other data") else "other settings"
