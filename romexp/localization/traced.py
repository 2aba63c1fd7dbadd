"""What tracing says of facts: which of them the model knows, how much each layer restores, and what the model says
where the subject is noised (docs/method.md §14.1).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from romexp.analysis.fraction_restored import fractions
from romexp.errors import RecordError, result_or_error
from romexp.facts import Case, KnownFact
from romexp.lm.forward import Row, logits, make_inputs, run_blocks
from romexp.lm.hooks import patch
from romexp.lm.model import LanguageModel
from romexp.localization.noised_subject import Noises, subject_noises
from romexp.localization.objectives import check_case
from romexp.seeds import derive_seed
from romexp.tracing.completion import completions
from romexp.tracing.corruption import corrupt
from romexp.tracing.noise import Noise
from romexp.tracing.prompt import TracedPrompt, prepare_prompts
from romexp.tracing.rows import to_row
from romexp.tracing.tracer import Tracer


@dataclass(frozen=True, kw_only=True, eq=False)
class TracedCase:
    """A fact with its trace.

    Attributes:
        known: whether the model completes it with the true answer. If not, the other attributes are empty.
        about: what a row says of the trace, JSON-ready: scores of the clean and the corrupted run, and by layer the
            fraction restored.
        noised_answer: the most likely next token with a noised subject.
        noises: the noise of the subject.
    """

    case: Case
    known: bool
    about: Mapping[str, Any]
    noised_answer: str = ""
    noises: Noises | None = None


def known_fact(case: Case) -> KnownFact:
    """The fact of a case, as tracing wants it."""
    request = case.request
    return KnownFact(
        known_id=case.case_id,
        subject=request.subject,
        attribute=request.target_true,
        prompt=request.text,
        template=request.prompt,
        relation_id=request.relation_id,
    )


@dataclass(frozen=True, kw_only=True, eq=False)
class CaseTracer:
    """Traces the facts of cases.

    Attributes:
        tracer: with one kind of state; its corruption is noise.
        noise: made for the whole data set.
        seed: the run's seed.
        earlier: rows of a trace with the same settings, by prompt and subject, which are not made again.
    """

    tracer: Tracer
    noise: Noise
    seed: int
    earlier: Mapping[tuple[str, str], Mapping[str, Any]]

    def __call__(self, lm: LanguageModel, cases: Sequence[Case]) -> list[TracedCase | RecordError]:
        """The trace of each case, in order; or the error because of which it has none."""
        facts = [known_fact(case) for case in cases]
        checked = [result_or_error(lambda case=case: check_case(case)) for case in cases]  # type: ignore[misc]
        prepared = prepare_prompts(
            lm, [f.prompt for f in facts], [f.subject for f in facts], templates=[f.template for f in facts]
        )
        found = [
            fault if isinstance(fault, RecordError) else prompt for fault, prompt in zip(checked, prepared, strict=True)
        ]
        good = [i for i, prompt in enumerate(found) if isinstance(prompt, TracedPrompt)]
        prompts: list[TracedPrompt] = [found[i] for i in good]  # type: ignore[misc]
        said = completions(lm, prompts, [facts[i].attribute for i in good])
        known = [(i, prompt) for i, prompt, tokens in zip(good, prompts, said, strict=True) if tokens is not None]
        traced = self._traced(lm, [cases[i] for i, _ in known], [prompt for _, prompt in known])
        by_place = dict(zip((i for i, _ in known), traced, strict=True))
        return [
            prompt
            if isinstance(prompt, RecordError)
            else by_place.get(i, TracedCase(case=cases[i], known=False, about={"high_score": prompt.high_score}))
            for i, prompt in enumerate(found)
        ]

    def _traced(
        self, lm: LanguageModel, cases: Sequence[Case], prompts: Sequence[TracedPrompt]
    ) -> list[TracedCase | RecordError]:
        rows = [self.earlier.get((prompt.prompt, prompt.subject)) for prompt in prompts]
        missing = [i for i, row in enumerate(rows) if row is None]
        seeds = [derive_seed(self.seed, case.case_id, "corruption") for case in cases]
        traces = self.tracer(lm, [prompts[i] for i in missing], noise=self.noise, seeds=[seeds[i] for i in missing])
        for i, trace in zip(missing, traces, strict=True):
            rows[i] = to_row(lm, known_fact(cases[i]), prompts[i], trace, None)
        (kind,) = self.tracer.kinds

        def one(i: int) -> TracedCase:
            seed = seeds[i] if self.tracer.seed_per_case else 1
            noises = subject_noises(lm, prompts[i], self.noise, samples=self.tracer.samples, seed=seed)
            return TracedCase(
                case=cases[i],
                known=True,
                about=fractions(rows[i] or {}, kind=kind),
                noised_answer=_noised_answer(lm, prompts[i], noises),
                noises=noises,
            )

        return [result_or_error(lambda i=i: one(i)) for i in range(len(cases))]  # type: ignore[misc]


@torch.no_grad()
def _noised_answer(lm: LanguageModel, prompt: TracedPrompt, noises: Noises) -> str:
    """The next token that is most likely on average over the noised copies of a prompt."""
    begin, end = prompt.subject_range
    noise = noises[prompt.ids[begin:end]]
    change = corrupt([prompt], [noise], samples=len(noise), extra_token=0, replace=False)
    with patch(lm, {lm.architecture.embedding: change}):
        final = run_blocks(lm, make_inputs(lm, [Row.text(prompt.ids)] * len(noise)))
    best = logits(lm, final[:, -1]).softmax(dim=-1).mean(dim=0).argmax()
    return str(lm.tokenizer.decode([int(best)]))
