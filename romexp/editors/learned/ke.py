"""The network of KE (De Cao et al. 2021), called EFK in the authors' code. From the text of an edit it computes gates
for the edit's gradient (docs/method.md §4.5).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import nn
from torch.nn import functional
from torch.nn.utils.rnn import pack_padded_sequence, pad_sequence

from romexp.editors.learned.base import EditNetwork, Shapes, by_request, kept_rows
from romexp.editors.learned.factors import EditFactors
from romexp.lm.weight_delta import LowRank, WeightDelta


class NormedLinear(nn.Module):
    """A linear map with weight normalization: row i of the matrix is `scale[i] · direction[i] / ‖direction[i]‖`."""

    def __init__(self, n_in: int, n_out: int, *, generator: torch.Generator | None = None) -> None:
        super().__init__()
        bound = n_in**-0.5  # This is the initialization of torch.nn.Linear.
        self.direction = nn.Parameter(_uniform((n_out, n_in), bound, generator))
        self.scale = nn.Parameter(self.direction.detach().norm(dim=1, keepdim=True))
        self.bias = nn.Parameter(_uniform((n_out,), bound, generator))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Apply the map: (… × in) → (… × out)."""
        rows = self.direction / self.direction.norm(dim=1, keepdim=True)
        return functional.linear(x, self.scale * rows, self.bias)


