"""`WeightDelta`: an edit as a value, made of low-rank or dense terms by parameter name (docs/method.md §9.1)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from romexp.errors import DataError
from romexp.lm.tensor_files import read_tensors, stored_metadata, write_tensors
from romexp.os_errors import describe


@dataclass(frozen=True, kw_only=True, eq=False)
class LowRank:
    """ΔW = left @ rightᵀ as (in × out), whatever way the model stores the weight.

    Attributes:
        left: (in_features × rank).
        right: (out_features × rank).

    Raises:
        ValueError: the shapes are not of this form.
    """

    left: torch.Tensor
    right: torch.Tensor

    def __post_init__(self) -> None:
        if self.left.ndim != 2 or self.right.ndim != 2 or self.left.shape[1] != self.right.shape[1]:
            shapes = f"{tuple(self.left.shape)} and {tuple(self.right.shape)}"
            raise ValueError(f"a low-rank term needs (in × rank) and (out × rank), got {shapes}")

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape of ΔW: (in, out)."""
        return (self.left.shape[0], self.right.shape[0])

    def dense(self) -> torch.Tensor:
        """ΔW (in_features × out_features)."""
        return self.left @ self.right.T


@dataclass(frozen=True, kw_only=True, eq=False)
class Dense:
    """A term with all its entries: (in_features × out_features) for a weight, (out_features) for a bias."""

    value: torch.Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """(in, out), or (out) for a bias."""
        return tuple(self.value.shape)

    def dense(self) -> torch.Tensor:
        return self.value


Term = LowRank | Dense


@dataclass(frozen=True, kw_only=True, eq=False)
class WeightDelta:
    """Terms to add to a model's parameters.

    Attributes:
        terms: by full parameter name, such as `transformer.h.17.mlp.c_proj.weight`. Matrices are (in × out);
            `romexp.lm.apply_delta` transposes them for modules that store (out × in).
    """

    terms: Mapping[str, Term] = field(default_factory=dict)

    def to(self, *, device: torch.device | str, dtype: torch.dtype | None = None) -> WeightDelta:
        """The delta with its tensors on `device`, and in `dtype` if one is given."""

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
        """Frobenius norm over all terms. For low-rank terms ‖L Rᵀ‖² = Σ (LᵀL) ⊙ (RᵀR), so ΔW is not computed."""
        total = 0.0
        for term in self.terms.values():
            if isinstance(term, LowRank):
                gram = (term.left.T @ term.left) * (term.right.T @ term.right)
                total += float(gram.sum())
            else:
                total += float(term.value.square().sum())
        return max(total, 0.0) ** 0.5

    @cached_property
    def digest(self) -> str:
        """SHA-256 (16 hexadecimal digits) over the terms. Caches of what an edited model computes use it as a key."""
        digest = hashlib.sha256()
        for name, tensor in sorted(self.tensors().items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
        return digest.hexdigest()[:16]

    def tensors(self) -> dict[str, torch.Tensor]:
        """The terms as named tensors: `<parameter>.left` and `<parameter>.right` (vectors for rank one), or
        `<parameter>.dense`.
        """
        tensors: dict[str, torch.Tensor] = {}
        for name, term in self.terms.items():
            if isinstance(term, LowRank):
                rank_one = term.left.shape[1] == 1
                tensors[f"{name}.left"] = term.left[:, 0] if rank_one else term.left
                tensors[f"{name}.right"] = term.right[:, 0] if rank_one else term.right
            else:
                tensors[f"{name}.dense"] = term.value
        return tensors

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, torch.Tensor], *, where: Path) -> WeightDelta:
        """The delta whose `tensors` these are.

        Args:
            where: the file that they come from, for messages.

        Raises:
            DataError: a tensor does not belong to a delta.
        """
        terms: dict[str, Term] = {}
        for key, tensor in tensors.items():
            name, _, kind = key.rpartition(".")
            if kind == "dense":
                terms[name] = Dense(value=tensor)
            elif kind == "left" and f"{name}.right" in tensors:
                try:
                    terms[name] = LowRank(left=_as_matrix(tensor), right=_as_matrix(tensors[f"{name}.right"]))
                except ValueError as error:
                    raise DataError(f"{where}: {name}: {error}") from error
            elif kind != "right" or f"{name}.left" not in tensors:
                raise DataError(f"{where}: tensor {key!r} is neither .dense nor a .left/.right pair")
        return cls(terms=terms)

    def save(self, path: Path, *, metadata: Mapping[str, object] | None = None) -> None:
        """Write a safetensors file of `tensors`, atomically (docs/method.md §11.1).

        Args:
            metadata: JSON-ready entries that `read_metadata` returns.
        """
        write_tensors(path, self.tensors(), {"romexp": json.dumps(dict(metadata or {}))})

    @classmethod
    def load(cls, path: Path) -> WeightDelta:
        """Read a file that `save` wrote.

        Raises:
            DataError: the file is missing or damaged, or holds a tensor that does not belong to a delta.
        """
        if not Path(path).is_file():
            raise DataError(f"no delta file {path}")
        try:
            _, tensors = read_tensors(path)
        except SafetensorError as error:
            raise DataError(f"{path}: not a safetensors file ({error})") from error
        except OSError as error:
            raise DataError(describe(error)) from error
        return cls.from_tensors(tensors, where=path)


def total(deltas: Sequence[WeightDelta], *, keep_low_rank: bool = False) -> WeightDelta:
    """The sum of some deltas, as one delta.

    Low-rank terms of a parameter are put side by side, so that their ranks add up, as long as that takes less memory
    than all entries of the matrix; beyond, the sum is dense. It is dense too if one of the terms is.

    Args:
        keep_low_rank: keep low-rank terms even where they take more memory.

    Raises:
        ValueError: two deltas have terms of different shapes for one parameter.
    """
    by_name: dict[str, list[Term]] = {}
    for delta in deltas:
        for name, term in delta.terms.items():
            by_name.setdefault(name, []).append(term)
    return WeightDelta(terms={name: _sum(terms, keep_low_rank=keep_low_rank) for name, terms in by_name.items()})


def _sum(terms: Sequence[Term], *, keep_low_rank: bool) -> Term:
    if len(terms) == 1:
        return terms[0]
    shape = terms[0].shape
    if any(term.shape != shape for term in terms):
        raise ValueError(f"deltas of one parameter have different shapes: {', '.join(str(t.shape) for t in terms)}")
    low_rank = [term for term in terms if isinstance(term, LowRank)]
    if len(low_rank) == len(terms):
        left, right = (torch.cat([getattr(term, side) for term in low_rank], dim=1) for side in ("left", "right"))
        if keep_low_rank or left.shape[1] * sum(shape) < shape[0] * shape[-1]:
            return LowRank(left=left, right=right)
        return Dense(value=left @ right.T)
    value = terms[0].dense().clone()
    for term in terms[1:]:
        value += term.dense()
    return Dense(value=value)


def read_metadata(path: Path) -> dict[str, Any]:
    """The metadata of a file that `WeightDelta.save` wrote.

    Raises:
        DataError: the file is missing or damaged, or has no such metadata.
    """
    try:
        found = json.loads(stored_metadata(path)["romexp"])
    except (OSError, SafetensorError, KeyError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: not a file of a delta ({type(error).__name__}: {error})") from error
    return dict(found) if isinstance(found, dict) else {}


def _as_matrix(tensor: torch.Tensor) -> torch.Tensor:
    return tensor[:, None] if tensor.ndim == 1 else tensor
