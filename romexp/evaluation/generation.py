"""Generates the texts of a case and scores them: GE, RS and essence (docs/method.md §5.4)."""

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
"""Texts for the essence score are cut to this many tokens (docs/method.md §5.4)."""


class Snippet(Protocol):
    """A reference text: an encyclopedia article about the subject `name`."""

    @property
    def name(self) -> str: ...

    @property
    def text(self) -> str: ...


@dataclass(frozen=True, kw_only=True, eq=False)
class References:
    """The texts that generated texts are compared with (docs/method.md §1.4).

    Attributes:
        snippets: for each (relation id, target id), texts about subjects that stand in this relation to this target.
        vectorizer: TF-IDF, fitted on the whole collection of snippets.
    """

    snippets: Mapping[tuple[str, str], Sequence[Snippet]]
    vectorizer: Vectorizer

    def of(self, request: EditRequest) -> Sequence[Snippet]:
        """All snippets of the request's relation and new target; empty if there are none."""
        return self.snippets.get((request.relation_id, request.target_new_id), ())

    def essence(self, request: EditRequest) -> str:
        """The snippets that are also about the request's own subject, joined by spaces; usually there are none."""
        return " ".join(snippet.text for snippet in self.of(request) if snippet.name == request.subject)

    def score(self, texts: Sequence[str], request: EditRequest) -> float:
        """The reference score (RS) of generated texts (`romexp.evaluation.text_metrics.reference_score`)."""
        vector = self._vector((request.relation_id, request.target_new_id))
        return reference_score(texts, vector, self.vectorizer)

    @cached_property
    def _vector(self) -> Callable[[tuple[str, str]], Any]:
        """A function from a key of `snippets` to the TF-IDF vector of its texts.

        It caches the vectors used most recently, since many cases share a key, and its texts can be megabytes.
        """

        @lru_cache(maxsize=256)
        def vector(key: tuple[str, str]) -> Any:
            return self.vectorizer.transform([" ".join(snippet.text for snippet in self.snippets[key])])

        return vector


EditedCase = tuple[Case, WeightDelta | None]
"""A case, and the delta of the model that it is measured on; None stands for the unedited model."""


def generate_texts(
    lm: LanguageModel, cases: Sequence[EditedCase], *, sampler: Sampler, seed: int
) -> list[list[str] | RecordError]:
    """Generate one text for each generation prompt (docs/method.md §5.5). A text includes its prompt.

    Prompt j of a case has the seed of (run seed, case id, "generation", j), which does not depend on the model. So the
    edit is the only cause of a difference between a case's texts before and after it. A prompt that occurs twice in a
    case has two different seeds.

    Returns:
        The texts of each case, or its error if a prompt is longer than the model's context.
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
    return [result_or_error(partial(raise_first_error, case_texts)) for case_texts in by_case]


def essence_scores(lm: LanguageModel, cases: Sequence[EditedCase], *, references: References) -> list[float | None]:
    """The essence score of each case (docs/method.md §5.4); None if no snippet is about the case's subject."""
    texts = [references.essence(case.request) for case, _ in cases]
    with_text = [i for i, text in enumerate(texts) if text.strip()]
    scores: list[float | None] = [None] * len(cases)
    if with_text:
        deltas = [cases[i][1] for i in with_text]
        nlls = text_nlls(lm, [texts[i] for i in with_text], deltas=deltas, max_tokens=ESSENCE_TOKENS)
        for i, values in zip(with_text, nlls, strict=True):
            scores[i] = essence_score(values)
    return scores


@dataclass(frozen=True, kw_only=True)
class TextScores:
    """GE and RS of one case. A score that cannot be computed is None, and a note says why."""

    ngram_entropy: float | None
    reference_score: float | None
    notes: tuple[str, ...]


def score_texts(texts: Sequence[str], request: EditRequest, references: References | None) -> TextScores:
    """GE and RS of a case. If it has no texts or no snippets, its score is None, and the run continues."""
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