class Conditioner(nn.Module):
    """Computes the gate of one parameter from the condition: two column vectors, two row vectors and a scale.

    Rows are the inputs and columns the outputs of the edited map, whatever way the model stores its weights.
    """

    def __init__(
        self, n_in: int, n_out: int, *, condition_size: int, hidden_size: int, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.parts = [n_out, n_in, n_out, n_in, 1]
        self.hidden = NormedLinear(condition_size, hidden_size, generator=generator)
        self.output = NormedLinear(hidden_size, sum(self.parts), generator=generator)

    def forward(self, condition: torch.Tensor) -> tuple[torch.Tensor, ...]:
        """The gate of each request, from its condition (requests × condition size).

        Returns:
            col_a (requests × out), softmax(row_a) (requests × in), col_b, softmax(row_b), and the scale after the
            sigmoid (requests × 1).
        """
        col_a, row_a, col_b, row_b, scale = self.output(self.hidden(condition).tanh()).split(self.parts, dim=-1)
        return col_a, row_a.softmax(dim=-1), col_b, row_b.softmax(dim=-1), scale.sigmoid()


class Condition(nn.Module):
    """Computes a condition vector from the tokens of an edit: embedding, bidirectional LSTM, and a linear map with tanh
    of the LSTM's two last states.
    """

    def __init__(
        self,
        *,
        vocabulary: int,
        embedding_size: int,
        hidden_size: int,
        condition_size: int,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__()
        # As in the authors' code, token 0 is treated as padding and its embedding is never trained, although texts may
        # contain this token.
        self.embedding = nn.Embedding(vocabulary, embedding_size, padding_idx=0)
        self.lstm = nn.LSTM(embedding_size, hidden_size, bidirectional=True, batch_first=True)
        self.linear = nn.Linear(2 * hidden_size, condition_size)
        with torch.no_grad():
            self.embedding.weight.copy_(torch.randn(self.embedding.weight.shape, generator=generator))
            for module, bound in ((self.lstm, hidden_size**-0.5), (self.linear, (2 * hidden_size) ** -0.5)):
                for parameter in module.parameters():
                    parameter.copy_(_uniform(tuple(parameter.shape), bound, generator))

    def forward(self, ids: Sequence[Sequence[int]]) -> torch.Tensor:
        """The condition vectors of texts of any lengths (texts × condition size)."""
        device = self.embedding.weight.device
        padded = pad_sequence([torch.tensor(row, device=device) for row in ids], batch_first=True)
        lengths = torch.tensor([len(row) for row in ids])
        packed = pack_padded_sequence(self.embedding(padded), lengths, batch_first=True, enforce_sorted=False)
        _, (last, _) = self.lstm(packed)  # (2 directions × texts × hidden)
        condition: torch.Tensor = self.linear(torch.cat([last[0], last[1]], dim=-1)).tanh()
        return condition


class KeNetwork(EditNetwork):
    """The edit network of KE (docs/method.md §4.5).

    ΔW = s · (∇W ⊙ A + B) with A = softmax(row_a) col_aᵀ, B = softmax(row_b) col_bᵀ and s = max_scale · sigmoid(g).

    Since ∇W = Σ_t x_t δ_tᵀ, ∇W ⊙ A = Σ_t (softmax(row_a) ⊙ x_t) (col_a ⊙ δ_t)ᵀ. So the delta has rank (number of
    tokens) + 1 and the full matrix is never computed. The sign is plus, as in the authors' code; training must make
    col_a negative.

    Args:
        shapes: the names of the edited parameters with their shapes (in, out).
        vocabulary: number of rows of the condition's embedding.
        embedding_size: width of the condition's embedding, which is initialized by `adopt_embedding`.
        hidden_size: width of the LSTM in each direction, and of each conditioner.
        condition_size: width of the condition vector.
        max_scale: bound of s.
        generator: random generator of the initial weights.
    """

    kind: ClassVar[str] = "ke"

    def __init__(
        self,
        shapes: Shapes,
        *,
        vocabulary: int,
        embedding_size: int,
        hidden_size: int = 512,
        condition_size: int = 768,
        max_scale: float = 1.0,
        generator: torch.Generator | None = None,
    ) -> None:
        super().__init__(shapes)
        self.vocabulary, self.embedding_size = vocabulary, embedding_size
        self.hidden_size, self.condition_size, self.max_scale = hidden_size, condition_size, max_scale
        self.condition = Condition(
            vocabulary=vocabulary,
            embedding_size=embedding_size,
            hidden_size=hidden_size,
            condition_size=condition_size,
            generator=generator,
        )
        self.conditioners = nn.ModuleList(
            Conditioner(*shape, condition_size=condition_size, hidden_size=hidden_size, generator=generator)
            for shape in self.shapes.values()
        )

    @property
    def sizes(self) -> dict[str, Any]:
        names = ("vocabulary", "embedding_size", "hidden_size", "condition_size", "max_scale")
        return {name: getattr(self, name) for name in names}

    @torch.no_grad()
    def adopt_embedding(self, weight: torch.Tensor) -> None:
        """Set the condition's embedding to a copy of the model's (vocabulary × embedding size)."""
        self.condition.embedding.weight.copy_(weight)

    def forward(self, factors: EditFactors) -> list[WeightDelta]:
        """Compute one delta for each request, of rank (number of kept tokens) + 1."""
        condition = self.condition(factors.ids)
        terms: dict[str, tuple[torch.Tensor, torch.Tensor]] = {}
        for name, conditioner in zip(self.edited, self.conditioners, strict=True):
            col_a, row_a, col_b, row_b, scale = conditioner(condition)
            mask = factors.masks[name]
            x = by_request(kept_rows(factors.inputs[name], mask), mask)
            delta = by_request(kept_rows(factors.gradients[name], mask), mask)
            left = torch.cat([row_a[:, None] * x, row_b[:, None]], dim=1)
            right = torch.cat([col_a[:, None] * delta, col_b[:, None]], dim=1)
            terms[name] = left.mT, (self.max_scale * scale[..., None] * right).mT
        return [
            WeightDelta(terms={name: LowRank(left=left[i], right=right[i]) for name, (left, right) in terms.items()})
            for i in range(len(factors))
        ]


def _uniform(shape: tuple[int, ...], bound: float, generator: torch.Generator | None) -> torch.Tensor:
    return (torch.rand(shape, generator=generator) * 2 - 1) * bound
