"""Writes tables as Markdown, as CSV and for the terminal; for LaTeX see `reporting.tables.latex`."""

from __future__ import annotations

import csv
import io
import itertools
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from rich.table import Table
from rich.text import Text

from romexp.reporting.tables.fitting import MARGINS, FittingTable
from romexp.reporting.tables.model import Cell, Column, Line, Mark, ReportTable
from romexp.reporting.terminal import literal

_STYLES: Mapping[Mark, str] = {"": "", "best": "bold green", "failure": "red", "strong": "bold"}

_MARKUP = re.compile(r"[\\`*_|<>\[\]~$]|&(?=#?\w+;)")
"""What has a meaning anywhere in a line of Markdown."""
_BEGINS_BLOCK = re.compile(r"^(\d*)([#+=.)-])")
"""What makes a heading or a list at the beginning of a line."""
_NUMBERS = re.compile(r"[-+−–\d.,()\[\] *%]+")
"""Text of cells with numbers, such as `89.2 [88.9, 89.5]` and `+1.0*`, which is left readable."""
_FORMULA = ("=", "+", "-", "@", "\t", "\r", "\n")
"""Beginnings of what spreadsheets take for a formula."""


def to_markdown(table: ReportTable) -> str:
    """One pipe table (GitHub) for each block, with its notes and commands. Best values are bold, failures have a ▼."""
    out = [f"## {_plain(table.title)}", ""]
    for block in table.blocks:
        out += [f"### {_plain(block.title)}", ""] if block.title else []
        out += _pipe_rows(table.columns, block.lines)
        notes = (*block.notes, *block.remarks)
        out += ["", *(f"- {_plain(note)}" for note in notes)] if notes else []
        out += ["", *_fenced(block.commands)] if block.commands else []
        out.append("")
    if table.caption:
        red = any(cell.mark == "failure" for block in table.blocks for line in block.lines for cell in line.cells)
        out += [_plain(table.caption) + (" Red is marked ▼ here." if red else ""), ""]
    return "\n".join(out)


def to_csv(table: ReportTable) -> str:
    """The unrounded records as CSV. Text that a spreadsheet would take for a formula begins with an apostrophe."""
    out = io.StringIO()
    names = list(dict.fromkeys(name for record in table.records for name in record))
    writer = csv.DictWriter(out, fieldnames=names, lineterminator="\n")
    writer.writeheader()
    writer.writerows({name: _no_formula(value) for name, value in record.items()} for record in table.records)
    return out.getvalue()


def to_rich(table: ReportTable) -> list[Table]:
    """Tables for the terminal, one for each block."""
    out: list[Table] = []
    for number, block in enumerate(table.blocks):
        title = ": ".join(part for part in (table.title if not number else "", block.title) if part)
        last = number == len(table.blocks) - 1
        shown = FittingTable(
            title=title,
            title_justify="left",
            caption=literal(table.caption) if last else None,
            caption_justify="left",
            less_important=MARGINS,
        )
        for column in table.columns:
            shown.add_column(literal(column.name), justify="right" if column.numeric else "left", no_wrap=True)
        for line, after in itertools.zip_longest(block.lines, block.lines[1:]):
            ends = line.below and not (after is not None and after.below)
            shown.add_row(*_rich_cells(line), end_section=ends, style="" if line.role == "measured" else "dim")
        out.append(shown)
    return out


def _rich_cells(line: Line) -> Iterator[Text]:
    for number, cell in enumerate(line.cells):
        yield literal(("  " if number == 0 and line.below else "") + cell.text, style=_STYLES[cell.mark])


def _pipe_rows(columns: Sequence[Column], lines: Sequence[Line]) -> list[str]:
    texts = [
        [_plain(column.name) for column in columns],
        *([_pipe_cell(line, i) for i in range(len(columns))] for line in lines),
    ]
    widths = [max(len(row[i]) for row in texts) for i in range(len(columns))]
    rule = ["-" * (w - 1) + ":" if column.numeric else "-" * w for column, w in zip(columns, widths, strict=True)]
    padded = [
        [text.rjust(w) if c.numeric else text.ljust(w) for text, w, c in zip(row, widths, columns, strict=True)]
        for row in (texts[0], rule, *texts[1:])
    ]
    return ["| " + " | ".join(row) + " |" for row in padded]


def _pipe_cell(line: Line, number: int) -> str:
    cell: Cell = line.cells[number]
    text = _plain(cell.text)
    if cell.mark in ("best", "strong"):
        text = f"**{text}**"
    elif cell.mark == "failure":
        text += " ▼"
    return f"↳ {text}" if number == 0 and line.below else text


def _plain(text: str) -> str:
    """The text on one line, escaped so that Markdown shows it unchanged."""
    line = " ".join(text.split())
    if _NUMBERS.fullmatch(line):
        return line
    escaped = _MARKUP.sub(r"\\\g<0>", line)
    return _BEGINS_BLOCK.sub(r"\1\\\2", escaped)


def _fenced(commands: Sequence[str]) -> list[str]:
    """Commands as a block of code. Its fence is longer than any row of backticks in them."""
    longest = max((len(run) for command in commands for run in re.findall("`+", command)), default=0)
    fence = "`" * max(3, longest + 1)
    return [f"{fence}sh", *commands, fence]


def _no_formula(value: Any) -> Any:
    """The value of a CSV field. A text that begins like a formula gets an apostrophe; numbers stay numbers.

    Line breaks become `\\n`, because a field with a bare `\\r` would not be quoted.
    """
    if not isinstance(value, str):
        return value
    text = "\n".join(re.split(r"\r\n?", value))
    is_formula = value.lstrip(" ").startswith(_FORMULA) and not _is_number(value)
    return f"'{text}" if is_formula else text


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def notes_and_commands(table: ReportTable) -> list[str]:
    """Lines that the terminal shows below a table: what is missing, and the commands that compute it."""
    out: list[str] = []
    for block in table.blocks:
        notes = (*block.notes, *block.remarks)
        out += [f"{block.title or table.title}:"] if notes or block.commands else []
        out += [f"  {note}" for note in notes]
        out += [f"    {command}" for command in block.commands]
    return out
