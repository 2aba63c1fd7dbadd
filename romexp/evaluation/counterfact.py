"""CounterFact's measurements: NLLs of the two targets after every prompt, generated texts
(docs/method.md §5.2, §5.4).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial

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
from romexp.facts import Case, Measurements
from romexp.lm.model import LanguageModel
from romexp.lm.sampling import Sampler
from romexp.lm.scoring import Query, TargetScore, score
from romexp.lm.weight_delta import WeightDelta


@dataclass(frozen=True, kw_only=True)
class CounterFactEvaluator:
    """The paper's CounterFact protocol (config group `evaluator`).

    Each case has `rewrite_prompts`, `paraphrase_prompts`, `neighborhood_prompts` and `attribute_prompts`: per prompt
    [nll of target_new, nll of target_true], means over the target's tokens in nats. With generation also `text`,
    `ngram_entropy` (bits), `reference_score` (cosine) and `essence_score` (perplexity). What cannot be taken is null:
    an NLL that is not finite, RS without snippets for the relation and target, essence without a snippet about the
    subject. The first two leave a line in `notes`, a list that is only there when something is to be said; the third
    is the usual case and leaves none.

    Attributes:
        generation: `on` or `off` (or true, false): draw and score texts. It takes most of the time.
        sampler: how texts are drawn.
        essence: also take the essence score of cases that have an essence text; needs generation.
        attributes: also score the attribute prompts. They are stored, but no metric of the paper uses them, and they
            are ten of some 23 prompts.
        max_batch_tokens: size of a scoring batch, padding included; None takes what suits the device.
    """

    generation: str | bool = "on"
    sampler: Sampler = field(default_factory=Sampler)
    essence: bool = True
    attributes: bool = True
    max_batch_tokens: int | None = None

    def __post_init__(self) -> None:
        # `evaluator.generation` means the same whichever way it was spelt, also in hashes of the config.
        generates = on_off(self.generation, field="evaluator.generation")
        object.__setattr__(self, "generation", "on" if generates else "off")

    @property
    def generates(self) -> bool:
        """Whether texts are drawn."""
        return self.generation == "on"

    @property
    def needs_references(self) -> bool:
        """Snippets are only compared with generated texts."""
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
        measured = self._probabilities(lm, cases, deltas)
        if self.generates:
            able = [
                (case, delta)
                for case, delta, own in zip(cases, deltas, measured, strict=True)
                if not isinstance(own, RecordError)
            ]
            texts = self._texts(lm, able, seed=seed, references=references)
            measured = _with_texts(measured, texts)
        for each in without_errors(measured):
            if not each["notes"]:
                del each["notes"]
        return measured

    def _prompts(self, case: Case) -> dict[str, tuple[str, ...]]:
        if case.neighborhood_targets:
            raise ConfigError(
                f"case {case.case_id} has answers of its own for its neighborhood prompts (zsRE's kind of record), "
                "but the CounterFact evaluator judges all prompts by the edit's two targets: choose evaluator=zsre"
            )
        return {
            "rewrite_prompts": (case.request.text,),
            "paraphrase_prompts": case.paraphrase_prompts,
            "neighborhood_prompts": case.neighborhood_prompts,
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
        scores = iter(score(lm, queries, deltas=[delta for *_, delta in asked], max_batch_tokens=self.max_batch_tokens))
        by_case = [
            {kind: [next(scores) for _ in group] for kind, group in self._prompts(case).items()} for case in cases
        ]
        return [result_or_error(partial(_nlls, of_case)) for of_case in by_case]

    def _texts(
        self,
        lm: LanguageModel,
        cases: Sequence[tuple[Case, WeightDelta | None]],
        *,
        seed: int,
        references: References | None,
    ) -> list[Measurements | RecordError]:
        """Generated texts and their scores, for cases with their edits."""
        texts = generate_texts(lm, cases, sampler=self.sampler, seed=seed)
        essences: Sequence[float | None] = [None] * len(cases)
        if self.essence and references is not None:
            essences = essence_scores(lm, cases, references=references)
        found: list[Measurements | RecordError] = []
        for (case, _), mine, essence in zip(cases, texts, essences, strict=True):
            if isinstance(mine, RecordError):
                found.append(mine)
                continue
            scores = score_texts(mine, case.request, references)
            found.append(
                {
                    "text": mine,
                    "ngram_entropy": scores.ngram_entropy,
                    "reference_score": scores.reference_score,
                    "essence_score": None if essence is None else finite(essence),
                    "notes": list(scores.notes),
                }
            )
        return found


def _nlls(scores: Mapping[str, Sequence[tuple[TargetScore, ...] | RecordError]]) -> Measurements:
    """[nll of target_new, nll of target_true] by kind of prompt.

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
    """The measurements of each case with what `texts` adds to those that are no errors."""
    out: list[Measurements | RecordError] = []
    for own, added in zip(measured, with_errors_in_place(measured, texts), strict=True):
        if isinstance(own, RecordError) or isinstance(added, RecordError):
            out.append(added)
        else:
            out.append(own | added | {"notes": own["notes"] + added["notes"]})
    return out
