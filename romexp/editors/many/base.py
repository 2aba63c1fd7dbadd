"""What MEMIT, PMET, EMMET and AlphaEdit share: target values at the last of some layers, written into these layers from
below (docs/method.md §12).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, ClassVar

import torch

from romexp.bounds import check_bounds
from romexp.editors.base import Edit, Resources
from romexp.editors.contexts import context_groups
from romexp.editors.filters import Filter, check_filter, filtered_edits
from romexp.editors.many.layers import check_layers, pick_layers
from romexp.editors.many.normal_equation import NormalEquation
from romexp.editors.many.readings import RequestTexts, UpwardReader, template_weights
from romexp.editors.many.spread import Spread, Written
from romexp.editors.sequence import BatchEdit, SequenceState
from romexp.editors.values.bucket import Place
from romexp.editors.values.optimize import ValueSettings
from romexp.editors.values.targets import TargetValues, ValueFinder
from romexp.editors.values.texts import EditText, edit_texts
from romexp.errors import ConfigError, RecordError, with_errors_in_place, without_errors
from romexp.facts import EditRequest
from romexp.lm.apply_delta import applied
from romexp.lm.model import LanguageModel
from romexp.lm.tokens import FactToken
from romexp.lm.weight_delta import WeightDelta

FACT_TOKENS = ("subject_first", "subject_last", "subject_first_after_last", "last")


@dataclass(frozen=True, kw_only=True)
class SpreadEditor(ABC):
    """Base class of the editors that write many requests by one edit. Subclasses give the normal equation of a layer.

    Attributes:
        name: label in tables.
        layers: the edited layers, ascending, counted from 0. None: `n_layers` layers that end at
            round(`layer_fraction` · number of layers).
        n_layers: number of layers if `layers` is None.
        layer_fraction: where the layers end if `layers` is None.
        fact_token: the token at which keys and states are read and the state is changed (docs/method.md §3.4).
        v_num_grad_steps: the largest number of passes, the last of which only measures.
        v_lr: step size of Adam for δ.
        v_weight_decay: factor of ‖δ‖ / ‖v_0‖².
        kl_factor: factor of KL(P_δ ‖ P_0) at the subject in "{subject} is a".
        clamp_norm_factor: c; ‖δ‖ is limited to c ‖v_0‖.
        v_loss_threshold: the optimization of a request ends when its loss is below this.
        context_template_length_params: pairs (total tokens with the opening word, count) of contexts to sample.
        context_templates: groups of context templates, or a list of templates, or a JSON file with either; None samples
            them (`romexp.editors.contexts.context_groups`).
        earlier_keys: whether, in a sequence, a batch must keep the values of the keys of earlier batches.
        batch_size: number of requests whose target values are optimized together; affects results only by rounding.
        filter: `rect` or `prune` holds the edit back (`romexp.editors.filters`); None does not.

    Raises:
        ConfigError: a setting has a value that is not possible.
    """

    name: str = ""
    layers: Sequence[int] | None = None
    n_layers: int = 5
    layer_fraction: float = 0.35
    fact_token: FactToken = "subject_last"
    v_num_grad_steps: int = 20
    v_lr: float = 0.5
    v_weight_decay: float = 0.5
    kl_factor: float = 0.0625
    clamp_norm_factor: float = 0.75
    v_loss_threshold: float = 0.05
    context_template_length_params: Sequence[tuple[int, int]] = ((10, 5),)
    context_templates: Any = None
    earlier_keys: bool = True
    batch_size: int = 25
    filter: Filter | None = None
    _place: ClassVar[Place] = "block"

    def __post_init__(self) -> None:
        check_filter(self.filter)
        check_layers(self.layers)
        if self.fact_token not in FACT_TOKENS:
            raise ConfigError(f"editor.fact_token: {self.fact_token!r} is none of {', '.join(FACT_TOKENS)}")
        check_bounds(
            self,
            "editor",
            finite=("v_loss_threshold",),
            from_0=("v_lr", "v_weight_decay", "kl_factor", "clamp_norm_factor"),
            from_1=("v_num_grad_steps", "n_layers", "batch_size"),
            shares=("layer_fraction",),
        )

    def __call__(
        self, lm: LanguageModel, requests: Sequence[EditRequest], *, resources: Resources
    ) -> list[Edit | RecordError]:
        """Compute an edit for each request by itself: a batch of one.

        Returns:
            For each request its edit; or the `RecordError` with which `edit_texts` refuses it.
        """
        texts, rewriting = self._texts(lm, requests, resources)
        made: list[Edit] = []
        if rewriting.texts:
            alone = [[i] for i in range(len(rewriting.texts))]
            written, diagnostics = self._write(lm, texts, rewriting, resources, SequenceState(), alone)
            made = [
                Edit(delta=delta, diagnostics=about) for delta, about in zip(written.deltas, diagnostics, strict=True)
            ]
        return filtered_edits(lm, with_errors_in_place(texts, made), self.filter)

    def together(
        self, lm: LanguageModel, requests: Sequence[EditRequest], *, resources: Resources, state: SequenceState
    ) -> BatchEdit:
        """One edit for all requests, which continues a sequence (`romexp.editors.sequence.JointEditor`)."""
        texts, rewriting = self._texts(lm, requests, resources)
        if not rewriting.texts:
            return BatchEdit(delta=WeightDelta(), outcomes=tuple(with_errors_in_place(texts, [])))
        all_of_them = [list(range(len(rewriting.texts)))]
        written, diagnostics = self._write(lm, texts, rewriting, resources, state, all_of_them)
        outcomes = tuple(with_errors_in_place(texts, diagnostics))
        return BatchEdit(delta=written.deltas[0], outcomes=outcomes, keys=written.keys if self.earlier_keys else {})

    def keys_after(
        self, lm: LanguageModel, requests: Sequence[EditRequest], *, resources: Resources, delta: WeightDelta
    ) -> Mapping[int, torch.Tensor]:
        """The keys of requests by layer (requests × D) on the model that holds `delta`; empty if none are kept."""
        if not self.earlier_keys:
            return {}
        _, rewriting = self._texts(lm, requests, resources)
        with applied(lm, delta):
            return UpwardReader(rewriting, one_model=True, stored_bytes=0).keys(lm, pick_layers(self, lm))

    @abstractmethod
    def equation(self, layer: int, *, n_together: int, resources: Resources, device: torch.device) -> NormalEquation:
        """The normal equation of a layer.

        Args:
            n_together: number of requests that are written together.
            device: where the model's states are.
        """

    def divisor(self, n_left: int) -> float:
        """By what the residual is divided while this layer and n_left - 1 layers above it are still to be written."""
        return n_left

    def _texts(
        self, lm: LanguageModel, requests: Sequence[EditRequest], resources: Resources
    ) -> tuple[list[list[EditText] | RecordError], RequestTexts]:
        """The texts of each request, or its error; and those in which keys are read, of the requests without errors."""
        groups = context_groups(
            lm,
            given=self.context_templates,
            length_counts=self.context_template_length_params,
            seed=resources.seed,
            cache_dir=resources.cache_dir,
        )
        flat = [template for group in groups for template in group]
        texts = edit_texts(lm, requests, flat, fact_token=self.fact_token)
        own = [row[:-1] for row in without_errors(texts)]  # the last one is the KL text
        return texts, RequestTexts(texts=own, weights=template_weights(groups))

    def _write(
        self,
        lm: LanguageModel,
        texts: Sequence[list[EditText] | RecordError],
        rewriting: RequestTexts,
        resources: Resources,
        state: SequenceState,
        groups: Sequence[Sequence[int]],
    ) -> tuple[Written, list[dict[str, Any]]]:
        """Find the target values, write them, and describe both for each request without an error."""
        layers = pick_layers(self, lm)
        if resources.prepare is not None:
            resources.prepare(layers)
        finder = ValueFinder(
            layer=layers[-1],
            place=self._place,
            settings=replace(self.value_settings(), unsay=resources.goal.unsay),
            batch_size=self.batch_size,
            cache_dir=resources.cache_dir,
            edited_by=state.delta.digest if state.delta.terms else "",
        )
        with applied(lm, state.delta):
            found = finder(lm, without_errors(texts))
        n_together = max(map(len, groups))
        spread = Spread(
            layers=layers,
            place=self._place,
            equation=lambda layer: self.equation(layer, n_together=n_together, resources=resources, device=lm.device),
            divisor=self.divisor,
        )
        written = spread(lm, rewriting, found.values[:, 0], groups, before=state.delta, kept=state.keys)
        return written, [_about(rewriting, found, written, i) for i in range(len(rewriting.texts))]

    def value_settings(self) -> ValueSettings:
        """The settings of the optimization of target values."""
        return ValueSettings(
            n_steps=self.v_num_grad_steps,
            lr=self.v_lr,
            weight_decay=self.v_weight_decay,
            kl_factor=self.kl_factor,
            clamp_norm_factor=self.clamp_norm_factor,
            loss_threshold=self.v_loss_threshold,
        )


def _about(rewriting: RequestTexts, found: TargetValues, written: Written, index: int) -> dict[str, Any]:
    """The diagnostics of one request."""
    trajectory = found.trajectories[index]
    return {
        "layers": list(written.layers),
        "lookup_index": rewriting.texts[index][0].lookup,
        "loss": trajectory.loss,
        "nll": trajectory.nll,
        "kl": trajectory.kl,
        "weight_decay": trajectory.weight_decay,
        "delta_norm": float(found.delta[index, 0].norm()),
        "initial_norm": float(found.initial[index, 0].norm()),
        "residual_norms": [float(norms[index]) for norms in written.residual_norms],
        **written.diagnostics,
    }
