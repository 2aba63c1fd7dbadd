"""What is traced: a prompt, its subject's tokens, and the token the model predicts (SPEC §2.2)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from romexp.errors import RecordError
from romexp.lm.batching import by_length, halving
from romexp.lm.forward import Row, check_length, logits, make_pass, run
from romexp.lm.model import LanguageModel
from romexp.lm.scoring import batch_tokens
from romexp.lm.tokens import encode, find_subject, subject_range


@dataclass(frozen=True, kw_only=True)
class TracedPrompt:
    """One prompt, ready to trace.

    Attributes:
        subject_range: tokens [b, e) of the subject.
        answer: id of the model's arg-max next token.
        high_score: its probability in the clean run.
    """

    prompt: str
    subject: str
    ids: tuple[int, ...]
    subject_range: tuple[int, int]
    answer: int
    high_score: float

    def tokens(self, lm: LanguageModel) -> list[str]:
        """Each token as text."""
        return [str(lm.tokenizer.decode([i])) for i in self.ids]

    def answer_text(self, lm: LanguageModel) -> str:
        return str(lm.tokenizer.decode([self.answer]))


@torch.no_grad()
def prepare_prompts(
    lm: LanguageModel, prompts: Sequence[str], subjects: Sequence[str]
) -> list[TracedPrompt | RecordError]:
    """Find the subjects and run the prompts clean. A prompt that cannot be traced gives its error in its place."""
    encodings = encode(lm.tokenizer, prompts)
    spans: dict[int, tuple[int, int]] = {}
    out: dict[int, TracedPrompt | RecordError] = {}
    for i, (encoding, subject) in enumerate(zip(encodings, subjects, strict=True)):
        try:
            check_length(lm, len(encoding))
            spans[i] = subject_range(encoding, find_subject(encoding.text, subject), subject)
        except RecordError as error:
            out[i] = error.at(i)

    def work(batch: Sequence[int]) -> list[None]:
        rows = [Row.text(encodings[i].ids) for i in batch]
        final = run(lm, make_pass(lm, rows))
        last = final[torch.arange(len(rows), device=final.device), [len(row) - 1 for row in rows]]
        best = logits(lm, last).softmax(dim=-1).max(dim=-1)
        for i, answer, probability in zip(batch, best.indices.tolist(), best.values.tolist(), strict=True):
            out[i] = TracedPrompt(
                prompt=prompts[i],
                subject=subjects[i],
                ids=encodings[i].ids,
                subject_range=spans[i],
                answer=answer,
                high_score=probability,
            )
        return []

    places = sorted(spans)
    for group in by_length([len(encodings[i]) for i in places], max_tokens=batch_tokens(lm)):
        halving(work, [places[i] for i in group])
    return [out[i] for i in range(len(prompts))]
