"""Krippendorff's alpha against published numbers and limits."""

from __future__ import annotations

import math

import numpy as np
import pytest

from romexp.human_eval.agreement import by_unit, coincidences, ordinal_alpha

# Krippendorff (2011), example C: four observers, twelve units, missing values; ordinal alpha 0.815.
OBSERVERS = (
    (1, 2, 3, 3, 2, 1, 4, 1, 2, None, None, None),
    (1, 2, 3, 3, 2, 2, 4, 1, 2, 5, None, 3),
    (None, 3, 3, 3, 2, 3, 4, 2, 2, 5, 1, None),
    (1, 2, 3, 3, 2, 4, 4, 1, 2, 5, 1, None),
)


def test_the_published_example() -> None:
    units = by_unit((unit, value) for observer in OBSERVERS for unit, value in enumerate(observer) if value is not None)
    matrix = coincidences(units, n_values=5)
    assert matrix.sum() == pytest.approx(40), "40 pairable values: the last unit has one observer"
    assert matrix.sum(axis=1) == pytest.approx([9, 13, 10, 5, 3])
    assert ordinal_alpha(matrix) == pytest.approx(0.815, abs=5e-4)


def test_limits() -> None:
    same = {unit: [1 + unit % 3] * 2 for unit in range(30)}
    assert ordinal_alpha(coincidences(same, n_values=3)) == pytest.approx(1.0)
    random = np.random.default_rng(0)
    chance = {unit: list(random.integers(1, 4, 3)) for unit in range(3000)}
    assert ordinal_alpha(coincidences(chance, n_values=3)) == pytest.approx(0.0, abs=0.03)
    opposite = {unit: [1, 3] for unit in range(10)}
    assert ordinal_alpha(coincidences(opposite, n_values=3)) < 0


def test_without_variation_or_second_judgements_it_is_undefined() -> None:
    assert math.isnan(ordinal_alpha(coincidences({1: [2, 2], 2: [2, 2]}, n_values=3)))
    assert math.isnan(ordinal_alpha(coincidences({1: [1], 2: [3]}, n_values=3)))


def test_neighbouring_ranks_disagree_less_than_distant_ones() -> None:
    near = {unit: [rank, max(1, rank - 1)] for unit, rank in enumerate([1, 2, 3] * 10)}
    far = {unit: [rank, 4 - rank] for unit, rank in enumerate([1, 2, 3] * 10)}
    assert ordinal_alpha(coincidences(near, n_values=3)) > ordinal_alpha(coincidences(far, n_values=3))
