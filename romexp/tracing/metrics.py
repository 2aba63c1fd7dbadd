"""What a trace reads at the last token: how much the model still says the answer (docs/method.md §2.8)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch

from romexp.errors import ConfigError
from romexp.lm.forward import logits
from romexp.lm.model import LanguageModel
from romexp.lm.scoring import LOGIT_CHUNK
from romexp.tracing.prompt import TracedPrompt

MetricName = Literal["probability", "log_probability", "logit_difference", "kl"]
METRICS: tuple[MetricName, ...] = get_args(MetricName)


@dataclass(frozen=True, kw_only=True, eq=False)
class Metric:
    """One number for each final state of a batch of prompts.

    Attributes:
        name: `probability`: p(answer); `log_probability`: its natural logarithm; `logit_difference`: the logit of the
            answer minus that of the foil; `kl`: Σ p_clean log(p_clean / p) in nats, which is 0 for the clean run.
        answers: the answers' ids (prompts) int64.
        foils: the foils' ids (prompts) int64; None for metrics without a foil.
        clean: log probabilities of the clean run (prompts × vocabulary); None for metrics that do not compare with it.
    """

    name: MetricName
    answers: torch.Tensor
    foils: torch.Tensor | None = None
    clean: torch.Tensor | None = None

    def of_states(self, lm: LanguageModel, states: torch.Tensor, prompt: torch.Tensor) -> torch.Tensor:
        """The metric of each state, differentiable (rows).

        Args:
            states: states of last tokens after the final norm (rows × hidden size).
            prompt: the place of each row's prompt in the batch (rows) int64.
        """
        chunks = zip(states.split(LOGIT_CHUNK), prompt.split(LOGIT_CHUNK), strict=True)
        return torch.cat([self._of_logits(logits(lm, chunk), which) for chunk, which in chunks])

    def mean(self, lm: LanguageModel, states: torch.Tensor, prompts: Sequence[int], *, samples: int) -> torch.Tensor:
        """The metric, averaged over samples (prompts).

        Args:
            states: as in `of_states`; the samples of a prompt are adjacent rows.
            prompts: the places of the prompts in the batch.
        """
        which = torch.tensor(list(prompts), device=states.device).repeat_interleave(samples)
        return self.of_states(lm, states, which).reshape(len(prompts), samples).mean(dim=1)

    def _of_logits(self, scores: torch.Tensor, prompt: torch.Tensor) -> torch.Tensor:
        if self.clean is not None:
            clean = self.clean[prompt]
            return (clean.exp() * (clean - scores.log_softmax(dim=-1))).sum(dim=-1)
        answer = scores.gather(1, self.answers[prompt][:, None])[:, 0]
        if self.foils is not None:
            return answer - scores.gather(1, self.foils[prompt][:, None])[:, 0]
        log_probability = answer - scores.logsumexp(dim=-1)
        return log_probability if self.name == "log_probability" else log_probability.exp()


@torch.no_grad()
def make_metric(lm: LanguageModel, name: MetricName, prompts: Sequence[TracedPrompt], last: torch.Tensor) -> Metric:
    """The metric of a batch of prompts.

    Args:
        last: the clean run's states of the last tokens after the final norm (prompts × hidden size).

    Raises:
        ConfigError: the metric compares with a foil, and a prompt has none.
    """
    answers = torch.tensor([p.answer for p in prompts], device=last.device)
    if name == "kl":
        return Metric(name=name, answers=answers, clean=logits(lm, last).log_softmax(dim=-1))
    if name == "logit_difference":
        foils = [p.partner.foil for p in prompts if p.partner is not None]
        if len(foils) < len(prompts):
            raise ConfigError("tracer.metric=logit_difference compares with a foil: it needs tracer.corruption=str")
        return Metric(name=name, answers=answers, foils=torch.tensor(foils, device=last.device))
    return Metric(name=name, answers=answers)
