"""Generated texts of a case and their scores GE, RS and essence (docs/method.md §5.4)."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache, partial
from typing import Any, Protocol

from romexp.errors import RecordError, raise_first_error, result_or_error
from romexp.evaluation.text_metrics import Vectorizer, essence_score, ngram_entropy, reference_score
from romexp.facts import Case, EditRequest
from romexp.lm.model import LanguageModel
from romexp.lm.sampling import Sampler, generate
from romexp.lm.scoring import text_nlls
from romexp.lm.weight_delta import WeightDelta
from romexp.seeds import derive_seed

ESSENCE_TOKENS = 100
"""Essence texts are cut to this many tokens (docs/method.md §5.4)."""


class Snippet(Protocol):
    """A reference text: an encyclopedia article on `name`, for which the snippet's relation and target hold."""

    @property
    def name(self) -> str: ...

    @property
    def text(self) -> str: ...


@dataclass(frozen=True, kw_only=True, eq=False)
class References:
    """What generations are compared with (docs/method.md §1.4).

    Attributes:
        snippets: (relation id, target id) → texts about subjects for which that target holds.
        vectorizer: fitted TF-IDF of the whole snippet collection.
    """

    snippets: Mapping[tuple[str, str], Sequence[Snippet]]
    vectorizer: Vectorizer

    def of(self, request: EditRequest) -> Sequence[Snippet]:
        """All snippets about the request's relation and new target; empty if there are none."""
        return self.snippets.get((request.relation_id, request.target_new_id), ())

    def essence(self, request: EditRequest) -> str:
        """The texts among them that are about the request's own subject, joined; usually there is none."""
        return " ".join(snippet.text for snippet in self.of(request) if snippet.name == request.subject)

    def score(self, texts: Sequence[str], request: EditRequest) -> float:
        """RS of generated texts (`romexp.evaluation.text_metrics.reference_score`)."""
        vector = self._vector((request.relation_id, request.target_new_id))
        return reference_score(texts, vector, self.vectorizer)

    @cached_property
    def _vector(self) -> Callable[[tuple[str, str]], Any]:
        """TF-IDF vector by key: many cases share one, and its texts can be megabytes. Those long unused are dropped."""

        @lru_cache(maxsize=256)
        def vector(key: tuple[str, str]) -> Any:
            return self.vectorizer.transform([" ".join(snippet.text for snippet in self.snippets[key])])

        return vector


EditedCase = tuple[Case, WeightDelta | None]
"""A case, and the edit it is measured through; None for the unedited model."""


def generate_texts(
    lm: LanguageModel, cases: Sequence[EditedCase], *, sampler: Sampler, seed: int
) -> list[list[str] | RecordError]:
    """One text a generation prompt, the prompt included.

    Prompt j of a case draws from the seed (run seed, case id, "generation", j), whatever the model: a case's texts
    before and after the edit differ by the edit alone, and repeated prompts of one case differ from each other.

    Returns:
        In the place of a case with a prompt longer than the model's context, its error.
    """
    asked = [(case, delta, j) for case, delta in cases for j in range(len(case.generation_prompts))]
    texts = iter(
        generate(
            lm,
            [case.generation_prompts[j] for case, _, j in asked],
            sampler=sampler,
            seeds=[derive_seed(seed, case.case_id, "generation", j) for case, _, j in asked],
            deltas=[delta for _, delta, _ in asked],
        )
        if asked
        else ()
    )
    by_case = [[next(texts) for _ in case.generation_prompts] for case, _ in cases]
    return [result_or_error(partial(raise_first_error, own)) for own in by_case]


def essence_scores(lm: LanguageModel, cases: Sequence[EditedCase], *, references: References) -> list[float | None]:
    """Essence score of each case; None where no snippet is about the case's subject."""
    texts = [references.essence(case.request) for case, _ in cases]
    having = [i for i, text in enumerate(texts) if text.strip()]
    scores: list[float | None] = [None] * len(cases)
    if having:
        deltas = [cases[i][1] for i in having]
        nlls = text_nlls(lm, [texts[i] for i in having], deltas=deltas, max_tokens=ESSENCE_TOKENS)
        for i, values in zip(having, nlls, strict=True):
            scores[i] = essence_score(values)
    return scores


@dataclass(frozen=True, kw_only=True)
class TextScores:
    """GE and RS of one case; None where a score cannot be taken, with a note that says why."""

    ngram_entropy: float | None
    reference_score: float | None
    notes: tuple[str, ...]


def score_texts(texts: Sequence[str], request: EditRequest, references: References | None) -> TextScores:
    """GE and RS. A case without texts or without snippets loses its score, not the run."""
    if not texts:
        return TextScores(
            ngram_entropy=None, reference_score=None, notes=("no generation prompts: GE and RS are null",)
        )
    notes: tuple[str, ...] = ()
    similarity = None
    if references is None:
        notes = ("no reference texts were given: RS is null",)
    elif not references.of(request):
        key = (request.relation_id, request.target_new_id)
        notes = (f"no snippets for relation and target {key}: RS is null",)
    else:
        similarity = references.score(texts, request)
    return TextScores(ngram_entropy=ngram_entropy(texts), reference_score=similarity, notes=notes)
