"""Knowledge Neurons (Dai et al. 2022) as the paper runs it: find the neurons that say the fact, rewrite their rows.

docs/method.md §4.2. The delta of a layer is rank one: the indicator of its chosen neurons times one vector of
embeddings that all rows share.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from romexp.editors.base import Edit, Resources
from romexp.editors.contexts import context_templates
from romexp.editors.kn.attribution import Attribution, attribute
from romexp.editors.kn.texts import FactTexts, attributed_texts, fact_texts
from romexp.errors import ConfigError, RecordError, with_errors_in_place, without_errors
from romexp.facts import EditRequest
from romexp.lm.apply_delta import weight_in_out
from romexp.lm.model import LanguageModel
from romexp.lm.weight_delta import LowRank, WeightDelta


@dataclass(frozen=True, kw_only=True)
class KnowledgeNeurons:
    """Hyper-parameters; those of the authors' file under their names (docs/method.md §4.2).

    A request in which no neuron has a positive score, or none is shared by enough prompts, gets an empty delta.

    Attributes:
        steps: points of the integrated gradients, from 0 to the neuron's own value, both included.
        adaptive_threshold: a prompt's coarse neurons have a score above this share of its highest in any layer.
        refine: keep the neurons found in more than `p` of the prompts, else those found in any. Has no effect on a
            single prompt, which is all that the authors' evaluation gives.
        p: that share.
        max_neurons: keep at most so many, those of the highest mean score; the paper's text has about 10, its code
            no limit.
        context_template_length_params: pairs (total tokens with the end-of-text token, count) of texts sampled to
            stand before the prompt, so that there are several prompts; empty is the bare prompt alone.
        context_templates: such texts themselves, or a JSON file with a list of them; None samples them.
        extend_prompt: attribute each further token of the ground truth after one more of the model's own tokens, as
            the code means to. Off is what it does for GPT-2: all tokens are scored behind the same prompt.
        leading_space: take the objects' tokens as they stand after the prompt. Off is the code: the bare words.
        prediction_factor: times the embedding of the model's own next token, subtracted from each row.
        target_factor: times the embedding of each token of the new target, added to each row. The code means 2, but
            for GPT-2 always takes the branch with 1.
        max_batch_tokens: copies of a token side by side in one pass; None takes what suits the device.
    """

    name: str = "KN"
    steps: int = 20
    adaptive_threshold: float = 0.2
    refine: bool = False
    p: float = 0.4
    max_neurons: int | None = None
    context_template_length_params: Sequence[Sequence[int]] = ()
    context_templates: Any = None
    extend_prompt: bool = False
    leading_space: bool = False
    prediction_factor: float = 2.0
    target_factor: float = 1.0
    max_batch_tokens: int | None = None

    def __post_init__(self) -> None:
        for field in ("adaptive_threshold", "p"):
            if not 0 <= getattr(self, field) < 1:
                raise ConfigError(f"editor.{field} must be at least 0 and below 1, got {getattr(self, field)}")
        for field in ("steps", "max_neurons", "max_batch_tokens"):
            value = getattr(self, field)
            if value is not None and value < 1:
                raise ConfigError(f"editor.{field} must be at least 1, got {value}")

    def __call__(
        self, lm: LanguageModel, requests: Sequence[EditRequest], *, resources: Resources
    ) -> list[Edit | RecordError]:
        """One delta a request, each computed as if it were alone.

        Returns:
            In the place of a request with an object or a prompt without tokens, or too long for the model, its error.

        Raises:
            ConfigError: the model's embeddings are not as wide as its MLPs' outputs, to which the method adds them.
        """
        embeddings = _embeddings(lm)
        templates = context_templates(
            lm,
            given=self.context_templates,
            length_counts=self.context_template_length_params,
            seed=resources.seed,
            cache_dir=resources.cache_dir,
        )
        facts = fact_texts(lm, requests, templates, leading_space=self.leading_space, extend_prompt=self.extend_prompt)
        good = without_errors(facts)
        texts = attributed_texts(lm, good, extend_prompt=self.extend_prompt)
        flat = [text for prompts in texts for parts in prompts for text in parts]
        found = iter(attribute(lm, flat, steps=self.steps, max_batch_tokens=self.max_batch_tokens))
        edits = []
        for fact, prompts in zip(good, texts, strict=True):
            attributions = [[next(found) for _ in parts] for parts in prompts]
            scores = torch.stack([torch.stack([a.scores for a in parts]).mean(dim=0) for parts in attributions])
            edits.append(self._edit(lm, fact, scores, attributions[0], embeddings))
        return with_errors_in_place(facts, edits)

    def _edit(
        self,
        lm: LanguageModel,
        fact: FactTexts,
        scores: torch.Tensor,
        bare: Sequence[Attribution],
        embeddings: torch.Tensor,
    ) -> Edit:
        """The delta of one request from its scores (prompts × layers × neurons)."""
        chosen = self.neurons(scores)
        prediction = bare[0].prediction
        added = embeddings[list(fact.target)].float().sum(dim=0) * self.target_factor
        vector = added - embeddings[prediction].float() * self.prediction_factor
        layers = [layer for layer in range(lm.n_layers) if chosen[layer].any()]
        terms = {
            f"{lm.architecture.mlp_out_name(layer)}.weight": LowRank(
                left=chosen[layer].to(vector)[:, None], right=vector[:, None]
            )
            for layer in layers
        }
        return Edit(
            delta=WeightDelta(terms=terms),
            diagnostics={
                "neurons": int(chosen.sum()),
                "neurons_by_layer": {str(layer): int(chosen[layer].sum()) for layer in layers},
                "highest_score": float(scores[0].max()),
                "truth_probability": sum(part.probability for part in bare) / len(bare),
                "prediction": lm.tokenizer.decode([prediction]),
                "vector_norm": float(vector.norm()),
            },
        )

    def neurons(self, scores: torch.Tensor) -> torch.Tensor:
        """Which neurons are edited, (layers × neurons) bool, from scores (prompts × layers × neurons)."""
        highest = scores.amax(dim=(1, 2), keepdim=True)
        prompts = (scores > self.adaptive_threshold * highest).sum(dim=0)
        chosen = prompts > (self.p * len(scores) if self.refine else 0)
        if self.max_neurons is not None and int(chosen.sum()) > self.max_neurons:
            mean = scores.mean(dim=0).masked_fill(~chosen, -torch.inf)
            best = mean.flatten().topk(self.max_neurons).indices
            chosen = torch.zeros_like(chosen).flatten().index_fill(0, best, True).view_as(chosen)
        return chosen


def _embeddings(lm: LanguageModel) -> torch.Tensor:
    """Token embeddings (vocabulary × width).

    Raises:
        ConfigError: they have another width than the MLPs' outputs.
    """
    weight = lm.parameter(f"{lm.architecture.embedding}.weight").detach()
    rows = weight_in_out(lm, f"{lm.architecture.mlp_out_name(0)}.weight").shape[1]
    if weight.shape[1] != rows:
        raise ConfigError(
            f"editor {KnowledgeNeurons.__name__} adds token embeddings to rows of the MLP, but those of {lm.name!r} "
            f"are {weight.shape[1]} wide and its MLPs' outputs {rows}"
        )
    return weight
