"""The variants with our package, which is used as in `task=edit`."""

from __future__ import annotations

from collections.abc import Iterator
from functools import partial

from timing import Stopwatch
from workload import SEED, Edited, Variant, Workload

from romexp.errors import RecordError, raise_first_error
from romexp.evaluation.counterfact import CounterFactEvaluator
from romexp.evaluation.generation import generate_texts
from romexp.facts import Case
from romexp.lm.sampling import generate
from romexp.lm.weight_delta import WeightDelta
from romexp.seeds import derive_seed

KINDS = ("rewrite_prompts", "paraphrase_prompts", "neighborhood_prompts", "attribute_prompts")


def batched(size: int) -> Variant:
    """Our package with batches of `size` cases."""
    return Variant(name="batched", edit=partial(_edit, size=size), generate=partial(_generate, size=size))


def single() -> Variant:
    """Our package with one case at a time, and one generated text at a time."""
    return Variant(name="single", edit=partial(_edit, size=1), generate=_generate_singly)


def _edit(work: Workload, watch: Stopwatch, *, size: int) -> Edited:
    evaluator = CounterFactEvaluator(generation="off")
    deltas: list[WeightDelta] = []
    nlls: list[list[float]] = []
    for cases in _chunks(work.cases, size):
        with watch("edit"):
            edits = work.editor(work.lm, [case.request for case in cases], resources=work.resources)
        mine = [edit.delta for edit in raise_first_error(edits)]
        with watch("metrics"):
            rows = evaluator(work.lm, cases, deltas=mine, seed=SEED)
        deltas += mine
        nlls += [[nll for kind in KINDS for pair in row[kind] for nll in pair] for row in raise_first_error(rows)]
    return Edited(deltas=deltas, nlls=nlls)


def _generate(work: Workload, deltas: list[WeightDelta], watch: Stopwatch, *, size: int) -> list[list[str]]:
    texts: list[list[str]] = []
    for start in range(0, len(work.cases), size):
        chunk = slice(start, start + size)
        edited = list(zip(work.cases[chunk], deltas[chunk], strict=True))
        with watch("generate"):
            texts += raise_first_error(generate_texts(work.lm, edited, sampler=work.sampler, seed=SEED))
    return texts


def _generate_singly(work: Workload, deltas: list[WeightDelta], watch: Stopwatch) -> list[list[str]]:
    texts = []
    for case, delta in zip(work.cases, deltas, strict=True):
        mine: list[str | RecordError] = []
        for j, prompt in enumerate(case.generation_prompts):
            seed = derive_seed(SEED, case.case_id, "generation", j)
            with watch("generate"):
                mine += generate(work.lm, [prompt], sampler=work.sampler, seeds=[seed], deltas=[delta])
        texts.append(raise_first_error(mine))
    return texts


def _chunks(cases: tuple[Case, ...], size: int) -> Iterator[tuple[Case, ...]]:
    for start in range(0, len(cases), size):
        yield cases[start : start + size]
