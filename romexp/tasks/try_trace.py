"""A causal trace of one prompt in a conversation, kind by kind, so that something is seen while it runs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any

from romexp.data.facts_file import FactsFile
from romexp.errors import ConfigError, raise_first_error
from romexp.facts import KnownFact
from romexp.lm.model import LanguageModel
from romexp.tracing.noise import NoiseTexts, make_noise
from romexp.tracing.prompt import prepare_prompts
from romexp.tracing.rows import to_row
from romexp.tracing.tracer import Tracer


@dataclass(frozen=True, kw_only=True)
class PromptTracer:
    """Traces single prompts.

    Attributes:
        tracer: the settings; severed paths are left out.
        facts: the facts whose subjects' embeddings give σ of the noise.
        corpus: texts for `m` and `t…` noise.
    """

    tracer: Tracer
    facts: FactsFile
    corpus: NoiseTexts

    def __call__(self, lm: LanguageModel, prompt: str, subject: str) -> Iterator[dict[str, Any]]:
        """Yield the trace's row (docs/method.md §11.2) once a kind of states is traced, with all kinds so far.

        Raises:
            ConfigError: the corruption puts another subject in, and a conversation names none.
            RecordError: the subject is not in the prompt, or the prompt is too long for the model.
        """
        if self.tracer.corruption == "str":
            raise ConfigError(":trace corrupts by noise; for tracer.corruption=str use task=trace with task.partner")
        fact = KnownFact(known_id=0, subject=subject, attribute="", prompt=prompt)
        (prepared,) = raise_first_error(prepare_prompts(lm, [prompt], [subject]))
        subjects = (case.request.subject for case in self.facts.load().items)
        noise = make_noise(lm, self.tracer.noise, subjects=subjects, corpus=self.corpus.texts())
        row: dict[str, Any] = {}
        for kind in self.tracer.kinds:
            (found,) = replace(self.tracer, kinds=(kind,), severed=False)(lm, [prepared], noise=noise, seeds=[1])
            row |= to_row(lm, fact, prepared, found, None, setting=self.tracer.setting)
            yield row
