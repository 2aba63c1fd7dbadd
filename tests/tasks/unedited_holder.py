"""Another process at the cache of unedited metrics. It imports no torch, which would take it seconds."""

from __future__ import annotations

import time
from pathlib import Path

from romexp.facts import Case, EditRequest
from romexp.tasks.unedited import UneditedCache

SECONDS = 0.5


def case(number: int) -> Case:
    return Case(case_id=number, request=EditRequest(subject="S", prompt="{} is", target_new="a", target_true="b"))


def hold(folder: Path, numbers: list[int], finish: bool) -> None:
    """Claim cases as A, say so; after a while keep their rows, or wait to be killed."""
    cache = UneditedCache(path=folder / "unedited.sqlite", context={})
    cases = [case(number) for number in numbers]
    with cache.claimed(cases) as claimed:
        (folder / "held").touch()
        time.sleep(4 * SECONDS if finish else 60)
        cache.put(claimed, [{"case": one.case_id, "by": "A"} for one in claimed])
