"""ROME: a rank-one edit of one MLP's second matrix (paper §3.1, App. A; docs/method.md §3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch

from romexp.editors.base import Edit, Resources, pick_layer
from romexp.editors.contexts import context_templates
from romexp.editors.rome.bucket import Bucket, make_buckets
from romexp.editors.rome.texts import EditText, edit_texts
from romexp.editors.rome.values import Trajectory, ValueSettings, optimize_values
from romexp.errors import ConfigError, RecordError, with_errors_in_place, without_errors
from romexp.facts import EditRequest
from romexp.lm.model import LanguageModel
from romexp.lm.tokens import FactToken
from romexp.lm.weight_delta import LowRank, WeightDelta

Keys = Literal["mixed", "averaged", "prompt"]


@dataclass(frozen=True, kw_only=True)
class Rome:
    """ROME's hyper-parameters, under the names of the authors' files (docs/method.md §3.1).

    Attributes:
        layer: the edited layer, 0-based; None takes `layer_fraction` of the depth; `traced` the layer that the newest
            `task=trace` of the model suggests.
        layer_fraction: layer = round(fraction × number of layers); the paper's choices lie between 0.18 and 0.35.
        fact_token: the token whose state holds the fact (docs/method.md §3.4).
        v_num_grad_steps: passes of the optimization; one update less, since the last pass only measures.
        v_lr: Adam's step size for δ.
        v_weight_decay: factor of ‖δ‖ / ‖v_0‖².
        kl_factor: factor of KL(P_δ ‖ P_0) at the subject in "{subject} is a".
        clamp_norm_factor: ‖δ‖ never exceeds this multiple of ‖v_0‖.
        v_loss_threshold: a request stops once its loss is below this.
        mom2_adjustment: u = C⁻¹k* / ‖C⁻¹k*‖; off: u = k* / ‖k*‖, and no second moment is needed.
        keys: `mixed` is the published code: u from the mean over contexts, the residual from the bare prompt.
            `averaged` (r-ROME) takes the means in both, `prompt` (p-ROME) the bare prompt in both
            (docs/method.md §3.9).
        context_template_length_params: pairs (total tokens with the end-of-text token, count) of sampled contexts.
        context_templates: the contexts themselves, or a JSON file with a list of them; None samples them.
    """

    name: str = "ROME"
    layer: int | str | None = None
    layer_fraction: float = 0.35
    fact_token: FactToken = "subject_last"
    v_num_grad_steps: int = 20
    v_lr: float = 0.5
    v_weight_decay: float = 0.5
    kl_factor: float = 0.0625
    clamp_norm_factor: float = 4.0
    v_loss_threshold: float = 0.05
    mom2_adjustment: bool = True
    keys: Keys = "mixed"
    context_template_length_params: Sequence[Sequence[int]] = ((5, 10), (10, 10))
    context_templates: Any = None

    def __post_init__(self) -> None:
        if self.keys not in ("mixed", "averaged", "prompt"):
            raise ConfigError(f"editor.keys: {self.keys!r} is none of mixed, averaged, prompt")
        if self.fact_token not in ("subject_first", "subject_last", "subject_first_after_last", "last"):
            raise ConfigError(
                f"editor.fact_token: {self.fact_token!r} is none of subject_first, subject_last, "
                "subject_first_after_last, last"
            )
        if self.v_num_grad_steps < 1:
            raise ConfigError(f"editor.v_num_grad_steps must be at least 1, got {self.v_num_grad_steps}")

    def __call__(
        self, lm: LanguageModel, requests: Sequence[EditRequest], *, resources: Resources
    ) -> list[Edit | RecordError]:
        """One rank-one delta a request, each computed as if it were alone.

        Returns:
            In the place of a request that `edit_texts` refuses, its error.
        """
        templates = context_templates(
            lm,
            given=self.context_templates,
            length_counts=self.context_template_length_params,
            seed=resources.seed,
            cache_dir=resources.cache_dir,
        )
        texts = edit_texts(lm, requests, templates, fact_token=self.fact_token)
        good = without_errors(texts)
        return with_errors_in_place(texts, self._edits(lm, good, resources) if good else [])

    def _edits(self, lm: LanguageModel, texts: Sequence[Sequence[EditText]], resources: Resources) -> list[Edit]:
        """The edits of requests, each given by its rewriting texts and its KL text."""
        layer = pick_layer(lm, layer=self.layer, fraction=self.layer_fraction)
        numbered = [replace(text, request=i) for i, row in enumerate(texts) for text in row]
        buckets = make_buckets(lm, numbered, layer=layer)
        keys, outputs, initial = _at_lookups(buckets, len(texts), len(texts[0]) - 1)
        delta, trajectories = optimize_values(lm, buckets, initial, layer=layer, settings=self._settings())
        left, residual_key = self._directions(keys, layer, resources)
        base_output = outputs.mean(dim=1) if self.keys == "averaged" else outputs[:, 0]
        residual = initial + delta - base_output
        product = (residual_key * left).sum(dim=-1)
        right = residual / product[:, None]
        parameter = lm.architecture.mlp_out_name(layer) + ".weight"
        return [
            Edit(
                delta=WeightDelta(terms={parameter: LowRank(left=left[i, :, None], right=right[i, :, None])}),
                diagnostics=_diagnostics(trajectories[i], layer, texts[i][0].lookup, delta[i], initial[i], product[i]),
            )
            for i in range(len(texts))
        ]

    def _directions(self, keys: torch.Tensor, layer: int, resources: Resources) -> tuple[torch.Tensor, torch.Tensor]:
        """u (requests × D), unit length, and the key k of the residual's denominator k·u (requests × D)."""
        mean, own = keys.mean(dim=1), keys[:, 0]
        key = own if self.keys == "prompt" else mean
        u = resources.second_moment(layer).solve(key) if self.mom2_adjustment else key
        u = u.to(device=keys.device, dtype=torch.float32)
        return u / u.norm(dim=-1, keepdim=True), mean if self.keys == "averaged" else own

    def _settings(self) -> ValueSettings:
        return ValueSettings(
            n_steps=self.v_num_grad_steps,
            lr=self.v_lr,
            weight_decay=self.v_weight_decay,
            kl_factor=self.kl_factor,
            clamp_norm_factor=self.clamp_norm_factor,
            loss_threshold=self.v_loss_threshold,
        )


