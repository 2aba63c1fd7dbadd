"""Traces the parts of known facts' computations that `tracer.nodes` names, and makes a row of each fact."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from romexp.errors import RecordError, result_or_error, with_errors_in_place
from romexp.facts import KnownFact
from romexp.lm.model import LanguageModel
from romexp.results.rows import Row
from romexp.seeds import derive_seed
from romexp.tasks.traced_facts import FactTracer
from romexp.tracing.completion import Tokens
from romexp.tracing.heads import head_paths, trace_heads
from romexp.tracing.lens import logit_lens
from romexp.tracing.neurons import neuron_paths, trace_neurons
from romexp.tracing.prompt import TracedPrompt
from romexp.tracing.rows import to_row
from romexp.tracing.run_pair import run_pair
from romexp.tracing.tracer import Trace


@dataclass(frozen=True, kw_only=True, eq=False)
class NodeTracer(FactTracer):
    """Traces heads or neurons of facts, or looks through the logit lens."""

    def _known_rows(
        self, lm: LanguageModel, known: Sequence[tuple[KnownFact, TracedPrompt, Tokens]]
    ) -> list[Row | RecordError]:
        prompts: Sequence[TracedPrompt | RecordError] = [prompt for _, prompt, _ in known]
        if self.tracer.nodes != "lens":
            prompts = self._with_partners(lm, [fact for fact, *_ in known], [prompt for _, prompt, _ in known])
        ready = [(fact, p, said) for (fact, _, said), p in zip(known, prompts, strict=True)]
        rows = [
            result_or_error(lambda f=fact, p=p, said=said: self._row(lm, f, p, said))  # type: ignore[misc]
            for fact, p, said in ready
            if isinstance(p, TracedPrompt)
        ]
        return with_errors_in_place(prompts, rows)  # type: ignore[arg-type]

    def _row(self, lm: LanguageModel, fact: KnownFact, prompt: TracedPrompt, said: Tokens) -> Row:
        tracer = self.tracer
        high, low, found = prompt.high_score, None, dict[str, Any]()
        if tracer.nodes == "lens":
            found = logit_lens(lm, prompt)
        else:
            paths = head_paths(lm) if tracer.nodes == "heads" else neuron_paths(lm)
            seed = derive_seed(self.seed, fact.known_id, "corruption")
            pair = run_pair(tracer, lm, prompt, paths, noise=self.noise, seed=seed)
            high, low = pair.high, pair.low
            found = trace_heads(tracer, pair) if tracer.nodes == "heads" else trace_neurons(tracer, pair)
        trace = Trace(prompt=prompt, high_score=high, low_score=high if low is None else low)
        row = to_row(lm, fact, prompt, trace, None, completion=said, setting=tracer.setting)
        return row | {"nodes": tracer.nodes, **found}
