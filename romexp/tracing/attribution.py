"""Attribution patching: what replacing each state would do, estimated to first order from one backward pass
(docs/method.md §2.9).

For a state n with the value b in the base run and s in the run whose states replace it,

    metric(n = s) ≈ metric(base) + ⟨s - b, ∂metric/∂n⟩

The base is the corrupted run where states are restored, and the clean run where states are corrupted. The gradient is
that of the base run; or, with several points, its mean over runs whose embeddings lie on the way to the other run
(integrated gradients), since a gradient at one end does not see what happens on the way.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch

from romexp.lm.forward import Row, make_inputs, run_blocks
from romexp.lm.hooks import Change, patch
from romexp.lm.model import LanguageModel
from romexp.tracing.base_runs import Kind, module_path
from romexp.tracing.grids import Grid, TokenRange, changed_cells, empty_grids
from romexp.tracing.metrics import Metric
from romexp.tracing.prompt import TracedPrompt

ADDED: tuple[Kind, ...] = ("mlp", "attn")
"""The outputs that are added to the residual stream."""

GRADIENT_SHARE = 4
"""A pass with gradients keeps all activations, so it may use 1/4 of the token budget."""


Gradients = Mapping[tuple[Kind, int], torch.Tensor]
"""∂metric/∂n by kind and layer (rows × tokens × hidden size). The metric of a row is that of its own last token."""


class WithOutputs(Protocol):
    """A run that kept outputs, by kind (layers × rows × tokens × hidden size), of one or several rows for each prompt.

    If there are as many rows as in the run with gradients, they belong to the same rows; if there are n, they belong to
    the samples 0 … n-1, of which row r has r mod n.
    """

    @property
    def outputs(self) -> Mapping[Kind, torch.Tensor]: ...


@dataclass(frozen=True, kw_only=True, eq=False)
class Slopes:
    """A run with its gradients.

    Attributes:
        n_prompts: number of prompts; the rows of a prompt are adjacent.
        outputs: the values of the states by kind (layers × rows × tokens × hidden size).
        gradients: the gradients at these values.
        dropped: the same for each layer ℓ, computed with nothing flowing back through the outputs of block ℓ's MLP and
            attention (GradDrop of AtP*); empty if not asked for.
        scores: the metric of each prompt, averaged over its rows (prompts).
    """

    n_prompts: int
    outputs: Mapping[Kind, torch.Tensor]
    gradients: Gradients
    dropped: Sequence[Gradients]
    scores: torch.Tensor


@dataclass
class _Probes:
    """Adds a zero to each output, whose gradient is that of the output, even if the family goes on to write into it.

    Attributes:
        dropped: the layer through whose MLP and attention nothing flows back; None for none.
    """

    leaves: dict[tuple[Kind, int], torch.Tensor] = field(default_factory=dict)
    outputs: dict[tuple[Kind, int], torch.Tensor] = field(default_factory=dict)
    dropped: int | None = None

    def change(self, kind: Kind, layer: int) -> Change:
        def add_zero(output: torch.Tensor) -> torch.Tensor:
            leaf = torch.zeros_like(output, requires_grad=True)
            self.leaves[kind, layer], self.outputs[kind, layer] = leaf, output.detach().clone()
            probed = output + leaf
            if kind in ADDED:
                probed.register_hook(lambda gradient: gradient * 0 if self.dropped == layer else gradient)
            return probed

        return add_zero

    def gradients(self, total: torch.Tensor, *, last: bool) -> dict[tuple[Kind, int], torch.Tensor]:
        found = torch.autograd.grad(total, list(self.leaves.values()), retain_graph=not last, allow_unused=True)
        return {
            place: torch.zeros_like(leaf) if gradient is None else gradient
            for (place, leaf), gradient in zip(self.leaves.items(), found, strict=True)
        }


def slopes(
    lm: LanguageModel,
    prompts: Sequence[TracedPrompt],
    changes: Change,
    *,
    metric: Metric,
    samples: int,
    kinds: Sequence[Kind],
    grad_drop: bool = False,
) -> Slopes:
    """Run copies of each prompt forward and backward.

    Args:
        changes: a change of the embeddings; see `romexp.tracing.corruption`.
        samples: number of rows of each prompt.
        kinds: the kinds of states whose gradients are wanted.
        grad_drop: also compute the gradients of GradDrop, by one more backward pass for each layer.
    """
    rows = [Row.text(p.ids) for p in prompts for _ in range(samples)]
    probes = _Probes()
    probed = list(dict.fromkeys([*kinds, *(ADDED if grad_drop else ())]))
    places = {
        module_path(lm, kind, layer): probes.change(kind, layer) for kind in probed for layer in range(lm.n_layers)
    }
    which = torch.arange(len(prompts), device=lm.device).repeat_interleave(samples)
    with torch.enable_grad(), patch(lm, {lm.architecture.embedding: changes, **places}):
        final = run_blocks(lm, make_inputs(lm, rows))
        scores = metric.of_states(lm, final[torch.arange(len(rows)), [len(row) - 1 for row in rows]], which)
        total = scores.sum()
        gradients = probes.gradients(total, last=not grad_drop)
        dropped = []
        for layer in range(lm.n_layers if grad_drop else 0):
            probes.dropped = layer
            dropped.append(probes.gradients(total, last=layer == lm.n_layers - 1))
    return Slopes(
        n_prompts=len(prompts),
        outputs={kind: torch.stack([probes.outputs[kind, i] for i in range(lm.n_layers)]) for kind in probed},
        gradients=gradients,
        dropped=dropped,
        scores=scores.detach().reshape(len(prompts), samples).mean(dim=1),
    )


@torch.no_grad()
def estimated_effects(found: Slopes, base: WithOutputs, source: WithOutputs, kind: Kind) -> torch.Tensor:
    """⟨s - b, gradient⟩, averaged over rows (prompts × tokens × layers), float32.

    Args:
        base: the run whose states are replaced.
        source: the run whose states replace them.
    """
    return _products(found, found.gradients, base, source, kind)


@torch.no_grad()
def grad_drop_sizes(found: Slopes, base: WithOutputs, source: WithOutputs, kind: Kind) -> torch.Tensor:
    """1/(L-1) Σ_ℓ |⟨s - b, gradient without layer ℓ⟩| of L layers (prompts × tokens × layers), float32: how large the
    effect may be, also where a direct and an indirect effect cancel.
    """
    sizes = [_products(found, gradients, base, source, kind).abs() for gradients in found.dropped]
    return torch.stack(sizes).sum(dim=0) / max(1, len(sizes) - 1)


def _products(found: Slopes, gradients: Gradients, base: WithOutputs, source: WithOutputs, kind: Kind) -> torch.Tensor:
    layers = []
    for layer in range(len(base.outputs[kind])):
        slope = gradients[kind, layer].float().unflatten(0, (found.n_prompts, -1))
        new, old = (_by_row(run.outputs[kind][layer], *slope.shape[:2]) for run in (source, base))
        layers.append(((new - old) * slope).sum(dim=-1).mean(dim=1))
    return torch.stack(layers, dim=-1)


def _by_row(outputs: torch.Tensor, n_prompts: int, n_rows: int) -> torch.Tensor:
    """Outputs of the rows with gradients (prompts × rows × tokens × hidden size), float32."""
    by_prompt = outputs.float().unflatten(0, (n_prompts, -1))
    return by_prompt[:, torch.arange(n_rows, device=outputs.device) % by_prompt.shape[1]]


def estimated_grids(
    prompts: Sequence[TracedPrompt], base: Sequence[float], effects: torch.Tensor, *, token_range: TokenRange
) -> list[Grid]:
    """The grids of one kind: the base run's score plus the estimated effect.

    Args:
        effects: (prompts × tokens × layers).
    """
    n_layers = effects.shape[-1]
    grids = empty_grids(prompts, base, token_range=token_range, n_layers=n_layers)
    for cell in changed_cells(prompts, token_range):
        score = base[cell.prompt]
        values: list[float] = effects[cell.prompt, cell.token].tolist()
        grids[cell.prompt][cell.token] = [score + value for value in values]
    return grids
