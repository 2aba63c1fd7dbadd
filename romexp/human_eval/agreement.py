"""Agreement between people who judged the same things: Krippendorff's alpha for ordinal judgements."""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping, Sequence

import numpy as np

Units = Mapping[Hashable, Sequence[int]]
"""By thing that was judged (unit), the judgements of it, in any order: values of 1 … n_values."""


def coincidences(units: Units, *, n_values: int) -> np.ndarray:
    """(n_values × n_values): how often two judges gave these two values to one thing; each judge counts once a thing.

    Things that one person alone has judged say nothing about agreement and are left out.
    """
    matrix = np.zeros((n_values, n_values))
    for values in units.values():
        if len(values) < 2:
            continue
        counts = np.bincount(np.asarray(values) - 1, minlength=n_values).astype(float)
        matrix += (np.outer(counts, counts) - np.diag(counts)) / (len(values) - 1)
    return matrix


def ordinal_alpha(matrices: np.ndarray) -> np.ndarray:
    """Krippendorff's alpha with the ordinal metric: 1 is full agreement, 0 what chance gives, NaN if undefined.

    α = 1 − (n − 1) · Σ o_ck δ²_ck / Σ n_c n_k δ²_ck over pairs c < k, with δ_ck = Σ_{g=c…k} n_g − (n_c + n_k) / 2
    (Krippendorff 2011, "Computing Krippendorff's alpha-reliability").

    Args:
        matrices: (… × n_values × n_values) of `coincidences`; those of different things may be added up.

    Returns:
        (…).
    """
    totals = matrices.sum(axis=-1)
    upto = totals.cumsum(axis=-1) - totals / 2
    squared = (upto[..., None, :] - upto[..., :, None]) ** 2
    expected = (totals[..., None, :] * totals[..., :, None] * squared).sum(axis=(-2, -1))
    observed = (totals.sum(axis=-1) - 1) * (matrices * squared).sum(axis=(-2, -1))
    return 1 - np.divide(observed, expected, out=np.full_like(expected, np.nan), where=expected > 0)


def by_unit(judgements: Iterable[tuple[Hashable, int]]) -> dict[Hashable, list[int]]:
    """Collect (unit, value) pairs by unit."""
    units: dict[Hashable, list[int]] = {}
    for unit, value in judgements:
        units.setdefault(unit, []).append(value)
    return units
