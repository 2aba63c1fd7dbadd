"""CounterFact's measurements: NLLs of both targets after every prompt, generated texts (docs/method.md §5.2, §5.4)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Literal

from romexp.bounds import check_bounds
from romexp.errors import (
    ConfigError,
    RecordError,
    raise_first_error,
    result_or_error,
    with_errors_in_place,
    without_errors,
)
from romexp.evaluation.base import finite, on_off
from romexp.evaluation.generation import References, essence_scores, generate_texts, score_texts
from romexp.evaluation.zsre import Question, ZsreEvaluator, questions_of
from romexp.facts import NO_TRUE_TARGET, Case, Measurements
from romexp.lm.model import LanguageModel
from romexp.lm.packing import Query
from romexp.lm.sampling import Sampler
from romexp.lm.scoring import TargetScore, score
from romexp.lm.weight_delta import WeightDelta


@dataclass(frozen=True, kw_only=True)
class CounterFactEvaluator:
    """The paper's CounterFact protocol (config group `evaluator`).

    The measurements of a case hold `rewrite_prompts`, `paraphrase_prompts`, `neighborhood_prompts` and
    `attribute_prompts`. Each is a list with one pair [NLL of target_new, NLL of target_true] for each prompt; an NLL is
    the mean over the target's tokens, in nats. If texts are generated, there are also `text`, `ngram_entropy` (bits),
    `reference_score` (cosine) and `essence_score` (perplexity).

    A case without target_true has no such pairs. Instead it has `rewrite_prompts_correct` and
    `paraphrase_prompts_correct`, and a case whose neighbourhood prompts have answers of their own has
    `neighborhood_prompts_correct`, all as in `romexp.evaluation.zsre`.

    A value that cannot be computed is null: an NLL that is not finite, the reference score of a case without snippets,
    and the essence score of a case without a snippet about its subject. The list `notes` explains the first two; it is
    left out if it is empty. Most cases have no essence score, so `notes` does not mention it.

    Attributes:
        generation: `on` or `off` (or true, false): whether texts are generated and scored. It takes most of the time.
        sampler: how texts are sampled.
        essence: also compute the essence score of cases that have a snippet about their subject. Needs generation.
        attributes: also score the attribute prompts, which are ten of some 23 prompts. No metric of the paper uses
            them.
        max_batch_tokens: size of a scoring batch in tokens, padding included. None lets the device decide.
    """

    generation: Literal["on", "off"] | bool = "on"
    sampler: Sampler = field(default_factory=Sampler)
    essence: bool = True
    attributes: bool = True
    max_batch_tokens: int | None = None

    def __post_init__(self) -> None:
        # One spelling is stored, so that `off`, `false` and False give the same hash of the configuration.
        generates = on_off(self.generation, field="evaluator.generation")
        object.__setattr__(self, "generation", "on" if generates else "off")
        check_bounds(self, "evaluator", from_1=("max_batch_tokens",))

    @property
    def generates(self) -> bool:
        """Whether texts are generated."""
        return self.generation == "on"

    @property
    def needs_references(self) -> bool:
        """True if texts are generated, since only generated texts are compared with references."""
        return self.generates

    def __call__(
        self,
        lm: LanguageModel,
        cases: Sequence[Case],
        *,
        deltas: Sequence[WeightDelta | None],
        seed: int,
        references: References | None = None,
    ) -> list[Measurements | RecordError]:
        """See `romexp.evaluation.base.Evaluator`."""
        measured = self._with_accuracies(lm, cases, deltas, self._probabilities(lm, cases, deltas))
        if self.generates:
            scored = [
                (case, delta)
                for case, delta, result in zip(cases, deltas, measured, strict=True)
                if not isinstance(result, RecordError)
            ]
            texts = self._texts(lm, scored, seed=seed, references=references)
            measured = _with_texts(measured, texts)
        for result in without_errors(measured):
            if not result["notes"]:
                del result["notes"]
        return measured

    def _prompts(self, case: Case) -> dict[str, tuple[str, ...]]:
        """The prompts after which both targets are scored; none if the case does not say its true target."""
        if case.request.target_true == NO_TRUE_TARGET:
            raise ConfigError(
                f"case {case.case_id} has separate answers to its neighborhood prompts, as zsRE records do, "
                "but the CounterFact evaluator scores the edit's two targets after every prompt: choose evaluator=zsre"
            )
        if not case.request.target_true:
            return {}
        return {
            "rewrite_prompts": (case.request.text,),
            "paraphrase_prompts": case.paraphrase_prompts,
            "neighborhood_prompts": () if case.neighborhood_targets else case.neighborhood_prompts,
            "attribute_prompts": case.attribute_prompts if self.attributes else (),
        }

    def _probabilities(
        self, lm: LanguageModel, cases: Sequence[Case], deltas: Sequence[WeightDelta | None]
    ) -> list[Measurements | RecordError]:
        asked = [
            (kind, prompt, case.request, delta)
            for case, delta in zip(cases, deltas, strict=True)
            for kind, prompts in self._prompts(case).items()
            for prompt in prompts
        ]
        queries = [Query(prompt=prompt, targets=(r.target_new, r.target_true)) for _, prompt, r, _ in asked]
        deltas = [delta for *_, delta in asked]
        found = score(lm, queries, deltas=deltas, max_batch_tokens=self.max_batch_tokens) if queries else []
        scores = iter(found)
        by_case = [
            {kind: [next(scores) for _ in group] for kind, group in self._prompts(case).items()} for case in cases
        ]
        return [result_or_error(partial(_nlls, case_scores)) for case_scores in by_case]

    def _with_accuracies(
        self,
        lm: LanguageModel,
        cases: Sequence[Case],
        deltas: Sequence[WeightDelta | None],
        measured: Sequence[Measurements | RecordError],
    ) -> list[Measurements | RecordError]:
        """Add what is measured where both targets cannot be compared: whether the model says the expected answers."""
        questions = [_questions(case) for case in cases]
        places = [i for i, asked in enumerate(questions) if asked and not isinstance(measured[i], RecordError)]
        found = ZsreEvaluator(max_batch_tokens=self.max_batch_tokens).measure(
            lm, [questions[i] for i in places], deltas=[deltas[i] for i in places]
        )
        merged = list(measured)
        for i, added in zip(places, found, strict=True):
            own = merged[i]
            merged[i] = added if isinstance(own, RecordError) or isinstance(added, RecordError) else own | added
        return merged

    def _texts(
        self,
        lm: LanguageModel,
        cases: Sequence[tuple[Case, WeightDelta | None]],
        *,
        seed: int,
        references: References | None,
    ) -> list[Measurements | RecordError]:
        """Generate texts of each edited case, and score them."""
        texts = generate_texts(lm, cases, sampler=self.sampler, seed=seed)
        essences: Sequence[float | None] = [None] * len(cases)
        if self.essence and references is not None:
            essences = essence_scores(lm, cases, references=references)
        measured: list[Measurements | RecordError] = []
        for (case, _), case_texts, essence in zip(cases, texts, essences, strict=True):
            if isinstance(case_texts, RecordError):
                measured.append(case_texts)
                continue
            scores = score_texts(case_texts, case.request, references)
            measured.append(
                {
                    "text": case_texts,
                    "ngram_entropy": scores.ngram_entropy,
                    "reference_score": scores.reference_score,
                    "essence_score": None if essence is None else finite(essence),
                    "notes": list(scores.notes),
                }
            )
        return measured


def _questions(case: Case) -> dict[str, list[Question]]:
    """The prompts that are judged by one expected answer, by kind; see `CounterFactEvaluator`."""
    asked = questions_of(case) if case.neighborhood_targets else {}
    if case.request.target_true:
        asked = {kind: group for kind, group in asked.items() if kind == "neighborhood_prompts"}
    elif not asked:
        asked = questions_of(replace(case, neighborhood_prompts=()))
    return {kind: group for kind, group in asked.items() if group}


def _nlls(scores: Mapping[str, Sequence[tuple[TargetScore, ...] | RecordError]]) -> Measurements:
    """The pairs [NLL of target_new, NLL of target_true] of one case, by kind of prompt.

    Raises:
        RecordError: a prompt could not be scored.
    """
    measured: Measurements = {"notes": []}
    for kind, group in scores.items():
        measured[kind] = [[finite(target.nll) for target in targets] for targets in raise_first_error(group)]
        if any(nll is None for pair in measured[kind] for nll in pair):
            measured["notes"].append(f"{kind}: NLLs that are not finite are null")
    return measured


def _with_texts(
    measured: Sequence[Measurements | RecordError], texts: Iterable[Measurements | RecordError]
) -> list[Measurements | RecordError]:
    """Add text measurements to each case. `texts` has one entry for each case of `measured` that is not an error."""
    merged: list[Measurements | RecordError] = []
    for result, added in zip(measured, with_errors_in_place(measured, texts), strict=True):
        if isinstance(result, RecordError) or isinstance(added, RecordError):
            merged.append(added)
        else:
            merged.append(result | added | {"notes": result["notes"] + added["notes"]})
    return merged
