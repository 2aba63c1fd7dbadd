"""The probability of an edit's target after the prompts that judge it (docs/method.md §14.3)."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

from romexp.errors import RecordError, raise_first_error, result_or_error
from romexp.lm.model import LanguageModel
from romexp.lm.packing import Query
from romexp.lm.scoring import TargetScore, score
from romexp.lm.weight_delta import WeightDelta
from romexp.localization.objectives import Wanted

PROMPTS = ("rewrite", "paraphrase", "neighborhood")
"""The prompts after which the target is scored: of each kind the first one that the record has."""

Sample = Callable[[], AbstractContextManager[Any]]
"""Opens a context in which the model's inputs are as one sample of noise makes them."""

Scores = list[list[TargetScore | None]]
"""By sample and kind of prompt; None where the record has no such prompt."""


def prompts_of(job: Wanted) -> tuple[str, str, str]:
    """The prompts of `PROMPTS`; empty where the record has none of the kind."""
    case = job.case
    first = [next(iter(texts), "") for texts in (case.paraphrase_prompts, case.neighborhood_prompts)]
    return (case.request.text, first[0], first[1])


def target_scores(
    lm: LanguageModel, jobs: Sequence[Wanted], deltas: Sequence[WeightDelta | None], samples: Sequence[Sample]
) -> list[Scores | RecordError]:
    """The scores of each job's target on its edited model.

    Args:
        deltas: of each job the edit; None is the unedited model.
        samples: what to do with the inputs; each job is scored once in each.

    Returns:
        For each job its scores; or a `RecordError` if a text is too long, or has no token of its own.
    """
    asked = [(i, prompt) for i, job in enumerate(jobs) for prompt in prompts_of(job) if prompt]
    queries = [Query(prompt=prompt, targets=(jobs[i].target,)) for i, prompt in asked]
    by_sample = []
    for sample in samples:
        with sample():
            found = score(lm, queries, deltas=[deltas[i] for i, _ in asked]) if asked else []
        scores = iter(found)
        by_sample.append([[next(scores) if prompt else None for prompt in prompts_of(job)] for job in jobs])

    def of_job(i: int) -> Scores:
        return [[each[0] if each else None for each in raise_first_error(sample[i])] for sample in by_sample]

    return [result_or_error(lambda i=i: of_job(i)) for i in range(len(jobs))]  # type: ignore[misc]


def probabilities(scores: Scores) -> list[float | None]:
    """The probability of the whole target after each prompt, averaged over samples."""
    return [
        None if None in at_prompt else sum(math.exp(-sum(s.token_nlls)) for s in at_prompt if s) / len(at_prompt)
        for at_prompt in zip(*scores, strict=True)
    ]


def pairs(before: Sequence[float | None], after: Sequence[float | None]) -> dict[str, Any]:
    """By prompt, the probabilities [before, after]; None where the record lacks the prompt, or a value is none."""
    return {
        kind: None if pre is None or post is None or not math.isfinite(pre + post) else [pre, post]
        for kind, pre, post in zip(PROMPTS, before, after, strict=True)
    }
