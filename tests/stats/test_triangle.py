import pytest
import torch

from romexp.stats.second_moment import pack, packed_size, unpack


@pytest.mark.parametrize("width", [0, 1, 2, 7])
def test_round_trip_gives_the_same_symmetric_matrix(width: int) -> None:
    half = torch.randn(width, width)
    matrix = half + half.T
    packed = pack(matrix)
    assert packed.shape == (width * (width + 1) // 2,)
    assert torch.equal(unpack(packed, width), matrix)


def test_only_the_upper_triangle_counts() -> None:
    matrix = torch.arange(9.0).view(3, 3)
    assert pack(matrix).tolist() == [0, 1, 2, 4, 5, 8]
    assert torch.equal(unpack(pack(matrix), 3), matrix.triu() + matrix.triu(1).T)


def test_wrong_length_is_refused() -> None:
    with pytest.raises(ValueError, match=r"expected \(6,\)"):
        unpack(torch.zeros(packed_size(4)), 3)
