"""A table for the terminal as JSON values, so that it can be shown again without what it was made from."""

from __future__ import annotations

from collections.abc import Mapping
from itertools import chain
from typing import Any

from rich.text import Text

from romexp.reporting.tables.fitting import FittingTable

_OPTIONS = ("title_justify", "caption_justify")


def to_json(table: Any) -> dict[str, Any] | None:
    """The table as JSON values; None if it is of another class, or its cells have several styles."""
    if not isinstance(table, FittingTable):
        return None
    columns = [list(column.cells) for column in table.columns]
    headers = [column.header for column in table.columns]
    if not all(_is_plain(text) for text in (table.title, table.caption, *headers, *chain.from_iterable(columns))):
        return None
    rows = [
        {"cells": [_from_text(cells[i]) for cells in columns], "style": str(row.style or ""), "end": row.end_section}
        for i, row in enumerate(table.rows)
    ]
    return {
        "title": _from_text(table.title),
        "caption": _from_text(table.caption),
        "less_important": sorted(table.less_important),
        "options": {name: getattr(table, name) for name in _OPTIONS},
        "columns": [
            {"header": _from_text(column.header), "justify": column.justify, "no_wrap": column.no_wrap}
            for column in table.columns
        ],
        "rows": rows,
    }


def from_json(value: Mapping[str, Any]) -> FittingTable:
    """The table that `to_json` described.

    Raises:
        KeyError, TypeError, ValueError: the value is something else.
    """
    table = FittingTable(
        title=_to_text(value["title"]),
        caption=_to_text(value["caption"]),
        less_important=value["less_important"],
        **value["options"],
    )
    for column in value["columns"]:
        header: Any = _to_text(column["header"])
        table.add_column(header, justify=column["justify"], no_wrap=column["no_wrap"])
    for row in value["rows"]:
        table.add_row(*map(_to_text, row["cells"]), style=row["style"] or None, end_section=row["end"])
    return table


def _is_plain(text: Any) -> bool:
    """Whether this is nothing, markup, or text in one style."""
    return text is None or isinstance(text, str) or (isinstance(text, Text) and not text.spans)


def _from_text(text: Any) -> Any:
    """Text as a pair of text and style; markup as it is."""
    return [text.plain, str(text.style)] if isinstance(text, Text) else text


def _to_text(value: Any) -> Any:
    return Text(value[0], style=value[1]) if isinstance(value, list) else value
