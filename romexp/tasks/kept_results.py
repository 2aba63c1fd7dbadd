"""Whether the results of an earlier process are still there and can be read: manifest and rows of a run's folder."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

from romexp.errors import DataError
from romexp.results.find import check_manifest
from romexp.results.folder import RunFolder
from romexp.results.rows import Row

RowFault = Callable[[Row], str]
"""Why a row of `cases.jsonl` does not count as that of a finished item; empty if it does."""


def read_manifest(folder: RunFolder) -> dict[str, Any] | None:
    """The manifest of the folder; None if there is none.

    Raises:
        DataError: it is damaged.
    """
    try:
        found = folder.read("manifest")
        if found is not None:
            check_manifest(found, folder.path / "manifest.json")
    except DataError as error:
        raise DataError(f"{error}; move the folder away, or set another output_dir") from error
    return found


def lost_rows(folder: RunFolder, manifest: Mapping[str, Any], ids: Collection[int], fault: RowFault) -> str:
    """What a finished run's rows lack, for example `the rows of 3 of 12`; empty if nothing.

    Args:
        ids: the items of the run. Those that its manifest lists in `set_aside` have no rows.
    """
    aside = {entry.get("case_id") for entry in manifest.get("set_aside", ())}
    try:
        found = {row["case_id"] for row in folder.rows() if not fault(row)}
    except DataError as error:
        return f"some of its rows ({error})"
    expected = set(ids) - aside
    missing = len(expected - found)
    return f"the rows of {missing} of {len(expected)}" if missing else ""
