"""Knowledge Neurons (Dai et al. 2022) as in the paper's baseline: find the neurons that express the fact, and change
their rows of the MLP's second matrix (docs/method.md §4.2; paper App. E).

All rows get the same vector, so the delta of a layer has rank one: the indicator of the chosen neurons times this
vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch

from romexp.bounds import check_bounds
from romexp.editors.base import Edit, Resources
from romexp.editors.contexts import templates_of
from romexp.editors.filters import Filter, check_filter, filtered_edits
from romexp.editors.kn.attribution import Attribution, attribute
from romexp.editors.kn.texts import FactTexts, attributed_texts, fact_texts
from romexp.errors import ConfigError, RecordError, with_errors_in_place, without_errors
from romexp.facts import EditRequest
from romexp.lm.apply_delta import weight_in_out
from romexp.lm.model import LanguageModel
from romexp.lm.weight_delta import LowRank, WeightDelta


@dataclass(frozen=True, kw_only=True)
class KnowledgeNeurons:
    """Knowledge Neurons. Hyper-parameters have the names of the authors' file where it has them (docs/method.md §4.2).

    A request gets an empty delta if no neuron has a positive score, or if no neuron is found in enough prompts.

    Attributes:
        name: label in tables.
        steps: number of points of the integrated gradients, from 0 to the neuron's value, both included.
        adaptive_threshold: a neuron is found in a prompt if its score exceeds this share of the prompt's highest score
            in any layer.
        refine: choose the neurons found in more than a share `p` of the prompts. If false, choose those found in any
            prompt. It has no effect with a single prompt, as in the authors' evaluation.
        p: the share for `refine`.
        max_neurons: choose at most this many neurons, those of highest mean score; None sets no limit. The paper's text
            has about 10, its code no limit.
        context_template_length_params: pairs (total tokens with the end-of-text token, count) of texts to sample. They
            stand before the prompt and give further prompts. Empty: the bare prompt alone.
        context_templates: the context templates, or a JSON file with a list of them; None samples them.
        extend_prompt: before each further token of the true object, extend the prompt by one more token that the model
            predicts, as the authors' code is meant to do. If false, all tokens are scored after the same prompt, which
            is what their code does for GPT-2.
        leading_space: take the objects' tokens with a space before the word. If false, take those of the bare word, as
            in the authors' code.
        prediction_factor: factor of the embedding of the model's own next token, which is subtracted from each row.
        target_factor: factor of the embeddings of the new target's tokens, which are added to each row. The authors'
            code also has a factor of 2, but in a branch that GPT-2 never takes.
        max_batch_tokens: largest number of scaled copies of a token in one pass; None chooses by device.
        filter: `rect` or `prune` holds the edit back (`romexp.editors.filters`); None does not.

    Raises:
        ConfigError: a setting is outside its range.
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
    filter: Filter | None = None

    def __post_init__(self) -> None:
        check_filter(self.filter)
        for field in ("adaptive_threshold", "p"):
            if not 0 <= getattr(self, field) < 1:
                raise ConfigError(f"editor.{field} must be at least 0 and below 1, got {getattr(self, field)}")
        for field in ("steps", "max_neurons", "max_batch_tokens"):
            value = getattr(self, field)
            if value is not None and value < 1:
                raise ConfigError(f"editor.{field} must be at least 1, got {value}")
        check_bounds(self, "editor", finite=("prediction_factor", "target_factor"))

    def __call__(
        self, lm: LanguageModel, requests: Sequence[EditRequest], *, resources: Resources
    ) -> list[Edit | RecordError]:
        """Compute one delta for each request, independently of the other requests.

        Returns:
            For each request its edit; or a `RecordError` if its prompt or one of its objects has no token, or the text
            is too long for the model.

        Raises:
            ConfigError: the model's embeddings and its MLPs' outputs have different widths, so the method cannot add
                one to the other; or its MLPs' first matrix does not give one number for each neuron.
        """
        embeddings = _embeddings(lm)
        _check_neurons(lm)
        templates = templates_of(self, lm, resources)
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
        return filtered_edits(lm, with_errors_in_place(facts, edits), self.filter)

    def prepared(self, lm: LanguageModel, *, resources: Resources) -> KnowledgeNeurons:
        """This editor with its contexts (`romexp.editors.sequence.PreparedEditor`)."""
        return replace(self, context_templates=list(templates_of(self, lm, resources)))

    def _edit(
        self,
        lm: LanguageModel,
        fact: FactTexts,
        scores: torch.Tensor,
        bare: Sequence[Attribution],
        embeddings: torch.Tensor,
    ) -> Edit:
        """The edit of one request.

        Args:
            scores: (prompts × layers × neurons), the bare prompt first.
            bare: attributions of the bare prompt; with `extend_prompt` one per token of the true object.
            embeddings: token embeddings (vocabulary × width).
        """
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
        """Choose the neurons to edit: scores (prompts × layers × neurons) → bool (layers × neurons)."""
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
        ConfigError: their width is not that of the MLPs' outputs.
    """
    weight = lm.parameter(f"{lm.architecture.embedding}.weight").detach()
    rows = weight_in_out(lm, f"{lm.architecture.mlp_out_name(0)}.weight").shape[1]
    if weight.shape[1] != rows:
        raise ConfigError(
            f"editor {KnowledgeNeurons.__name__} adds token embeddings to rows of the MLP, but those of {lm.name!r} "
            f"are {weight.shape[1]} wide and its MLPs' outputs {rows}"
        )
    return weight


def _check_neurons(lm: LanguageModel) -> None:
    """Check that the first matrix of an MLP gives one number for each row of the second.

    Raises:
        ConfigError: it does not, as in Phi-3, where one matrix holds the gate too.
    """
    row = lm.architecture
    given = weight_in_out(lm, f"{row.mlp_in_name(0)}.weight").shape[1]
    rows = weight_in_out(lm, f"{row.mlp_out_name(0)}.weight").shape[0]
    if given != rows:
        raise ConfigError(
            f"editor {KnowledgeNeurons.__name__} needs one number for each of the {rows} neurons of an MLP, but "
            f"{row.mlp_in} of {lm.name!r} gives {given}; it may hold the gate too"
        )
