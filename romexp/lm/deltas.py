"""An edit as a value: `WeightDelta`, and the two ways to see a model through it.

`applied` writes one delta into the weights and takes it back; `overlay` runs many edited models in one batch, row i of
the batch through delta `rows[i]`, without touching a weight (DESIGN §1.1, §1.2).
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import nn

from romexp.errors import DataError
from romexp.lm.model import LanguageModel


@dataclass(frozen=True, kw_only=True, eq=False)
class LowRank:
    """ΔW = left @ rightᵀ as a map from inputs to outputs, whatever way the weight is stored.

    Attributes:
        left: (in_features × rank).
        right: (out_features × rank).
    """

    left: torch.Tensor
    right: torch.Tensor

    def dense(self) -> torch.Tensor:
        """(in_features × out_features)."""
        return self.left @ self.right.T


@dataclass(frozen=True, kw_only=True, eq=False)
class Dense:
    """A full term: (in_features × out_features) for a weight, (out_features) for a bias."""

    value: torch.Tensor

    def dense(self) -> torch.Tensor:
        return self.value


Term = LowRank | Dense


@dataclass(frozen=True, kw_only=True, eq=False)
class WeightDelta:
    """Terms to add to a model's parameters, by full parameter name (`transformer.h.17.mlp.c_proj.weight`).

    Matrices are kept as (in × out); `applied` transposes for layers that store (out, in).
    """

    terms: Mapping[str, Term] = field(default_factory=dict)

    def to(self, *, device: torch.device | str, dtype: torch.dtype | None = None) -> WeightDelta:
        def move(x: torch.Tensor) -> torch.Tensor:
            return x.to(device=device, dtype=dtype or x.dtype)

        return WeightDelta(
            terms={
                name: LowRank(left=move(t.left), right=move(t.right))
                if isinstance(t, LowRank)
                else Dense(value=move(t.value))
                for name, t in self.terms.items()
            }
        )

    def norm(self) -> float:
        """Frobenius norm over all terms; a low-rank term is never made dense for it."""
        total = 0.0
        for term in self.terms.values():
            if isinstance(term, LowRank):
                gram = (term.left.T @ term.left) * (term.right.T @ term.right)
                total += float(gram.sum())
            else:
                total += float(term.value.square().sum())
        return max(total, 0.0) ** 0.5

    def save(self, path: Path, *, metadata: Mapping[str, object] | None = None) -> None:
        """Write safetensors: `<parameter>.left`, `.right` (vectors if rank one) or `<parameter>.dense`; atomic."""
        tensors: dict[str, torch.Tensor] = {}
        for name, term in self.terms.items():
            if isinstance(term, LowRank):
                rank_one = term.left.shape[1] == 1
                tensors[f"{name}.left"] = term.left[:, 0] if rank_one else term.left
                tensors[f"{name}.right"] = term.right[:, 0] if rank_one else term.right
            else:
                tensors[f"{name}.dense"] = term.value
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(path.name + ".part")
        save_file(
            {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()},
            part,
            metadata={"romexp": json.dumps(dict(metadata or {}))},
        )
        part.replace(path)

    @classmethod
    def load(cls, path: Path) -> WeightDelta:
        """Read what `save` wrote.

        Raises:
            DataError: the file is missing or holds a tensor that is no term of a delta.
        """
        if not Path(path).is_file():
            raise DataError(f"no delta file {path}")
        with safe_open(str(path), framework="pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        terms: dict[str, Term] = {}
        for key, tensor in tensors.items():
            name, _, kind = key.rpartition(".")
            if kind == "dense":
                terms[name] = Dense(value=tensor)
            elif kind == "left" and f"{name}.right" in tensors:
                terms[name] = LowRank(left=_columns(tensor), right=_columns(tensors[f"{name}.right"]))
            elif kind != "right" or f"{name}.left" not in tensors:
                raise DataError(f"{path}: tensor {key!r} is neither .dense nor a .left/.right pair")
        return cls(terms=terms)


def _columns(tensor: torch.Tensor) -> torch.Tensor:
    return tensor[:, None] if tensor.ndim == 1 else tensor


@contextmanager
def applied(lm: LanguageModel, delta: WeightDelta) -> Iterator[LanguageModel]:
    """The model with `delta` added to its weights; on exit every weight is bit-equal to before, also after an error.

    The only code of the project that writes base weights.

    Raises:
        KeyError, ValueError: the delta names a parameter the model lacks or does not fit it; nothing is changed.
    """
    values = {name: _in_storage_layout(lm, name, term) for name, term in delta.terms.items()}
    saved = {name: lm.parameter(name).detach().clone() for name in values}
    try:
        with torch.no_grad():
            for name, value in values.items():
                lm.parameter(name).add_(value)
        yield lm
    finally:
        with torch.no_grad():
            for name, original in saved.items():
                lm.parameter(name).copy_(original)


def stored_transposed(lm: LanguageModel, parameter: str) -> bool:
    """True if the parameter is a matrix that its module stores as (out, in)."""
    return lm.architecture.weight_layout == "out_in" and lm.parameter(parameter).ndim == 2


def weight_in_out(lm: LanguageModel, parameter: str) -> torch.Tensor:
    """A view of a weight as (in × out), or of a bias as (out)."""
    value = lm.parameter(parameter).detach()
    return value.T if stored_transposed(lm, parameter) else value


def _in_storage_layout(lm: LanguageModel, name: str, term: Term) -> torch.Tensor:
    try:
        parameter = lm.parameter(name)
    except AttributeError as error:
        raise KeyError(f"the model {lm.name!r} has no parameter {name!r}") from error
    value = term.dense().to(device=parameter.device, dtype=parameter.dtype)
    value = value.T if stored_transposed(lm, name) else value
    if value.shape != parameter.shape:
        raise ValueError(f"{name}: a delta of shape {tuple(value.shape)} for a weight of {tuple(parameter.shape)}")
    return value


@contextmanager
def overlay(lm: LanguageModel, deltas: Sequence[WeightDelta], rows: Sequence[int]) -> Iterator[LanguageModel]:
    """Run row i of every batch through the model edited by `deltas[rows[i]]`; -1 is the unedited model.

    The base weights stay untouched: each edited module's output gets its rows' own term,
    y_i += (x_i left) rightᵀ for a low-rank one. Gradients flow into the deltas.

    Args:
        rows: one index a batch row; every forward inside the context must have exactly this batch size.

    Raises:
        ValueError: an index out of range, or a forward with another batch size.
    """
    if rows and not -1 <= min(rows) <= max(rows) < len(deltas):
        raise ValueError(f"rows name deltas {min(rows)}…{max(rows)}, but there are {len(deltas)}")
    names = dict.fromkeys(name for delta in deltas for name in delta.terms)
    handles = []
    try:
        for name in names:
            module_name, _, kind = name.rpartition(".")
            groups = _stack(name, deltas, rows, lm.parameter(name))
            module = lm.module(module_name)
            if kind not in ("weight", "bias"):
                raise ValueError(f"{name}: only weights and biases of linear maps can be overlaid")
            handles.append(module.register_forward_hook(_adder(groups, len(rows), bias=kind == "bias")))
        yield lm
    finally:
        for handle in handles:
            handle.remove()


@dataclass(frozen=True, kw_only=True, eq=False)
class _Rows:
    """Batch rows that share one shape of term. `index` is None where it is every row in order."""

    index: torch.Tensor | None
    left: torch.Tensor | None
    right: torch.Tensor | None
    value: torch.Tensor | None


def _stack(name: str, deltas: Sequence[WeightDelta], rows: Sequence[int], like: nn.Parameter) -> list[_Rows]:
    """Per-row terms of one parameter, stacked by kind and rank so that one batched product serves each group."""
    groups: dict[tuple[str, int], list[int]] = {}
    for position, row in enumerate(rows):
        term = deltas[row].terms.get(name) if row >= 0 else None
        if term is not None:
            key = ("low", term.left.shape[1]) if isinstance(term, LowRank) else ("dense", 0)
            groups.setdefault(key, []).append(position)

    def gather(positions: list[int], attribute: str) -> torch.Tensor:
        used = sorted({rows[p] for p in positions})
        unique = torch.stack([getattr(deltas[r].terms[name], attribute) for r in used])
        unique = unique.to(device=like.device, dtype=like.dtype)
        if len(used) == len(positions) and [rows[p] for p in positions] == used:
            return unique
        return unique[torch.tensor([used.index(rows[p]) for p in positions], device=like.device)]

    stacked = []
    for (kind, _), positions in groups.items():
        index = None if len(positions) == len(rows) else torch.tensor(positions, device=like.device)
        low = kind == "low"
        stacked.append(
            _Rows(
                index=index,
                left=gather(positions, "left") if low else None,
                right=gather(positions, "right") if low else None,
                value=None if low else gather(positions, "value"),
            )
        )
    return stacked


def _adder(groups: list[_Rows], n_rows: int, *, bias: bool):  # noqa: ANN202 (a torch hook)
    def hook(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        x = inputs[0]
        if x.shape[0] != n_rows:
            raise ValueError(f"overlay was made for a batch of {n_rows} rows, the forward has {x.shape[0]}")
        for group in groups:
            chosen = x if group.index is None else x[group.index]
            if bias:
                term = group.value[:, None, :].expand(-1, x.shape[1], -1)  # type: ignore[index]
            elif group.value is not None:
                term = chosen @ group.value
            else:
                term = (chosen @ group.left) @ group.right.mT  # type: ignore[union-attr]
            output = output + term if group.index is None else output.index_add(0, group.index, term)
        return output

    return hook
