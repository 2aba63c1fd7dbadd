"""ROME: a rank-one edit of one MLP's second matrix (paper §3.1, App. A; docs/method.md §3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch

from romexp.bounds import check_bounds
from romexp.editors.base import Edit, Resources, pick_layer
from romexp.editors.contexts import templates_of
from romexp.editors.filters import Filter, check_filter, filtered_edits
from romexp.editors.values.bucket import at_lookups, make_buckets
from romexp.editors.values.optimize import Trajectory, ValueSettings, optimize_values
from romexp.editors.values.texts import EditText, edit_texts
from romexp.errors import ConfigError, RecordError, with_errors_in_place, without_errors
from romexp.facts import EditRequest
from romexp.lm.model import LanguageModel
from romexp.lm.tokens import FactToken
from romexp.lm.weight_delta import LowRank, WeightDelta

Keys = Literal["mixed", "averaged", "prompt"]


@dataclass(frozen=True, kw_only=True)
class Rome:
    """ROME. Hyper-parameters have the names of the authors' files (docs/method.md §3.1).

    Attributes:
        name: label in tables.
        layer: the edited layer, counted from 0. None: round(`layer_fraction` · number of layers). `traced`: the layer
            that the newest `task=trace` of the model suggests (docs/method.md §2.7).
        layer_fraction: used if `layer` is None; the paper's layers correspond to values between 0.18 and 0.35.
        fact_token: the token at which the key is read and the value is changed (docs/method.md §3.4).
        v_num_grad_steps: the largest number of passes. There is one update less, because the last pass only measures
            the loss.
        v_lr: step size of Adam for δ.
        v_weight_decay: factor λ_wd of ‖δ‖ / ‖v_0‖².
        kl_factor: factor λ_KL of KL(P_δ ‖ P_0) at the subject in "{subject} is a".
        clamp_norm_factor: c; ‖δ‖ is limited to c ‖v_0‖.
        v_loss_threshold: the optimization of a request ends when its loss is below this.
        mom2_adjustment: if true, u = C⁻¹k* / ‖C⁻¹k*‖. If false, u = k* / ‖k*‖ and C is not needed.
        keys: which keys the update uses (docs/method.md §3.9). `mixed`: u from the mean over contexts, Λ from the bare
            prompt, as in the authors' code. `averaged` (r-ROME): both from the means. `prompt` (p-ROME): both from the
            bare prompt.
        context_template_length_params: pairs (total tokens with the end-of-text token, count) of contexts to sample
            (docs/method.md §3.2).
        context_templates: the context templates, or a JSON file with a list of them; None samples them.
        filter: `rect` or `prune` holds the edit back (`romexp.editors.filters`); None does not.

    Raises:
        ConfigError: a setting has a value that is not possible.
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
    context_template_length_params: Sequence[tuple[int, int]] = ((5, 10), (10, 10))
    context_templates: Any = None
    filter: Filter | None = None

    def __post_init__(self) -> None:
        check_filter(self.filter)
        if self.keys not in ("mixed", "averaged", "prompt"):
            raise ConfigError(f"editor.keys: {self.keys!r} is none of mixed, averaged, prompt")
        if self.fact_token not in ("subject_first", "subject_last", "subject_first_after_last", "last"):
            raise ConfigError(
                f"editor.fact_token: {self.fact_token!r} is none of subject_first, subject_last, "
                "subject_first_after_last, last"
            )
        check_bounds(
            self,
            "editor",
            finite=("v_loss_threshold",),
            from_0=("v_lr", "v_weight_decay", "kl_factor", "clamp_norm_factor"),
            from_1=("v_num_grad_steps",),
            shares=("layer_fraction",),
        )

    def __call__(
        self, lm: LanguageModel, requests: Sequence[EditRequest], *, resources: Resources
    ) -> list[Edit | RecordError]:
        """Compute a rank-one delta for each request, independently of the other requests (docs/method.md §3.5 to §3.7).

        Returns:
            For each request its edit; or the `RecordError` with which `edit_texts` refuses it.
        """
        templates = templates_of(self, lm, resources)
        texts = edit_texts(lm, requests, templates, fact_token=self.fact_token)
        good = without_errors(texts)
        edits = with_errors_in_place(texts, self._edits(lm, good, resources) if good else [])
        return filtered_edits(lm, edits, self.filter)

    def prepared(self, lm: LanguageModel, *, resources: Resources) -> Rome:
        """This editor with its contexts, and the second moment at hand (`romexp.editors.sequence.PreparedEditor`)."""
        if self.mom2_adjustment and resources.prepare is not None:
            resources.prepare([pick_layer(lm, layer=self.layer, fraction=self.layer_fraction)])
        return replace(self, context_templates=list(templates_of(self, lm, resources)))

    def _edits(self, lm: LanguageModel, texts: Sequence[Sequence[EditText]], resources: Resources) -> list[Edit]:
        """The edits of requests. Each request is given by its rewriting texts, one per template, and its KL text."""
        layer = pick_layer(lm, layer=self.layer, fraction=self.layer_fraction)
        numbered = [replace(text, request=i) for i, row in enumerate(texts) for text in row]
        buckets = make_buckets(lm, numbered, layer=layer)
        found = at_lookups(buckets, n_requests=len(texts), n_templates=len(texts[0]) - 1)
        settings = replace(self._settings(), unsay=resources.goal.unsay)
        changes, trajectories = optimize_values(lm, buckets, found.initial, settings=settings)
        initial, delta = found.initial[:, 0], changes[:, 0]
        left, residual_key = self._directions(found.keys, layer, resources)
        base_output = found.outputs.mean(dim=1) if self.keys == "averaged" else found.outputs[:, 0]
        residual = initial + delta - base_output
        key_u = (residual_key * left).sum(dim=-1)
        right = residual / key_u[:, None]
        parameter = lm.architecture.mlp_out_name(layer) + ".weight"
        return [
            Edit(
                delta=WeightDelta(terms={parameter: LowRank(left=left[i, :, None], right=right[i, :, None])}),
                diagnostics=_diagnostics(trajectories[i], layer, texts[i][0].lookup, delta[i], initial[i], key_u[i]),
            )
            for i in range(len(texts))
        ]

    def _directions(self, keys: torch.Tensor, layer: int, resources: Resources) -> tuple[torch.Tensor, torch.Tensor]:
        """The direction u, of unit length, and the key k in Λ's denominator kᵀu; both (requests × D)."""
        mean, bare = keys.mean(dim=1), keys[:, 0]
        key = bare if self.keys == "prompt" else mean
        u = resources.second_moment(layer).solve(key) if self.mom2_adjustment else key
        u = u.to(device=keys.device, dtype=torch.float32)
        return u / u.norm(dim=-1, keepdim=True), mean if self.keys == "averaged" else bare

    def _settings(self) -> ValueSettings:
        return ValueSettings(
            n_steps=self.v_num_grad_steps,
            lr=self.v_lr,
            weight_decay=self.v_weight_decay,
            kl_factor=self.kl_factor,
            clamp_norm_factor=self.clamp_norm_factor,
            loss_threshold=self.v_loss_threshold,
        )


def _diagnostics(
    trajectory: Trajectory,
    layer: int,
    lookup: int,
    delta: torch.Tensor,
    initial: torch.Tensor,
    key_dot_u: torch.Tensor,
) -> dict[str, Any]:
    """The diagnostics of one edit: its layer and token, the loss terms by pass, and the norms of δ and v_0."""
    return {
        "layer": layer,
        "lookup_index": lookup,
        "loss": trajectory.loss,
        "nll": trajectory.nll,
        "kl": trajectory.kl,
        "weight_decay": trajectory.weight_decay,
        "delta_norm": float(delta.norm()),
        "initial_norm": float(initial.norm()),
        "key_dot_u": float(key_dot_u),
    }
