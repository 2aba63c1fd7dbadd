"""Symmetric matrices as their upper triangle, row by row: half the size on disk."""

from __future__ import annotations

import torch


def packed_size(width: int) -> int:
    """Number of entries of the upper triangle, diagonal included: D (D + 1) / 2."""
    return width * (width + 1) // 2


def pack(matrix: torch.Tensor) -> torch.Tensor:
    """Upper triangle of (D × D) as a vector of D (D + 1) / 2 entries; what lies below the diagonal is not looked at."""
    width = matrix.shape[0]
    packed = matrix.new_empty(packed_size(width))
    start = 0
    # Rows one by one: index tensors for a GPT-J layer would take 2 GB.
    for row in range(width):
        packed[start : start + width - row] = matrix[row, row:]
        start += width - row
    return packed


def unpack(packed: torch.Tensor, width: int) -> torch.Tensor:
    """The symmetric (D × D) matrix whose upper triangle `pack` wrote; exactly symmetric.

    Raises:
        ValueError: the vector's length is not D (D + 1) / 2.
    """
    if packed.ndim != 1 or packed.shape[0] != packed_size(width):
        raise ValueError(
            f"shape {tuple(packed.shape)} is not the packed triangle of a {width} × {width} matrix; "
            f"expected ({packed_size(width)},)"
        )
    upper = packed.new_zeros((width, width))
    start = 0
    for row in range(width):
        upper[row, row:] = packed[start : start + width - row]
        start += width - row
    return upper + upper.triu(1).T
