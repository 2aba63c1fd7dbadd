"""UltraEdit: many facts by one step from the gradients of their answers (docs/method.md §12.9; Gu et al. 2026)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import NoReturn

import torch

from romexp.bounds import check_bounds
from romexp.editors.base import Edit, Resources
from romexp.editors.filters import Filter, check_filter
from romexp.editors.learned.factors import edit_factors
from romexp.editors.many.layers import check_layers, pick_layers
from romexp.editors.many.normal_equation import NormalEquation, adjoints
from romexp.editors.many.spread import low_rank
from romexp.editors.sequence import BatchEdit, Outcome, SequenceState
from romexp.editors.targets import EditText, edit_text
from romexp.errors import ConfigError, RecordError, result_or_error, with_errors_in_place, without_errors
from romexp.facts import EditRequest
from romexp.lm.apply_delta import applied, weight_in_out
from romexp.lm.model import LanguageModel
from romexp.lm.weight_delta import LowRank, WeightDelta
from romexp.stats.running_moments import RunningMoments


@dataclass(frozen=True, kw_only=True)
class UltraEdit:
    """UltraEdit. It reads no subject, optimizes nothing and needs no second moment.

    At each token where a part of an answer is predicted, k is the input of an edited weight and g the gradient of the
    answer's NLL at its output. With k̂ and ĝ standardized over all tokens of the sequence so far, the weight gets the
    ridge regression of the values −η ‖k̂‖² ĝ on the keys k.

    Attributes:
        name: label in tables.
        modules: the edited linear maps, by their full names. None: the second matrix of the MLPs of `layers`.
        layers, n_layers, layer_fraction: those layers, as in `SpreadEditor`.
        lr: η.
        ridge: added to K Kᵀ.
        batch_size: number of texts that run together; affects results only by rounding.
        filter: `rect` or `prune` holds the edit back (`romexp.editors.filters`); None does not.
    """

    name: str = "UltraEdit"
    modules: Sequence[str] | None = None
    layers: Sequence[int] | None = None
    n_layers: int = 3
    layer_fraction: float = 0.9
    lr: float = 1e-6
    ridge: float = 1.0
    batch_size: int = 10
    filter: Filter | None = None

    def __post_init__(self) -> None:
        check_filter(self.filter)
        check_layers(self.layers)
        if self.modules is not None and (not self.modules or self.layers is not None):
            raise ConfigError("editor.modules: expected names of linear maps, and then no editor.layers")
        check_bounds(
            self, "editor", above_0=("lr", "ridge"), from_1=("n_layers", "batch_size"), shares=("layer_fraction",)
        )

    def __call__(
        self, lm: LanguageModel, requests: Sequence[EditRequest], *, resources: Resources
    ) -> list[Edit | RecordError]:
        """An edit of each request by itself, which this method does not have.

        Raises:
            ConfigError: always. One answer does not tell how gradients vary.
        """
        self._refuse_single()

    def together(
        self, lm: LanguageModel, requests: Sequence[EditRequest], *, resources: Resources, state: SequenceState
    ) -> BatchEdit:
        """One edit for all requests, which continues a sequence (`romexp.editors.sequence.JointEditor`)."""
        texts = [result_or_error(partial(edit_text, lm, request.text, request.target_new)) for request in requests]
        good, names = without_errors(texts), self._parameters(lm)
        if not good:
            return BatchEdit(delta=WeightDelta(), outcomes=tuple(with_errors_in_place(texts, [])))
        with applied(lm, state.delta):
            rows, losses, counts = self._rows(lm, good, names)
        if not state.statistics and sum(counts) < 2:
            self._refuse_single()
        moments = _updated(lm, rows, state.statistics)
        terms = {name: self._term(*pair, moments[_shape_name(lm, name)]) for name, pair in rows.items()}
        about = [{"nll": loss, "answer_tokens": count} for loss, count in zip(losses, counts, strict=True)]
        statistics = {
            f"{name}.{part}": value for name, found in moments.items() for part, value in found.tensors().items()
        }
        outcomes: tuple[Outcome, ...] = tuple(with_errors_in_place(texts, about))
        return BatchEdit(delta=WeightDelta(terms=terms), outcomes=outcomes, statistics=statistics)

    def _term(self, keys: torch.Tensor, gradients: torch.Tensor, moments: RunningMoments) -> LowRank:
        """ΔW of one weight, from its keys (rows × D) and gradients (rows × d)."""
        both = moments.standardized(torch.cat([keys, gradients], dim=1))
        k, g = both.split([keys.shape[1], gradients.shape[1]], dim=1)
        values = -self.lr * k.square().sum(dim=1, keepdim=True) * g
        equation = NormalEquation(apply=lambda x: x, ridge=self.ridge)
        (adjoint,) = adjoints(equation, keys, [list(range(len(keys)))])
        return low_rank(adjoint, values.to(keys))

    def keys_after(
        self, lm: LanguageModel, requests: Sequence[EditRequest], *, resources: Resources, delta: WeightDelta
    ) -> Mapping[int, torch.Tensor]:
        """None: earlier keys are not kept."""
        return {}

    def _refuse_single(self) -> NoReturn:
        raise ConfigError(
            "editor=ultraedit: it writes several facts together (task=lifelong with task.step of 2 or more; "
            "in Python romexp.edit with a list), since one answer does not tell how gradients vary"
        )

    def _parameters(self, lm: LanguageModel) -> list[str]:
        """Full names of the edited weights."""
        chosen = self.modules or [lm.architecture.mlp_out_name(layer) for layer in pick_layers(self, lm)]
        return [f"{name}.weight" for name in chosen]

    def _rows(
        self, lm: LanguageModel, texts: Sequence[EditText], names: Sequence[str]
    ) -> tuple[dict[str, tuple[torch.Tensor, torch.Tensor]], list[float], list[int]]:
        """The keys (rows × D) and gradients (rows × d) by weight at all answer tokens; and by text the mean NLL of its
        answer and the number of its tokens.
        """
        keys: dict[str, list[torch.Tensor]] = {name: [] for name in names}
        gradients: dict[str, list[torch.Tensor]] = {name: [] for name in names}
        losses: list[float] = []
        for start in range(0, len(texts), self.batch_size):
            part = texts[start : start + self.batch_size]
            factors = edit_factors(lm, part, names)
            losses += factors.losses.tolist()
            for name in names:
                for i, text in enumerate(part):
                    at = [position for position, _ in text.spots]
                    keys[name].append(factors.inputs[name][i, at])
                    # The gradient of the sum of the NLLs, so that an answer's tokens weigh alike, however many.
                    gradients[name].append(factors.gradients[name][i, at] * len(at))
        rows = {name: (torch.cat(keys[name]), torch.cat(gradients[name])) for name in names}
        return rows, losses, [len(text.spots) for text in texts]


def _shape_name(lm: LanguageModel, name: str) -> str:
    """Weights of one shape share their statistics, as in the authors' code."""
    return "x".join(map(str, weight_in_out(lm, name).shape))


def _updated(
    lm: LanguageModel,
    rows: Mapping[str, tuple[torch.Tensor, torch.Tensor]],
    before: Mapping[str, torch.Tensor],
) -> dict[str, RunningMoments]:
    """The running moments by shape of weights, with these rows added to those of the sequence so far."""
    moments: dict[str, RunningMoments] = {}
    for name, (keys, gradients) in rows.items():
        shape = _shape_name(lm, name)
        if shape not in moments:
            parts = {part: before[f"{shape}.{part}"] for part in ("count", "mean", "squares") if before}
            width = keys.shape[1] + gradients.shape[1]
            moments[shape] = RunningMoments.from_tensors(parts) if parts else RunningMoments.empty(width)
        moments[shape] = moments[shape].with_rows(torch.cat([keys, gradients], dim=1))
    return moments
