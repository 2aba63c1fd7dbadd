"""zsRE's measurements: teacher-forced next-token accuracy (docs/method.md §5.6)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from transformers import PreTrainedTokenizerBase

from romexp.bounds import check_bounds
from romexp.errors import RecordError, raise_first_error, result_or_error, with_errors_in_place, without_errors
from romexp.evaluation.generation import References
from romexp.facts import Case, Measurements
from romexp.lm.added_tokens import adds_word_marks
from romexp.lm.model import LanguageModel
from romexp.lm.packing import Query
from romexp.lm.scoring import TargetScore, score
from romexp.lm.tokens import bare_ids
from romexp.lm.weight_delta import WeightDelta

Question = tuple[str, str]
"""A complete prompt and the answer expected after it (no leading space)."""


@dataclass(frozen=True, kw_only=True)
class ZsreEvaluator:
    """The paper's zsRE protocol (config group `evaluator`; docs/method.md §5.6).

    A prompt with an answer of tokens y_1…y_m gives m booleans. Boolean i says whether the most likely token after
    prompt + decode(y_<i) is the first token of decode(y_i), tokenized again. The measurements of a case hold
    `rewrite_prompts_correct`, `paraphrase_prompts_correct` and `neighborhood_prompts_correct`, each a flat list over
    prompts and tokens. A case's `neighborhood_prompts` are whole questions, and its `neighborhood_targets` are whole
    answers (docs/method.md §1.2).

    The authors' code decodes and tokenizes again too. As a consequence, a token that is only a part of a character can
    never be right. SentencePiece models, which the paper does not use, put a word mark before any text that they
    tokenize. With these, no token inside a word could ever be right, so the token y_i itself is expected.

    Attributes:
        max_batch_tokens: size of a scoring batch in tokens, padding included. None lets the device decide.
    """

    max_batch_tokens: int | None = None

    def __post_init__(self) -> None:
        check_bounds(self, "evaluator", from_1=("max_batch_tokens",))

    @property
    def needs_references(self) -> bool:
        """Always False, because zsRE has no generated texts."""
        return False

    def __call__(
        self,
        lm: LanguageModel,
        cases: Sequence[Case],
        *,
        deltas: Sequence[WeightDelta | None],
        seed: int,
        references: References | None = None,
    ) -> list[Measurements | RecordError]:
        """See `romexp.evaluation.base.Evaluator`. Nothing here is random, and `references` is not used."""
        questions = [result_or_error(partial(questions_of, case)) for case in cases]
        return self.measure(lm, questions, deltas=deltas)

    def measure(
        self,
        lm: LanguageModel,
        questions: Sequence[Mapping[str, Sequence[Question]] | RecordError],
        *,
        deltas: Sequence[WeightDelta | None],
    ) -> list[Measurements | RecordError]:
        """Measure the questions of each case, by kind of prompt, on its own edited model. Errors stay in place."""
        asked = [
            (question, delta)
            for kinds, delta in zip(questions, deltas, strict=True)
            if not isinstance(kinds, RecordError)
            for group in kinds.values()
            for question in group
        ]
        correct = iter(self._correct(lm, asked))
        by_case = [
            {kind: [next(correct) for _ in group] for kind, group in q.items()} for q in without_errors(questions)
        ]
        measured = [result_or_error(partial(_measurements, case_correct)) for case_correct in by_case]
        return with_errors_in_place(questions, measured)

    def _correct(
        self, lm: LanguageModel, asked: Sequence[tuple[Question, WeightDelta | None]]
    ) -> list[list[bool] | RecordError]:
        """For each question, asked of its edited model, one boolean for each answer token."""
        queries = [Query(prompt=prompt, targets=(answer,)) for (prompt, answer), _ in asked]
        answered = self._score(lm, queries, [delta for _, delta in asked])
        scores = {row: targets[0] for row, targets in enumerate(answered) if not isinstance(targets, RecordError)}
        predictions = {row: list(score.predictions) for row, score in scores.items()}
        retokenizes = not adds_word_marks(lm.tokenizer)
        if retokenizes:
            altered = [(row, i, text) for row, s in scores.items() for i, text in _altered(lm.tokenizer, s)]
            altered_queries = [replace(queries[row], prompt=queries[row].prompt + text) for row, _, text in altered]
            rescored = raise_first_error(self._score(lm, altered_queries, [asked[row][1] for row, _, _ in altered]))
            for (row, i, _), (s,) in zip(altered, rescored, strict=True):
                predictions[row][i] = s.predictions[0]
        correct = []
        for row, s in scores.items():
            expected = expected_tokens(lm.tokenizer, s.token_ids) if retokenizes else s.token_ids
            correct.append([a == b for a, b in zip(predictions[row], expected, strict=True)])
        return with_errors_in_place(answered, correct)

    def _score(
        self, lm: LanguageModel, queries: Sequence[Query], deltas: Sequence[WeightDelta | None]
    ) -> list[tuple[TargetScore, ...] | RecordError]:
        return score(lm, queries, deltas=deltas, max_batch_tokens=self.max_batch_tokens) if queries else []


def _measurements(correct: Mapping[str, Sequence[list[bool] | RecordError]]) -> Measurements:
    """The measurements of one case: for each kind of prompt, the booleans of all its questions in one list.

    Raises:
        RecordError: a question could not be scored.
    """
    return {
        f"{kind}_correct": [is_right for of_question in raise_first_error(group) for is_right in of_question]
        for kind, group in correct.items()
    }


def questions_of(case: Case) -> dict[str, list[Question]]:
    """Pairs of a prompt and the answer expected after it, by kind of prompt.

    Raises:
        RecordError: the numbers of neighbourhood prompts and targets differ. A CounterFact case has no such targets.
    """
    if len(case.neighborhood_prompts) != len(case.neighborhood_targets):
        counts = f"{len(case.neighborhood_targets)} for {len(case.neighborhood_prompts)} neighborhood prompts"
        raise RecordError(
            f"{counts}; the zsRE evaluator needs an answer to each (does the data set have another format?)",
            field="neighborhood_targets",
        )
    answer = case.request.target_new
    return {
        "rewrite_prompts": [(case.request.text, answer)],
        "paraphrase_prompts": [(prompt, answer) for prompt in case.paraphrase_prompts],
        "neighborhood_prompts": list(zip(case.neighborhood_prompts, case.neighborhood_targets, strict=True)),
    }


def expected_tokens(tokenizer: PreTrainedTokenizerBase, answer: Sequence[int]) -> list[int]:
    """For each answer token, the first token of its text when that is tokenized again (docs/method.md §5.6)."""
    return [(bare_ids(tokenizer, _text(tokenizer, [token])) or [token])[0] for token in answer]


def _altered(tokenizer: PreTrainedTokenizerBase, scored: TargetScore) -> Iterator[tuple[int, str]]:
    """Positions in the answer whose preceding answer tokens change when they are decoded and tokenized again.

    This happens after a part of a character, and where a prefix of the answer is tokenized differently from the whole.
    Such a position must be scored again after the decoded text, which is yielded with it.
    """
    for i in range(1, len(scored.token_ids)):
        before = list(scored.token_ids[:i])
        text = _text(tokenizer, before)
        if bare_ids(tokenizer, text) != before:
            yield i, text


def _text(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> str:
    return str(tokenizer.decode(ids, clean_up_tokenization_spaces=False))
