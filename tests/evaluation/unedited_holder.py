"""Another process at the cache of unedited measurements. It imports no torch, which would take it seconds."""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from romexp.errors import RecordError
from romexp.evaluation.unedited import UneditedCache
from romexp.facts import Case, EditRequest, Measurements

SECONDS = 0.5


def case(number: int) -> Case:
    return Case(case_id=number, request=EditRequest(subject="S", prompt="{} is", target_new="a", target_true="b"))


def hold(folder: Path, numbers: list[int], *, seconds: float, succeed: bool = True) -> None:
    """Begin to measure cases as A, and say so by a file; after a while have measured them, or have failed."""

    def measure(cases: Sequence[Case]) -> list[Measurements | RecordError]:
        (folder / "held").touch()
        time.sleep(seconds)
        return [{"case": one.case_id, "by": "A"} if succeed else RecordError("A gave up") for one in cases]

    UneditedCache(path=folder / "unedited.sqlite", context={}).measurements([case(n) for n in numbers], measure)
