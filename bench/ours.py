"""Our package, as `task=edit` uses it, with any number of cases side by side."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from timing import Stopwatch
from workload import SEED, Edited, Variant, Workload

from romexp.evaluation.counterfact import CounterFactEvaluator
from romexp.evaluation.generation import generate_texts
from romexp.facts import Case
from romexp.lm.sampling import generate
from romexp.lm.weight_delta import WeightDelta
from romexp.seeds import derive_seed

KINDS = ("rewrite_prompts", "paraphrase_prompts", "neighborhood_prompts", "attribute_prompts")


def batched(size: int) -> Variant:
    """`size` cases at a time; their texts all at once."""
    return Variant(name="batched", edit=partial(_edit, size=size), generate=partial(_generate, size=size))


def single() -> Variant:
    """The same code with one request and its prompts at a time, and one text at a time."""
    return Variant(name="single", edit=partial(_edit, size=1), generate=_generate_singly)


def _edit(work: Workload, watch: Stopwatch, *, size: int) -> Edited:
    evaluator = CounterFactEvaluator(generation="off")
    deltas: list[WeightDelta] = []
    nlls: list[list[float]] = []
    for cases in _chunks(work.cases, size):
        with watch("edit"):
            edits = work.editor(work.lm, [case.request for case in cases], resources=work.resources)
        mine = [edit.delta for edit in edits]
        with watch("metrics"):
            rows = evaluator(work.lm, cases, deltas=mine, seed=SEED)
        deltas += mine
        nlls += [[nll for kind in KINDS for pair in row[kind] for nll in pair] for row in rows]
    return Edited(deltas=deltas, nlls=nlls)


def _generate(work: Workload, deltas: list[WeightDelta], watch: Stopwatch, *, size: int) -> list[list[str]]:
    texts: list[list[str]] = []
    for start in range(0, len(work.cases), size):
        cases, mine = work.cases[start : start + size], deltas[start : start + size]
        with watch("generate"):
            texts += generate_texts(
                work.lm, cases, sampler=work.sampler, seed=SEED, deltas=mine, edits=range(len(cases))
            )
    return texts


def _generate_singly(work: Workload, deltas: list[WeightDelta], watch: Stopwatch) -> list[list[str]]:
    texts = []
    for case, delta in zip(work.cases, deltas, strict=True):
        mine = []
        for j, prompt in enumerate(case.generation_prompts):
            seed = derive_seed(SEED, case.case_id, "generation", j)
            with watch("generate"):
                mine += generate(work.lm, [prompt], sampler=work.sampler, seeds=[seed], deltas=[delta], edits=[0])
        texts.append(mine)
    return texts


def _chunks(cases: tuple[Case, ...], size: int) -> Iterator[tuple[Case, ...]]:
    for start in range(0, len(cases), size):
        yield cases[start : start + size]
