"""Results that stay on disk: metrics and places of the rows in memory, the rows themselves read when asked for.

A study of 40 runs with 7,500 cases each has some gigabytes of rows, and a report needs little more than their metrics.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from romexp.analysis.summary import frame_of_records
from romexp.results.rows import CaseResult, row_at


@dataclass(frozen=True, slots=True)
class Place:
    """Where the row of one case is.

    Attributes:
        path: the file.
        position: where the line begins, in bytes.
        length: the line's length, in bytes.
        before: whether the unedited model was measured.
        metrics: the case's row in the frame of metrics (`analysis.summary.case_record`).
    """

    path: Path
    position: int
    length: int
    before: bool
    metrics: Mapping[str, Any]

    def result(self) -> CaseResult:
        """Read the row.

        Raises:
            DataError: the file was changed since the place was found.
        """
        return CaseResult.from_json(row_at(self.path, self.position, self.length))


@dataclass(frozen=True, kw_only=True, eq=False)
class StoredResults(Sequence[CaseResult]):
    """A sequence of results, in order of case id, each of which is read from disk whenever it is asked for.

    Attributes:
        files: the files of the rows.
        places: (cases × 3): number of the file, position and length of the line in bytes.
        before: (cases,) whether the unedited model was measured.
        frame: metrics by case, in the same order (`analysis.summary.case_frame`).
    """

    files: tuple[Path, ...]
    places: NDArray[np.int64]
    before: NDArray[np.bool_]
    frame: pd.DataFrame

    @classmethod
    def at(cls, places: Sequence[Place]) -> StoredResults:
        """The results at these places, which are in order of case id."""
        numbers = {path: number for number, path in enumerate(dict.fromkeys(place.path for place in places))}
        where = [(numbers[place.path], place.position, place.length) for place in places]
        return cls(
            files=tuple(numbers),
            places=np.array(where, dtype=np.int64).reshape(-1, 3),
            before=np.array([place.before for place in places], dtype=bool),
            frame=frame_of_records([place.metrics for place in places]),
        )

    @classmethod
    def first_of(cls, several: Sequence[StoredResults]) -> StoredResults:
        """Each case of any of these results once, from the first that has it."""
        several = [results for results in several if len(results)] or several[:1]
        files = dict.fromkeys(file for results in several for file in results.files)
        number = {file: position for position, file in enumerate(files)}
        places = []
        for results in several:
            of_file = np.array([number[file] for file in results.files], dtype=np.int64)
            places.append(np.column_stack([of_file[results.places[:, 0]], results.places[:, 1:]]))
        frame = pd.concat([results.frame for results in several], ignore_index=True)
        joined = cls(
            files=tuple(files),
            places=np.concatenate(places),
            before=np.concatenate([results.before for results in several]),
            frame=frame,
        )
        ids, first = np.unique(frame["case_id"].to_numpy(), return_index=True)
        return joined._take(first) if len(ids) else joined

    @cached_property
    def ids(self) -> NDArray[np.int64]:
        """(cases,) the case ids."""
        return self.frame["case_id"].to_numpy(dtype=np.int64)

    @cached_property
    def complete(self) -> NDArray[np.bool_]:
        """(cases,) whether the case was measured before and after the edit."""
        return self.frame["complete"].to_numpy(dtype=bool)

    @cached_property
    def _numbers(self) -> dict[int, int]:
        return {int(case_id): number for number, case_id in enumerate(self.ids)}

    def of_case(self, case_id: int) -> CaseResult | None:
        """The result of a case, read from disk; None if there is none."""
        number = self._numbers.get(case_id)
        return None if number is None else self[number]

    def where(self, keep: NDArray[np.bool_]) -> StoredResults:
        """Those results for which the mask (cases,) is true. Metrics that none of them has are left out."""
        return self._take(np.flatnonzero(keep))

    def _take(self, numbers: NDArray[np.intp]) -> StoredResults:
        frame = self.frame.iloc[numbers].reset_index(drop=True)
        empty = [name for name in frame.columns[2:] if frame[name].isna().all()]
        return StoredResults(
            files=self.files,
            places=self.places[numbers],
            before=self.before[numbers],
            frame=frame.drop(columns=empty),
        )

    def __eq__(self, other: object) -> bool:
        """Whether the other has the same results, wherever they are kept."""
        if not isinstance(other, StoredResults):
            return NotImplemented
        return len(self) == len(other) and all(one == another for one, another in zip(self, other, strict=True))

    __hash__ = None  # type: ignore[assignment]

    def __len__(self) -> int:
        return len(self.places)

    @overload
    def __getitem__(self, index: int) -> CaseResult: ...

    @overload
    def __getitem__(self, index: slice) -> StoredResults: ...

    def __getitem__(self, index: int | slice) -> CaseResult | StoredResults:
        if isinstance(index, slice):
            return self._take(np.arange(len(self))[index])
        file, position, length = (int(value) for value in self.places[index])
        return CaseResult.from_json(row_at(self.files[file], position, length))

    def __iter__(self) -> Iterator[CaseResult]:
        return (self[number] for number in range(len(self)))
