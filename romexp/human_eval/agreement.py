"""Agreement of people who judged the same things: Krippendorff's alpha for ordinal values (docs/method.md §6.3)."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence

import numpy as np

Units = Mapping[Hashable, Sequence[int]]
"""For each thing that was judged (a unit), its judgements in any order. A judgement is one of 1, …, n_values."""


def coincidences(units: Units, *, n_values: int) -> np.ndarray:
    """The coincidence matrix (n_values × n_values): how often two judges gave these two values to the same unit.

    A unit with m judgements adds m to the matrix in total. Units with only one judgement are left out, since they say
    nothing about agreement.
    """
    matrix = np.zeros((n_values, n_values))
    for values in units.values():
        if len(values) < 2:
            continue
        counts = np.bincount(np.asarray(values) - 1, minlength=n_values).astype(float)
        matrix += (np.outer(counts, counts) - np.diag(counts)) / (len(values) - 1)
    return matrix


def ordinal_alpha(matrices: np.ndarray) -> np.ndarray:
    """Krippendorff's alpha with the ordinal metric: 1 for full agreement, 0 for agreement by chance, NaN if undefined.

    α = 1 − (n − 1) · Σ o_ck δ²_ck / Σ n_c n_k δ²_ck over pairs c < k, with δ_ck = Σ_{g=c…k} n_g − (n_c + n_k) / 2
    (Krippendorff 2011, "Computing Krippendorff's alpha-reliability").

    Args:
        matrices: matrices of `coincidences` (… × n_values × n_values). Those of different units may be added up.

    Returns:
        alpha of each matrix (…).
    """
    totals = matrices.sum(axis=-1)
    # For c < k, the difference of these sums at k and at c is δ_ck.
    midpoints = totals.cumsum(axis=-1) - totals / 2
    squared = (midpoints[..., None, :] - midpoints[..., :, None]) ** 2
    expected = (totals[..., None, :] * totals[..., :, None] * squared).sum(axis=(-2, -1))
    observed = (totals.sum(axis=-1) - 1) * (matrices * squared).sum(axis=(-2, -1))
    return 1 - np.divide(observed, expected, out=np.full_like(expected, np.nan), where=expected > 0)


def by_unit(judgements: Iterable[tuple[Hashable, int]]) -> dict[Hashable, list[int]]:
    """Group pairs (unit, value) by unit."""
    units: dict[Hashable, list[int]] = {}
    for unit, value in judgements:
        units.setdefault(unit, []).append(value)
    return units
