import pytest
import torch

from romexp.stats.moment_fitter import MomentFitter

KEYS = torch.randn(200, 9, generator=torch.Generator().manual_seed(3)) * 3 + 1


def fed(*batches: torch.Tensor, dtype: torch.dtype = torch.float32) -> MomentFitter:
    fitter = MomentFitter(dtype)
    for batch in batches:
        fitter.update(batch)
    return fitter


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 1e-5), (torch.float64, 1e-7)])
def test_streaming_equals_batch(dtype: torch.dtype, tolerance: float) -> None:
    expected = KEYS.double().T @ KEYS.double() / len(KEYS)
    streamed = fed(KEYS[:1], KEYS[1:1], KEYS[1:77], KEYS[77:], dtype=dtype).result({"a": 1})
    assert streamed.count == 200
    assert streamed.provenance == {"a": 1}
    assert streamed.matrix.dtype == torch.float32
    assert torch.allclose(streamed.matrix.double(), expected, rtol=tolerance)
    assert not torch.allclose(streamed.matrix.double(), torch.cov(KEYS.double().T), rtol=0.1)  # uncentred


def test_result_is_exactly_symmetric_and_positive() -> None:
    matrix = fed(KEYS[:50], KEYS[50:]).result({}).matrix
    assert torch.equal(matrix, matrix.T)
    assert torch.linalg.eigvalsh(matrix.double()).min() > 0


def test_half_precision_keys_are_summed_in_the_fitters_type() -> None:
    keys = KEYS.bfloat16()
    expected = keys.double().T @ keys.double() / len(keys)
    assert torch.allclose(fed(keys).result({}).matrix.double(), expected, rtol=1e-5)


def test_state_goes_on_to_the_same_bits() -> None:
    whole = fed(KEYS[:90], KEYS[90:]).result({})
    other = MomentFitter()
    other.restore(fed(KEYS[:90]).state())
    other.update(KEYS[90:])
    assert other.count == whole.count
    assert torch.equal(other.result({}).matrix, whole.matrix)


def test_the_state_of_nothing_is_nothing() -> None:
    fitter = MomentFitter()
    fitter.restore(MomentFitter().state())
    with pytest.raises(ValueError, match="no keys"):
        fitter.result({})
