"""A cache of unedited measurements, and a measure that says when it is called."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from romexp.errors import RecordError
from romexp.evaluation.unedited import UneditedCache
from romexp.facts import Case, Measurements


def cache_in(folder: Path, **context: Any) -> UneditedCache:
    return UneditedCache(path=folder / "unedited.sqlite", context=context)


@dataclass
class Measure:
    """Measures cases and remembers which, call by call.

    Attributes:
        bad: cases that cannot be measured.
        during: is called while the cases are measured, that is, while they are claimed.
    """

    who: str = "me"
    bad: tuple[int, ...] = ()
    during: Callable[[], object] = lambda: None
    calls: list[list[int]] = field(default_factory=list)

    def __call__(self, cases: Sequence[Case]) -> list[Measurements | RecordError]:
        if not cases:  # the call before any waiting, in which the caller can do other work
            return []
        self.calls.append([one.case_id for one in cases])
        self.during()
        return [
            RecordError("no answer", field="prompt")
            if one.case_id in self.bad
            else {"case": one.case_id, "by": self.who}
            for one in cases
        ]
