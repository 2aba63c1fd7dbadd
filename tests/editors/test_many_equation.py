"""The normal equation is what the papers write as a D × D system, and its special cases are those of theory."""

from __future__ import annotations

import pytest
import torch

from romexp.editors.many.normal_equation import NormalEquation, adjoints, compress
from romexp.editors.many.null_space import null_basis
from romexp.errors import ConfigError
from romexp.stats.second_moment import SecondMoment

D, B, N = 60, 7, 11


def draw(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


KEYS, KEPT = draw(B, D, seed=1), draw(N, D, seed=2)
MATRIX = (draw(4 * D, D).T @ draw(4 * D, D) / (4 * D)).float()
C = MATRIX.double()
MOMENT = SecondMoment(matrix=MATRIX, count=0)
TOGETHER = [list(range(B))]


def memit(weight: float, keys: torch.Tensor = KEYS, kept: torch.Tensor | None = None) -> torch.Tensor:
    equation = NormalEquation(apply=MOMENT.solve, ridge=weight)
    (found,) = adjoints(equation, keys, [list(range(len(keys)))], kept=kept)
    return found


@pytest.mark.parametrize("kept", [None, KEPT])
@pytest.mark.parametrize("weight", [0.5, 37.0, 20000.0])
def test_the_small_system_is_the_large_one(weight: float, kept: torch.Tensor | None) -> None:
    rows = KEYS if kept is None else torch.cat([KEYS, kept])
    large = torch.linalg.solve(weight * C + rows.T @ rows, KEYS.T)
    torch.testing.assert_close(memit(weight, kept=kept), large, rtol=1e-8, atol=1e-12)
    without = torch.linalg.solve(weight * C + KEYS.T @ KEYS, KEYS.T)
    assert kept is None or (large - without).norm() > 1e-3 * large.norm()


def test_a_single_key_without_weight_is_romes_direction() -> None:
    """ROME: u = C⁻¹k / (kᵀC⁻¹k), which writes the value exactly."""
    key = KEYS[:1]
    u = torch.linalg.solve(C, key[0])
    expected = u / (key[0] @ u)
    torch.testing.assert_close(memit(1e-9, key)[:, 0], expected, rtol=1e-6, atol=1e-9)
    assert (memit(500.0, key)[:, 0] - expected).norm() > 0.1 * expected.norm()


@pytest.mark.parametrize(("weight", "ridge"), [(1000.0, 0.1), (1.0, 0.1), (20.0, 3.0)])
def test_emmet_with_a_ridge_is_memit_with_its_product(weight: float, ridge: float) -> None:
    equation = NormalEquation(apply=lambda keys: MOMENT.solve(keys) / weight, ridge=ridge)
    (found,) = adjoints(equation, KEYS, TOGETHER)
    torch.testing.assert_close(found, memit(weight * ridge), rtol=1e-8, atol=1e-12)
    assert (found - memit(weight)).norm() > 0.01 * found.norm()


def test_without_a_ridge_all_values_are_written() -> None:
    """EMMET's equality: KᵀA = 1."""
    torch.testing.assert_close(KEYS @ memit(0.0), torch.eye(B, dtype=torch.float64), rtol=0, atol=1e-9)


def test_groups_do_not_see_each_other() -> None:
    equation = NormalEquation(apply=MOMENT.solve, ridge=2.0)
    apart = adjoints(equation, KEYS, [[3], [0, 5]])
    torch.testing.assert_close(apart[0], memit(2.0, KEYS[3:4]))
    torch.testing.assert_close(apart[1], memit(2.0, KEYS[[0, 5]]))


def test_keys_that_depend_on_each_other(caplog: pytest.LogCaptureFixture) -> None:
    """The same request twice, without a ridge: the smallest solution, which gives each half of the change."""
    found = memit(0.0, KEYS[[0, 0]])
    assert "depend on each other" in caplog.text
    torch.testing.assert_close(found, memit(0.0, KEYS[:1]).expand(-1, 2) / 2, rtol=1e-6, atol=1e-9)


def test_compressed_keys_keep_as_much() -> None:
    many = draw(3 * D, D, seed=3).float()
    few = compress(many)
    assert few.shape == (D, D)
    torch.testing.assert_close(few.T @ few, many.T @ many, rtol=1e-4, atol=1e-3)
    assert compress(many[:5]) is not few
    torch.testing.assert_close(memit(2.0, kept=few), memit(2.0, kept=many), rtol=1e-4, atol=1e-6)


class TestNullSpace:
    THRESHOLD = float(torch.linalg.eigvalsh(C).median())

    def basis(self) -> torch.Tensor:
        return null_basis(
            SecondMoment(matrix=MATRIX, count=0),
            threshold=self.THRESHOLD,
            cache_dir=None,
            device=torch.device("cpu"),
        )

    def test_alphaedit_is_equation_14(self) -> None:
        """ΔW = R KᵀP (C_p P + K KᵀP + L2·1)⁻¹ as the paper writes it, D × D."""
        basis = self.basis().double()
        equation = NormalEquation(apply=lambda keys: (keys @ basis) @ basis.T, ridge=10.0)
        (found,) = adjoints(equation, KEYS, TOGETHER, kept=KEPT)
        p = basis @ basis.T
        k, cp, eye = KEYS.T, KEPT.T @ KEPT, torch.eye(D, dtype=torch.float64)
        paper = k.T @ p @ torch.linalg.inv(cp @ p + k @ k.T @ p + 10.0 * eye)
        torch.testing.assert_close(found.T, paper, rtol=1e-5, atol=1e-8)

    def test_it_spans_the_small_eigenvectors(self) -> None:
        basis = self.basis().double()
        assert basis.shape == (D, D // 2 - 1)
        torch.testing.assert_close(basis.T @ basis, torch.eye(basis.shape[1], dtype=torch.float64), atol=1e-6, rtol=0)
        values = torch.linalg.eigvalsh(basis.T @ C @ basis)
        assert values.max() < self.THRESHOLD <= torch.linalg.eigvalsh(C).max()

    @pytest.mark.parametrize(("threshold", "which"), [(1e-9, "no"), (1e9, "every")])
    def test_none_or_all_is_refused(self, threshold: float, which: str) -> None:
        moment = SecondMoment(matrix=MATRIX, count=0, provenance={"model": "m", "layer": 3})
        with pytest.raises(ConfigError, match=rf"nullspace_threshold: {which} eigenvalue .*\(m, layer 3\) is below"):
            null_basis(moment, threshold=threshold, cache_dir=None, device=torch.device("cpu"))

    def test_it_is_decomposed_once_and_kept(self, tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:  # type: ignore[no-untyped-def]
        first = null_basis(MOMENT, threshold=self.THRESHOLD, cache_dir=tmp_path, device=torch.device("cpu"))
        monkeypatch.setattr(torch.linalg, "eigh", lambda _: pytest.fail("decomposed again"))
        for moment in (MOMENT, SecondMoment(matrix=MATRIX.clone(), count=0)):
            again = null_basis(moment, threshold=self.THRESHOLD, cache_dir=tmp_path, device=torch.device("cpu"))
            assert torch.equal(first, again)
        with pytest.raises(pytest.fail.Exception, match="decomposed again"):
            null_basis(
                SecondMoment(matrix=2 * MATRIX, count=0), threshold=1.0, cache_dir=tmp_path, device=torch.device("cpu")
            )
