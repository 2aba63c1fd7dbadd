"""Deltas of every kind on tiny models, and the plain way to run a batch through them."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from romexp.lm.apply_delta import applied, weight_in_out
from romexp.lm.model import LanguageModel
from romexp.lm.weight_delta import Dense, LowRank, Term, WeightDelta

SCALE = 0.3


def low_rank(lm: LanguageModel, name: str, rank: int = 1) -> LowRank:
    n_in, n_out = weight_in_out(lm, name).shape
    return LowRank(
        left=torch.randn(n_in, rank, dtype=lm.dtype) * SCALE, right=torch.randn(n_out, rank, dtype=lm.dtype) * SCALE
    )


def dense(lm: LanguageModel, name: str) -> Dense:
    return Dense(value=torch.randn(weight_in_out(lm, name).shape, dtype=lm.dtype) * SCALE)


def memory(lm: LanguageModel, layer: int) -> str:
    return f"{lm.architecture.mlp_out_name(layer)}.weight"


def a_bias(lm: LanguageModel, layer: int) -> str | None:
    """A bias inside the block, if the family has any."""
    candidates = (lm.architecture.mlp_out_name(layer), *lm.architecture.attn_qkv_names(layer))
    names = dict(lm.model.named_parameters())
    return next((f"{path}.bias" for path in candidates if f"{path}.bias" in names), None)


def many_deltas(lm: LanguageModel) -> list[WeightDelta]:
    """Every kind of term, alone and together, on one layer and on several."""
    first_qkv = f"{lm.architecture.attn_qkv_names(2)[0]}.weight"
    mlp_in = f"{lm.architecture.mlp_in_name(0)}.weight"
    full: dict[str, Term] = {memory(lm, 1): dense(lm, memory(lm, 1))}
    if bias := a_bias(lm, 1):
        full[bias] = dense(lm, bias)
    return [
        WeightDelta(terms={memory(lm, 1): low_rank(lm, memory(lm, 1))}),
        WeightDelta(
            terms={memory(lm, 1): low_rank(lm, memory(lm, 1), 3), memory(lm, 3): low_rank(lm, memory(lm, 3), 2)}
        ),
        WeightDelta(terms=full),
        WeightDelta(terms={mlp_in: low_rank(lm, mlp_in, 2), first_qkv: dense(lm, first_qkv)}),
        WeightDelta(terms={memory(lm, 1): dense(lm, memory(lm, 1))}),
        WeightDelta(),
    ]


def some_ids(lm: LanguageModel, rows: int, length: int = 7) -> torch.Tensor:
    return torch.randint(2, lm.model.config.vocab_size, (rows, length))


@torch.no_grad()
def run(lm: LanguageModel, ids: torch.Tensor) -> torch.Tensor:
    return lm.model(input_ids=ids).logits


def one_by_one(lm: LanguageModel, deltas: Sequence[WeightDelta | None], ids: torch.Tensor) -> torch.Tensor:
    """What `overlay` should give: each row alone through its own model, edited in its weights."""
    out = []
    for delta, text in zip(deltas, ids, strict=True):
        with applied(lm, delta or WeightDelta()):
            out.append(run(lm, text[None])[0])
    return torch.stack(out)
