"""Which of several settings is chosen, and which are said to be within chance of it."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pandas as pd

from romexp.analysis.setting_choice import Scanned, choose_layer, choose_rate
from romexp.analysis.summary import summarize_frame


def scanned(value: float, successes: Sequence[float], magnitudes: Sequence[float] | float = 0.1) -> Scanned:
    """A setting of which each case has the same value of ES, PS and NS."""
    n = len(successes)
    frame = pd.DataFrame({"case_id": range(n), "complete": True})
    for side in ("pre", "post"):
        for name in ("ES", "PS", "NS"):
            frame[f"{side}/{name}"] = successes
        frame[f"{side}/PM"] = magnitudes
    return Scanned(value=value, summary=summarize_frame(frame), frame=frame)


GOOD, FAIR, BAD = [1.0] * 19 + [0.0], [1.0] * 18 + [0.0] * 2, [1.0] * 8 + [0.0] * 12


def test_the_largest_score_and_what_is_within_chance_of_it() -> None:
    choice = choose_layer([scanned(1, BAD), scanned(2, GOOD), scanned(3, FAIR)], seed=0)
    assert choice.best == 1
    assert choice.alike == [2]
    assert choice.behind[1] is None
    gap = choice.behind[0]
    assert gap is not None
    assert np.isclose(gap["mean"], 100 * (0.95 - 0.4))


def test_equal_scores() -> None:
    layers = [scanned(1, FAIR, 0.1), scanned(2, FAIR, 0.3), scanned(3, FAIR, 0.3)]
    choice = choose_layer(layers, seed=0)
    assert choice.best == 1
    assert choice.alike == [0, 2]
    assert choose_layer(layers[::-1], seed=0).best == 0, "the first one of those"


def test_a_rate_is_changed_only_beyond_chance() -> None:
    assert choose_rate([scanned(0.1, GOOD), scanned(0.2, FAIR)], own=1, seed=0).best == 1
    assert choose_rate([scanned(0.1, GOOD), scanned(0.2, BAD)], own=1, seed=0).best == 0
    assert choose_rate([scanned(0.1, BAD), scanned(0.2, GOOD)], own=1, seed=0).best == 1


def test_cases_are_paired() -> None:
    """The second setting fails on the same cases as the first one and on a few more: that is no chance, though the
    two intervals overlap. With other cases in common it would be one."""
    first, second = [1.0] * 30 + [0.0] * 10, [1.0] * 23 + [0.0] * 17
    assert choose_layer([scanned(1, first), scanned(2, second)], seed=0).alike == []
    assert choose_layer([scanned(1, first), scanned(2, second[::-1])], seed=0).alike == [1]
