"""A table for the terminal that always fits the width it gets: it folds where it would be too wide."""

from __future__ import annotations

import re
from collections.abc import Collection, Iterator, Sequence
from typing import Any

from rich import box
from rich.console import Console, ConsoleOptions, RenderResult
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from romexp.reporting.terminal import literal

MARGINS = frozenset({"EM", "PM", "NM"})
"""Columns that come last where a table of metrics is cut into several: ES, PS and NS say the same, more coarsely."""
_INTERVAL = re.compile(r" (?=[(\[])")
"""Where a cell such as `99.0 (0.3)` is cut in two: the interval goes to a line of its own."""
_LABEL_SHARES = (0.4, 0.25)
"""Labels are wrapped if they take more than these shares of the width, and the other columns need it."""
_UNLIMITED = 10_000


class FittingTable(Table):
    """A rich table that is printed in the first of these forms that fits the width:

    1. as it is;
    2. with the intervals of all cells on second lines;
    3. likewise, and without vertical rules;
    4. as several tables one below the other, each with the labels of the rows and some of the columns. Columns that are
       named in `less_important` come last.

    Title and caption are no markup. One that is longer than the table stands above or below it. In every form, long
    labels (the first columns, as far as they are justified to the left) may be wrapped.
    """

    def __init__(
        self,
        *headers: str,
        title: str | Text | None = None,
        caption: str | Text | None = None,
        less_important: Collection[str] = (),
        **options: Any,
    ) -> None:
        super().__init__(*headers, **options)
        self.title = literal(title, style="table.title") if isinstance(title, str) else title
        self.caption = literal(caption, style="table.caption") if isinstance(caption, str) else caption
        self.less_important = frozenset(less_important)

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """Render the first form that fits."""
        for tables in self._forms(options.max_width):
            if all(_natural_width(console, table) <= options.max_width for table in tables):
                break
        title, caption = (text if isinstance(text, Text) else None for text in (self.title, self.caption))
        if title and len(title) <= _natural_width(console, tables[0]):
            tables[0].title, title = title, None
        if caption and len(tables) == 1 and len(caption) <= _natural_width(console, tables[0]):
            tables[0].caption, caption = caption, None
        if title:  # rich would wrap it to the width of the table
            yield title
        yield from tables  # if even one column is too wide, rich shortens it
        if caption:
            yield caption

    def _forms(self, width: int) -> Iterator[list[Table]]:
        every = range(len(self.columns))
        limits = [max(8, int(width * share)) for share in _LABEL_SHARES]
        yield [self._part(every, limit=_UNLIMITED)]
        if self._n_labels == len(self.columns):  # nothing but text, which rich wraps
            yield [self._part(every, limit=max(8, width // len(self.columns)))]
            return
        yield [self._part(every, limit=limits[0])]
        if self._has_intervals:
            for limit in limits:
                yield [self._part(every, limit=limit, two_lines=True)]
                yield [self._part(every, limit=limit, two_lines=True, rules=False)]
        yield self._blocks(width, limit=limits[0])

    @property
    def _n_labels(self) -> int:
        """The number of columns that say what a row is about."""
        numeric = [column.justify == "right" for column in self.columns]
        return max(1, numeric.index(True) if True in numeric else len(numeric))

    @property
    def _has_intervals(self) -> bool:
        return any(_INTERVAL.search(_plain(cell)) for column in self.columns for cell in column.cells)

    def _blocks(self, width: int, *, limit: int) -> list[Table]:
        """Tables with the labels of the rows and as many of the other columns as fit, at least one."""
        labels = list(range(self._n_labels))
        ruler = Console(width=_UNLIMITED)
        blocks: list[list[int]] = [[]]
        for group in self._groups():
            wider = [*labels, *blocks[-1], *group]
            if blocks[-1] and _natural_width(ruler, self._part(wider, limit=limit)) > width:
                blocks.append([])
            blocks[-1] += group
        return [self._part([*labels, *block], limit=limit) for block in blocks]

    def _groups(self) -> list[list[int]]:
        """The columns of values, less important ones last. A column whose name is empty or stands several times belongs
        to the one before it, as the layer of a highest effect does.
        """
        names = [_plain(column.header) for column in self.columns]
        groups: list[list[int]] = []
        for i in range(self._n_labels, len(names)):
            if groups and (not names[i] or names.count(names[i]) > 1):
                groups[-1].append(i)
            else:
                groups.append([i])
        return sorted(groups, key=lambda group: names[group[0]] in self.less_important)

    def _part(self, columns: Sequence[int], *, limit: int, two_lines: bool = False, rules: bool = True) -> Table:
        """A table of these columns, without title and caption.

        Args:
            limit: largest width of a column of labels.
            two_lines: put the intervals of cells on second lines.
            rules: draw vertical rules.
        """
        table = Table(
            title_justify=self.title_justify,
            caption_justify=self.caption_justify,
            box=box.HEAVY_HEAD if rules else box.SIMPLE_HEAD,
            padding=(0, 1) if rules else (0, 1, 0, 0),
            show_edge=rules,
            pad_edge=rules,
        )
        for i in columns:
            column, is_label = self.columns[i], i < self._n_labels
            table.add_column(
                column.header,
                justify=column.justify,
                no_wrap=not is_label,
                max_width=limit if is_label else None,
                overflow="fold",
            )
        cells = [list(column.cells) for column in self.columns]
        for number, row in enumerate(self.rows):
            shown = [_folded(cells[i][number]) if two_lines else cells[i][number] for i in columns]
            table.add_row(*shown, style=row.style, end_section=row.end_section)
        return table


def _natural_width(console: Console, table: Table) -> int:
    """The width of a table whose cells are not shortened. Title and caption are wrapped, so they do not count."""
    measured = Measurement.get(console, console.options.update(max_width=_UNLIMITED), table)
    return measured.maximum


def _plain(cell: Any) -> str:
    return cell.plain if isinstance(cell, Text) else str(cell)


def _folded(cell: Any) -> Any:
    """The cell with its interval on a second line, in the same style but dim."""
    head, found, interval = _plain(cell).partition(match[0]) if (match := _INTERVAL.search(_plain(cell))) else ("",) * 3
    if not found:
        return cell
    style = cell.style if isinstance(cell, Text) else ""
    return Text.assemble((head, style), "\n", (interval, f"{style} dim".strip()))
