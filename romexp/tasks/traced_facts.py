"""Traces known facts: prepares their prompts, finds their partners, and makes a row of each."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from romexp.data.known import KnownFacts
from romexp.errors import ConfigError, DataError, RecordError, with_errors_in_place
from romexp.facts import KnownFact
from romexp.lm.model import LanguageModel
from romexp.results.rows import Row
from romexp.seeds import derive_seed
from romexp.tracing.completion import Tokens, completions
from romexp.tracing.gradients import integrated_gradients
from romexp.tracing.noise import Noise
from romexp.tracing.partners import find_partners, sentence_partner
from romexp.tracing.prompt import TracedPrompt, prepare_prompts
from romexp.tracing.rows import to_row
from romexp.tracing.tracer import Tracer


@dataclass(frozen=True, kw_only=True, eq=False)
class FactTracer:
    """Traces facts with one setting.

    Attributes:
        noise: None where another subject takes the place of the subject.
        pool: the facts from which such subjects are taken.
        partner: that subject, if the user names it.
        gradients: number of points of the integrated gradients; 0 leaves them out.
        seed: the run's seed.
    """

    tracer: Tracer
    noise: Noise | None
    pool: Sequence[KnownFact] = ()
    partner: str | None = None
    gradients: int = 0
    seed: int = 0

    def __call__(self, lm: LanguageModel, facts: Sequence[KnownFact]) -> list[Row | RecordError]:
        """One row for each fact, in order, or in its place the error because of which it cannot be traced."""
        texts, subjects, templates = zip(*((f.prompt, f.subject, f.template) for f in facts), strict=True)
        prepared = prepare_prompts(lm, texts, subjects, templates=templates)
        good = [(f, p) for f, p in zip(facts, prepared, strict=True) if isinstance(p, TracedPrompt)]
        said = completions(lm, [p for _, p in good], [f.attribute for f, _ in good])
        known = [(f, p, tokens) for (f, p), tokens in zip(good, said, strict=True) if tokens is not None]
        rows = {f.known_id: row for (f, *_), row in zip(known, self._known_rows(lm, known), strict=True)}
        for fact, prompt in good:
            if fact.known_id not in rows:
                rows[fact.known_id] = to_row(lm, fact, prompt, None, None, setting=self.tracer.setting)
        return with_errors_in_place(prepared, [rows[fact.known_id] for fact, _ in good])  # type: ignore[arg-type]

    def _known_rows(
        self, lm: LanguageModel, known: Sequence[tuple[KnownFact, TracedPrompt, Tokens]]
    ) -> list[Row | RecordError]:
        """The rows of facts that the model completes correctly; a fact without a partner has an error instead."""
        ready = self._with_partners(lm, [f for f, *_ in known], [p for _, p, _ in known])
        kept = [(f, p, said) for (f, _, said), p in zip(known, ready, strict=True) if isinstance(p, TracedPrompt)]
        prompts = [p for _, p, _ in kept]
        seeds = [derive_seed(self.seed, fact.known_id, "corruption") for fact, *_ in kept]
        traces = self.tracer(lm, prompts, noise=self.noise, seeds=seeds)
        gradients: Sequence[list[float] | None] = [None] * len(prompts)
        if self.gradients:
            tokens = self.tracer.batch_tokens(lm)
            gradients = integrated_gradients(lm, prompts, steps=self.gradients, max_batch_tokens=tokens)
        rows: list[Row] = [
            to_row(lm, fact, prompt, trace, gradient, completion=said, setting=self.tracer.setting)
            for (fact, prompt, said), trace, gradient in zip(kept, traces, gradients, strict=True)
        ]
        return with_errors_in_place(ready, rows)

    def _with_partners(
        self, lm: LanguageModel, facts: Sequence[KnownFact], prompts: Sequence[TracedPrompt]
    ) -> Sequence[TracedPrompt | RecordError]:
        """The prompts with the subjects that take the place of their own, if that is the corruption."""
        if self.tracer.corruption == "noise":
            return prompts
        if self.partner is not None:
            return [sentence_partner(lm, prompt, self.partner) for prompt in prompts]
        return find_partners(lm, facts, prompts, pool=self.pool, seed=self.seed)


def subjects_of(dataset: object) -> Iterable[str]:
    """The subjects over which σ of the noise is measured.

    Raises:
        ConfigError: the data set holds no known facts.
    """
    if not isinstance(dataset, KnownFacts):
        raise ConfigError(f"dataset: traces need known facts (dataset=known), not {getattr(dataset, 'name', dataset)}")
    return dataset.subjects()


def check_traceable(lm: LanguageModel, fact: KnownFact, *, partner: str | None) -> None:
    """Make sure that the user's own sentence can be traced, before there is a result folder that names it.

    Raises:
        DataError: the subject does not occur in the prompt, the prompt is longer than the model's context, or the
            partner cannot take the subject's place.
    """
    (prepared,) = prepare_prompts(lm, [fact.prompt], [fact.subject])
    if isinstance(prepared, RecordError):
        raise DataError(f"task.prompt: {prepared.reason}")
    if partner is not None:
        sentence_partner(lm, prepared, partner)
