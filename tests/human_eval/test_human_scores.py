"""Who is ranked before whom, with intervals and agreement."""

from __future__ import annotations

import json

import numpy as np
import pytest
from human_cases import SYSTEMS

from romexp.human_eval.answers import MEASURES, Ranking
from romexp.human_eval.scores import score


def rankings(
    preference: float, *, cases: int = 50, per_case: int = 3, people: int = 15, seed: int = 0
) -> list[Ranking]:
    """ROME before FT+L with this probability, both before the unedited model."""
    random = np.random.default_rng(seed)
    made = []
    for number in range(cases * per_case):
        for measure in MEASURES:
            first = random.random() < preference
            ranks = {"rome": 1 if first else 2, "ft_l": 2 if first else 1, "unedited": 3}
            made.append(
                Ranking(participant=1 + number % people, case_id=number // per_case, measure=measure, ranks=ranks)
            )
    return made


def pair(scores: dict, one: str, other: str, measure: str = "consistency") -> dict:
    (found,) = [p for p in scores[measure]["pairs"] if (p["one"], p["other"]) == (one, other)]
    return found


def test_counts_shares_and_ratios_by_hand() -> None:
    made = [
        Ranking(participant=p, case_id=c, measure=m, ranks=dict(zip(SYSTEMS, ranks, strict=True)))
        for p, c, ranks in [(1, 1, (3, 2, 1)), (1, 2, (3, 1, 2)), (2, 1, (2, 3, 1)), (2, 2, (3, 2, 1))]
        for m in MEASURES
    ]
    scores = score(made, SYSTEMS)
    assert json.loads(json.dumps(scores)) == scores
    first = pair(scores, "rome", "ft_l")
    assert (first["wins"], first["losses"], first["share"], first["ratio"]) == (3, 1, 0.75, pytest.approx(3))
    all_won = pair(scores, "rome", "unedited")
    assert (all_won["wins"], all_won["losses"], all_won["ratio"]) == (4, 0, None)
    assert all_won["share_interval"] == [None, None], "four that agree are no certainty"
    assert pair(scores, "ft_l", "unedited")["ratio"] == pytest.approx(3)
    assert scores["fluency"]["systems"]["rome"] == {"mean_rank": 1.25, "first": 0.75}
    assert scores["consistency"]["rankings"] == 4


def test_the_papers_statement_stands_beside_the_pair_it_is_about() -> None:
    scores = score(rankings(0.6), SYSTEMS)
    assert pair(scores, "rome", "ft_l")["published_ratio"] == 1.8
    assert pair(scores, "rome", "ft_l", "fluency")["published_ratio"] == pytest.approx(1 / 1.3)
    assert pair(scores, "rome", "unedited")["published_ratio"] is None


def test_intervals_hold_the_truth_and_narrow_with_cases() -> None:
    covered, widths = 0, {50: 0.0, 400: 0.0}
    for seed in range(20):
        found = pair(score(rankings(0.643, seed=seed), SYSTEMS, seed=seed), "rome", "ft_l")
        low, high = found["share_interval"]
        covered += low <= 0.643 <= high
        assert found["ratio_interval"] == pytest.approx([low / (1 - low), high / (1 - high)])
        widths[50] += (high - low) / 20
    low, high = pair(score(rankings(0.643, cases=400, people=120), SYSTEMS), "rome", "ft_l")["share_interval"]
    assert covered >= 18
    assert high - low < widths[50] / 2


def test_a_participant_of_strong_opinion_widens_the_interval() -> None:
    """A control for drawing participants anew: with the same totals, clustered answers are less certain."""
    even = rankings(0.5, people=15)
    clustered = [
        Ranking(
            participant=r.participant,
            case_id=r.case_id,
            measure=r.measure,
            ranks={"rome": 1 + r.participant % 2, "ft_l": 2 - r.participant % 2, "unedited": 3},
        )
        for r in even
    ]
    spread = [
        np.subtract(*reversed(pair(score(made, SYSTEMS), "rome", "ft_l")["share_interval"]))
        for made in (even, clustered)
    ]
    assert spread[1] > 1.5 * spread[0]


def test_agreement() -> None:
    same = score(rankings(1.0), SYSTEMS)["consistency"]["agreement"]
    assert (same["alpha"], same["cases"], same["participants"]) == (pytest.approx(1), 50, 15)
    assert same["interval"] == pytest.approx([1, 1])
    split = score(rankings(0.5), SYSTEMS)["consistency"]["agreement"]
    assert 0.3 < split["alpha"] < 0.9, "all agree on the last place only"
    assert split["interval"][0] < split["alpha"] < split["interval"][1]
    alone = score(rankings(0.5, per_case=1, people=1), SYSTEMS)["consistency"]["agreement"]
    assert (alone["alpha"], alone["interval"]) == (None, [None, None])


def test_the_seed_fixes_the_bootstrap() -> None:
    made = rankings(0.6)
    assert score(made, SYSTEMS, seed=1) == score(made, SYSTEMS, seed=1)
    assert score(made, SYSTEMS, seed=1) != score(made, SYSTEMS, seed=2)
