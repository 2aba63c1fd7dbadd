"""zsRE's measurements: teacher-forced next-token accuracy (docs/method.md §5.6)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial

from transformers import PreTrainedTokenizerBase

from romexp.errors import RecordError, raise_first_error, result_or_error, with_errors_in_place, without_errors
from romexp.evaluation.generation import References
from romexp.facts import Case, Measurements
from romexp.lm.model import LanguageModel
from romexp.lm.scoring import Query, TargetScore, score
from romexp.lm.weight_delta import WeightDelta

Question = tuple[str, str]
"""A complete prompt and the answer expected after it (no leading space)."""


@dataclass(frozen=True, kw_only=True)
class ZsreEvaluator:
    """The paper's zsRE protocol (config group `evaluator`).

    A prompt with answer tokens y_1…y_m gives m booleans: i is right iff the arg-max after prompt + decode(y_<i) is the
    first token of decode(y_i) tokenized again. Cases have `rewrite_prompts_correct`, `paraphrase_prompts_correct` and
    `neighborhood_prompts_correct`, each one flat list over prompts and tokens. A case's `neighborhood_prompts` are
    whole questions and its `neighborhood_targets` whole answers; they are spelt out token by token here
    (docs/method.md §1.2).

    The decoding and tokenizing again is the reference's: a token that is a part of a character can never be right.
    Where tokenizing a piece of a word would put a word mark before it (SentencePiece models, which the paper does not
    use), the token y_i itself is expected instead, or no word's second piece could ever be right.

    Attributes:
        max_batch_tokens: size of a scoring batch, padding included; None takes what suits the device.
    """

    max_batch_tokens: int | None = None

    @property
    def needs_references(self) -> bool:
        """zsRE has no generations."""
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
        """See `romexp.evaluation.base.Evaluator`; nothing here is random, and `references` are not looked at."""
        questions = [result_or_error(partial(questions_of, case)) for case in cases]
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
        return with_errors_in_place(questions, [result_or_error(partial(_measurements, own)) for own in by_case])

    def _correct(
        self, lm: LanguageModel, asked: Sequence[tuple[Question, WeightDelta | None]]
    ) -> list[list[bool] | RecordError]:
        """For each question, under its edit, one boolean an answer token."""
        queries = [Query(prompt=prompt, targets=(answer,)) for (prompt, answer), _ in asked]
        answered = self._score(lm, queries, [delta for _, delta in asked])
        scores = {row: targets[0] for row, targets in enumerate(answered) if not isinstance(targets, RecordError)}
        predictions = {row: list(score.predictions) for row, score in scores.items()}
        spelt_again = not adds_word_marks(lm.tokenizer)
        if spelt_again:
            altered = [(row, i, text) for row, s in scores.items() for i, text in _altered(lm.tokenizer, s)]
            again = [replace(queries[row], prompt=queries[row].prompt + text) for row, _, text in altered]
            repeated = raise_first_error(self._score(lm, again, [asked[row][1] for row, _, _ in altered]))
            for (row, i, _), (s,) in zip(altered, repeated, strict=True):
                predictions[row][i] = s.predictions[0]
        right = []
        for row, s in scores.items():
            expected = expected_tokens(lm.tokenizer, s.token_ids) if spelt_again else s.token_ids
            right.append([a == b for a, b in zip(predictions[row], expected, strict=True)])
        return with_errors_in_place(answered, right)

    def _score(
        self, lm: LanguageModel, queries: Sequence[Query], deltas: Sequence[WeightDelta | None]
    ) -> list[tuple[TargetScore, ...] | RecordError]:
        return score(lm, queries, deltas=deltas, max_batch_tokens=self.max_batch_tokens) if queries else []


def _measurements(correct: Mapping[str, Sequence[list[bool] | RecordError]]) -> Measurements:
    """Raises: RecordError: a question could not be scored."""
    return {
        f"{kind}_correct": [right for own in raise_first_error(group) for right in own]
        for kind, group in correct.items()
    }


def questions_of(case: Case) -> dict[str, list[Question]]:
    """Prompts with the answers expected after them, by kind.

    Raises:
        RecordError: neighbourhood prompts and targets do not pair up (a CounterFact case has no such targets).
    """
    if len(case.neighborhood_prompts) != len(case.neighborhood_targets):
        counts = f"{len(case.neighborhood_targets)} for {len(case.neighborhood_prompts)} neighborhood prompts"
        raise RecordError(
            f"{counts}; zsRE's evaluator needs an answer to each (is this another kind of data set?)",
            field="neighborhood_targets",
        )
    answer = case.request.target_new
    return {
        "rewrite_prompts": [(case.request.text, answer)],
        "paraphrase_prompts": [(prompt, answer) for prompt in case.paraphrase_prompts],
        "neighborhood_prompts": list(zip(case.neighborhood_prompts, case.neighborhood_targets, strict=True)),
    }


def adds_word_marks(tokenizer: PreTrainedTokenizerBase) -> bool:
    """Whether the tokenizer puts a word mark before any text it is given, as SentencePiece's do."""
    return "▁" in "".join(tokenizer.tokenize("a"))


def expected_tokens(tokenizer: PreTrainedTokenizerBase, answer: Sequence[int]) -> list[int]:
    """First token of each answer token's text tokenized again (docs/method.md §5.6)."""
    return [(_tokenized(tokenizer, _text(tokenizer, [token])) or [token])[0] for token in answer]


def _altered(tokenizer: PreTrainedTokenizerBase, scored: TargetScore) -> Iterator[tuple[int, str]]:
    """Token positions whose context, decoded and tokenized again, is not the one that was scored; with its text.

    This happens after a part of a character, and where the cut answer has another tokenization than the whole one.
    """
    for i in range(1, len(scored.token_ids)):
        before = list(scored.token_ids[:i])
        text = _text(tokenizer, before)
        if _tokenized(tokenizer, text) != before:
            yield i, text


def _text(tokenizer: PreTrainedTokenizerBase, ids: list[int]) -> str:
    return str(tokenizer.decode(ids, clean_up_tokenization_spaces=False))


def _tokenized(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return tokenizer(text, add_special_tokens=False)["input_ids"]
