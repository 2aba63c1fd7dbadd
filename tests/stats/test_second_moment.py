import logging
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from romexp.errors import DataError
from romexp.stats.second_moment import SecondMoment, load_moments, save_moments

WIDTH = 12


def moment_of(keys: torch.Tensor, **provenance: object) -> SecondMoment:
    matrix = (keys.double().T @ keys.double() / len(keys)).float()
    return SecondMoment(matrix=(matrix + matrix.T) / 2, count=len(keys), provenance=provenance)


@pytest.fixture
def moment() -> SecondMoment:
    mixing = torch.randn(WIDTH, WIDTH, generator=torch.Generator().manual_seed(1)) + 6 * torch.eye(WIDTH)
    keys = torch.randn(500, WIDTH, generator=torch.Generator().manual_seed(2)) @ mixing
    return moment_of(keys, model="m", layer=3)


def test_solve_inverts(moment: SecondMoment) -> None:
    keys = torch.randn(5, WIDTH)
    solved = moment.solve(keys)
    assert solved.dtype == torch.float32
    assert torch.allclose(solved.double() @ moment.matrix.double(), keys.double(), atol=1e-4)
    assert not torch.allclose(solved, keys, atol=0.1)  # the matrix is not near the identity


def test_solve_in_float64_is_exact_to_float64(moment: SecondMoment) -> None:
    keys = torch.randn(5, WIDTH, dtype=torch.float64)
    assert torch.allclose(moment.solve(keys) @ moment.matrix.double(), keys, atol=1e-10)


def test_scale_of_the_matrix_cancels_in_the_direction(moment: SecondMoment) -> None:
    keys = torch.randn(5, WIDTH)
    scaled = SecondMoment(matrix=moment.matrix * 1024, count=moment.count)
    assert torch.allclose(scaled.solve(keys) * 1024, moment.solve(keys))
    direction = torch.nn.functional.normalize
    assert torch.allclose(direction(scaled.solve(keys)), direction(moment.solve(keys)), atol=1e-6)


def test_ill_conditioned_matrices_are_solved_in_float64() -> None:
    """Condition 1e6, as measured matrices have: a float32 inverse would be wrong in the second digit."""
    rotation, _ = torch.linalg.qr(torch.randn(WIDTH, WIDTH, dtype=torch.float64))
    matrix = rotation @ torch.diag(torch.logspace(0, -6, WIDTH, dtype=torch.float64)) @ rotation.T
    matrix = ((matrix + matrix.T) / 2).float()
    keys = torch.randn(3, WIDTH, dtype=torch.float64)
    solved = SecondMoment(matrix=matrix, count=100).solve(keys)
    assert torch.allclose(solved @ matrix.double(), keys, atol=1e-8)


def test_too_few_tokens_are_an_error_that_says_what_to_do() -> None:
    moment = moment_of(torch.randn(WIDTH - 4, WIDTH), model="gpt2", layer=7)
    with pytest.raises(DataError, match=r"\(gpt2, layer 7\).*no inverse.*8 tokens.*sample_size.*mom2_adjustment"):
        # float32 rounding may make null directions slightly positive; take it out
        SecondMoment(matrix=moment.matrix - 1e-5 * torch.eye(WIDTH), count=8, provenance=moment.provenance).solve(
            torch.randn(1, WIDTH)
        )


def test_a_dead_unit_is_an_error(moment: SecondMoment) -> None:
    matrix = moment.matrix.clone()
    matrix[4, :] = matrix[:, 4] = 0
    with pytest.raises(DataError, match="no inverse"):
        SecondMoment(matrix=matrix, count=500).solve(torch.randn(1, WIDTH))


def test_slightly_indefinite_matrices_are_inverted_as_the_reference_does(caplog: pytest.LogCaptureFixture) -> None:
    matrix = torch.diag(torch.tensor([1.0, 0.5, -1e-6]))
    keys = torch.randn(2, 3)
    with caplog.at_level(logging.WARNING):
        solved = SecondMoment(matrix=matrix, count=0).solve(keys)
    assert torch.allclose(solved, keys / matrix.diagonal())
    assert "not positive definite" in caplog.text


@pytest.mark.parametrize("shape", [(WIDTH,), (2, WIDTH + 1), (1, 2, WIDTH)])
def test_keys_of_another_shape_are_refused(moment: SecondMoment, shape: tuple[int, ...]) -> None:
    with pytest.raises(DataError, match=r"expected \(n, 12\)"):
        moment.solve(torch.zeros(shape))


def test_matrix_must_be_square_and_finite(moment: SecondMoment) -> None:
    with pytest.raises(DataError, match="square"):
        SecondMoment(matrix=torch.zeros(3, 4), count=1)
    matrix = moment.matrix.clone()
    matrix[0, 0] = torch.nan
    with pytest.raises(DataError, match="NaN"):
        SecondMoment(matrix=matrix, count=1).solve(torch.zeros(1, WIDTH))


def test_save_and_load(moment: SecondMoment, tmp_path: Path) -> None:
    path = tmp_path / "new" / "m.safetensors"
    moment.save(path)
    loaded = SecondMoment.load(path)
    assert torch.equal(loaded.matrix, moment.matrix)
    assert loaded.count == moment.count
    assert loaded.provenance == {"model": "m", "layer": 3, "file": str(path)}
    assert [f.name for f in path.parent.iterdir()] == ["m.safetensors"]  # nothing temporary is left
    assert path.stat().st_size < moment.matrix.numel() * 4 * 0.55 + 2000


def test_several_layers_in_one_file(moment: SecondMoment, tmp_path: Path) -> None:
    other = moment_of(torch.randn(90, 5))
    save_moments(tmp_path / "all.safetensors", {0: moment, 11: other})
    loaded = load_moments(tmp_path / "all.safetensors", [11])
    assert list(loaded) == [11]
    assert torch.equal(loaded[11].matrix, other.matrix)
    with pytest.raises(DataError, match=r"layer \[5\].*holds \[0, 11\]"):
        load_moments(tmp_path / "all.safetensors", [5])
    with pytest.raises(DataError, match="expected one"):
        SecondMoment.load(tmp_path / "all.safetensors")


def test_other_files_are_named_in_the_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none\.safetensors"):
        SecondMoment.load(tmp_path / "none.safetensors")
    (tmp_path / "torn.safetensors").write_bytes(b"abc")
    with pytest.raises(DataError, match=r"torn\.safetensors: not a readable safetensors"):
        SecondMoment.load(tmp_path / "torn.safetensors")
    save_file({"a": torch.zeros(2)}, tmp_path / "delta.safetensors")
    with pytest.raises(DataError, match=r"delta\.safetensors: not a file of second moments"):
        SecondMoment.load(tmp_path / "delta.safetensors")


def test_golden_matrix_is_solved(shared: Path) -> None:
    import numpy as np

    with np.load(shared / "golden" / "covariance_layer3.npz") as file:
        matrix = torch.from_numpy(file["moment"])
    keys = torch.randn(4, matrix.shape[0], dtype=torch.float64)
    solved = SecondMoment(matrix=matrix, count=0).solve(keys)
    assert torch.allclose(solved @ matrix.double(), keys, atol=1e-9)
