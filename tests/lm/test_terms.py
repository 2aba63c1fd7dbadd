"""Deltas as values: their norm, and their way to disk and back."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from romexp.errors import DataError
from romexp.lm.weight_delta import Dense, LowRank, WeightDelta

NAME = "transformer.h.1.mlp.c_proj.weight"


def low_rank(rank: int, *, n_in: int = 6, n_out: int = 4) -> LowRank:
    return LowRank(left=torch.randn(n_in, rank), right=torch.randn(n_out, rank))


def delta() -> WeightDelta:
    return WeightDelta(
        terms={
            NAME: low_rank(1),
            NAME.replace("1", "2"): low_rank(3),
            NAME.replace("1", "3"): Dense(value=torch.randn(6, 4)),
            NAME.replace("1", "3").replace("weight", "bias"): Dense(value=torch.randn(4)),
        }
    )


def assert_equal(one: WeightDelta, other: WeightDelta) -> None:
    assert one.terms.keys() == other.terms.keys()
    for name, term in one.terms.items():
        assert type(other.terms[name]) is type(term)
        assert other.terms[name].shape == term.shape
        assert torch.equal(other.terms[name].dense(), term.dense())


def test_round_trip_is_exact(tmp_path: Path) -> None:
    path = tmp_path / "new" / "7.safetensors"
    original = delta()
    original.save(path, metadata={"case_id": 7})
    assert_equal(WeightDelta.load(path), original)
    assert [p.name for p in path.parent.iterdir()] == ["7.safetensors"]
    with safe_open(str(path), framework="pt") as file:
        assert json.loads(file.metadata()["romexp"]) == {"case_id": 7}


def test_rank_one_is_two_vectors_on_disk(tmp_path: Path) -> None:
    """The form that others read (docs/method.md §11)."""
    delta().save(tmp_path / "d.safetensors")
    with safe_open(str(tmp_path / "d.safetensors"), framework="pt") as file:
        shapes = {name: tuple(file.get_tensor(name).shape) for name in file.keys()}  # noqa: SIM118
    assert shapes == {
        "transformer.h.1.mlp.c_proj.weight.left": (6,),
        "transformer.h.1.mlp.c_proj.weight.right": (4,),
        "transformer.h.2.mlp.c_proj.weight.left": (6, 3),
        "transformer.h.2.mlp.c_proj.weight.right": (4, 3),
        "transformer.h.3.mlp.c_proj.weight.dense": (6, 4),
        "transformer.h.3.mlp.c_proj.bias.dense": (4,),
    }


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_dtypes_survive(tmp_path: Path, dtype: torch.dtype) -> None:
    original = delta().to(device="cpu", dtype=dtype)
    original.save(tmp_path / "d.safetensors")
    assert {t.dense().dtype for t in WeightDelta.load(tmp_path / "d.safetensors").terms.values()} == {dtype}


def test_gradients_views_and_shared_sides_can_be_saved(tmp_path: Path) -> None:
    left = torch.randn(4, 6).T[:, :1].requires_grad_()
    shared = WeightDelta(
        terms={"a.weight": LowRank(left=left, right=torch.ones(4, 1)), "b.weight": LowRank(left=left, right=left)}
    )
    shared.save(tmp_path / "d.safetensors")
    assert_equal(WeightDelta.load(tmp_path / "d.safetensors"), shared)


def test_an_empty_delta_survives(tmp_path: Path) -> None:
    WeightDelta().save(tmp_path / "d.safetensors")
    assert WeightDelta.load(tmp_path / "d.safetensors").terms == {}


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no delta file .*nothing\.safetensors"):
        WeightDelta.load(tmp_path / "nothing.safetensors")


@pytest.mark.parametrize("keep", [0, 4, 100, -1])
def test_torn_file(tmp_path: Path, keep: int) -> None:
    path = tmp_path / "d.safetensors"
    delta().save(path)
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(DataError, match=r"d\.safetensors: not a safetensors file"):
        WeightDelta.load(path)


@pytest.mark.parametrize(
    ("tensors", "message"),
    [
        ({"a.weight.left": torch.ones(3)}, "'a.weight.left' is neither"),
        ({"a.weight.right": torch.ones(3)}, "'a.weight.right' is neither"),
        ({"a.weight": torch.ones(3, 3)}, "'a.weight' is neither"),
        ({"a.weight.left": torch.ones(3, 2), "a.weight.right": torch.ones(3)}, "a.weight: a low-rank term needs"),
    ],
)
def test_a_file_of_something_else(tmp_path: Path, tensors: dict[str, torch.Tensor], message: str) -> None:
    save_file(tensors, tmp_path / "d.safetensors")
    with pytest.raises(DataError, match=message):
        WeightDelta.load(tmp_path / "d.safetensors")


@pytest.mark.parametrize(
    ("left", "right"), [((6,), (4,)), ((6, 1), (4, 2)), ((6, 1, 1), (4, 1, 1))], ids=["vectors", "ranks", "3-d"]
)
def test_a_low_rank_term_needs_two_matrices_of_one_rank(left: tuple[int, ...], right: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="a low-rank term needs"):
        LowRank(left=torch.ones(left), right=torch.ones(right))


def test_norm_is_that_of_all_terms_made_dense() -> None:
    original = delta()
    flat = torch.cat([term.dense().flatten() for term in original.terms.values()])
    assert original.norm() == pytest.approx(float(flat.norm()), rel=1e-5)
    assert WeightDelta().norm() == 0
