"""A prompt to trace, with its subject's tokens and the token that the model predicts (docs/method.md §2.1, §2.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial

import torch

from romexp.errors import RecordError, result_or_error, with_errors_in_place
from romexp.lm.batching import batched
from romexp.lm.forward import Row, check_known, check_length, logits, make_inputs, run_blocks
from romexp.lm.model import LanguageModel
from romexp.lm.scoring import batch_tokens
from romexp.lm.tokens import encode, subject_range
from romexp.subjects import find_subject


@dataclass(frozen=True, kw_only=True)
class Partner:
    """Another subject, which symmetric token replacement puts in the place of a prompt's own (docs/method.md §2.8).

    Attributes:
        ids: the tokens that take the place of the subject's, equally many.
        foil: first token of the answer that is right for this subject.
    """

    subject: str
    ids: tuple[int, ...]
    foil: int


@dataclass(frozen=True, kw_only=True)
class TracedPrompt:
    """One prompt with its subject and the result of its clean run.

    Attributes:
        ids: token ids.
        subject_range: tokens [b, e) of the subject.
        answer: id of the most likely next token.
        high_score: probability of the answer in the clean run.
        partner: the subject that can replace its own; None if none was looked for.
    """

    prompt: str
    subject: str
    ids: tuple[int, ...]
    subject_range: tuple[int, int]
    answer: int
    high_score: float
    partner: Partner | None = None

    def tokens(self, lm: LanguageModel) -> list[str]:
        """The text of each token."""
        return [str(lm.tokenizer.decode([i])) for i in self.ids]

    def answer_text(self, lm: LanguageModel) -> str:
        return str(lm.tokenizer.decode([self.answer]))


@torch.no_grad()
def prepare_prompts(
    lm: LanguageModel, prompts: Sequence[str], subjects: Sequence[str], *, templates: Sequence[str] | None = None
) -> list[TracedPrompt | RecordError]:
    """Find the subjects in the prompts, and run the prompts without corruption.

    Args:
        templates: for each prompt the template that says where its subject stands, or an empty text (see
            `romexp.subjects.find_subject`); None has no templates.

    Returns:
        For each prompt a `TracedPrompt`; or a `RecordError` if its subject is not found or it is longer than the
        model's context.
    """
    encodings = encode(lm.tokenizer, prompts)

    def span(i: int) -> tuple[int, int]:
        check_length(lm, len(encodings[i]))
        check_known(lm, encodings[i].ids)
        place = find_subject(prompts[i], subjects[i], templates[i] if templates else "")
        return subject_range(encodings[i], place, subjects[i].strip())

    spans = [result_or_error(partial(span, i)) for i in range(len(prompts))]

    def work(batch: Sequence[int]) -> list[TracedPrompt]:
        rows = [Row.text(encodings[i].ids) for i in batch]
        final = run_blocks(lm, make_inputs(lm, rows))
        last = final[torch.arange(len(rows), device=final.device), [len(row) - 1 for row in rows]]
        best = logits(lm, last).softmax(dim=-1).max(dim=-1)
        return [
            TracedPrompt(
                prompt=prompts[i],
                subject=subjects[i],
                ids=encodings[i].ids,
                subject_range=span(i),
                answer=answer,
                high_score=probability,
            )
            for i, answer, probability in zip(batch, best.indices.tolist(), best.values.tolist(), strict=True)
        ]

    good = [i for i, found in enumerate(spans) if not isinstance(found, RecordError)]
    prepared = batched(work, good, [len(encodings[i]) for i in good], max_tokens=batch_tokens(lm))
    return with_errors_in_place(spans, prepared)