def _at_lookups(
    buckets: Sequence[Bucket], n_requests: int, n_templates: int
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Keys (requests × templates × D), outputs (requests × templates × d) and v_0 (requests × d), in float32."""
    first = buckets[0]
    keys = first.keys.new_empty((n_requests, n_templates, first.keys.shape[1]), dtype=torch.float32)
    outputs = first.outputs.new_empty((n_requests, n_templates, first.outputs.shape[1]), dtype=torch.float32)
    initial = outputs.new_empty((n_requests, outputs.shape[2]))
    for bucket in buckets:
        for row, text in enumerate(bucket.texts):
            if text.template is None:
                continue
            keys[text.request, text.template] = bucket.keys[row].float()
            outputs[text.request, text.template] = bucket.outputs[row].float()
            if text.template == 0:
                initial[text.request] = bucket.mlp[row].float()
    return keys, outputs, initial


def _diagnostics(
    trajectory: Trajectory,
    layer: int,
    lookup: int,
    delta: torch.Tensor,
    initial: torch.Tensor,
    product: torch.Tensor,
) -> dict[str, Any]:
    """What is worth keeping of one edit: the loss terms by pass, and the norms that bound it."""
    return {
        "layer": layer,
        "lookup_index": lookup,
        "loss": trajectory.loss,
        "nll": trajectory.nll,
        "kl": trajectory.kl,
        "weight_decay": trajectory.weight_decay,
        "delta_norm": float(delta.norm()),
        "initial_norm": float(initial.norm()),
        "key_dot_u": float(product),
    }
