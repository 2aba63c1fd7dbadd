"""The order of work of `task=lifelong`: what is edited in each step, and what is measured after it."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from romexp.facts import Case

Batch = tuple[tuple[Case, int], ...]
"""Cases that are measured together, each with the number of edits after its own step."""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One step.

    Attributes:
        cases: the cases that are edited.
        edited_at: number of edits after this step.
        batches: what is measured after it.
        is_checkpoint: whether all cases edited so far are measured, and the model is watched for collapse.
    """

    cases: tuple[Case, ...]
    edited_at: int
    batches: tuple[Batch, ...]
    is_checkpoint: bool = False


def plan(
    cases: Sequence[Case], *, step: int, batch_size: int, immediate: bool, checkpoints: Collection[int]
) -> list[Step]:
    """The steps of a run. The last one is shorter if the cases do not fill it.

    Args:
        step: number of cases of a step.
        batch_size: number of cases that are measured together.
        immediate: whether the cases of a step are measured after it.
        checkpoints: numbers of edits after which all cases edited so far are measured, besides the last one.
    """
    steps: list[Step] = []
    timed: list[tuple[Case, int]] = []
    for start in range(0, len(cases), step):
        chosen = tuple(cases[start : start + step])
        edited_at = start + len(chosen)
        own = [(case, edited_at) for case in chosen]
        is_checkpoint = edited_at in checkpoints or edited_at == len(cases)
        # Right after its step a case is measured once, whether it is asked for as immediate or at a checkpoint.
        measured = [own if immediate or is_checkpoint else [], timed if is_checkpoint else []]
        batches = [part[i : i + batch_size] for part in measured for i in range(0, len(part), batch_size)]
        timed = timed + own
        steps.append(
            Step(cases=chosen, edited_at=edited_at, batches=tuple(map(tuple, batches)), is_checkpoint=is_checkpoint)
        )
    return steps
