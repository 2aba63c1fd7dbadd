"""Scores of a human evaluation: who is ranked before whom how often, how sure that is, and whether people agree."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich.table import Table

from romexp.human_eval.agreement import by_unit, coincidences, ordinal_alpha
from romexp.human_eval.answers import MEASURES, Ranking
from romexp.seeds import derive_seed

PUBLISHED: Mapping[tuple[str, str, str], float] = {
    ("consistency", "rome", "ft_l"): 1.8,
    ("fluency", "rome", "ft_l"): 1 / 1.3,
}
"""The paper's statement, as ratios: ROME 1.8 times more often more consistent than FT+L, 1.3 times less often more
fluent (GPT-2 XL, 150 rankings of each kind)."""

RESAMPLES = 2000
Interval = list[float | None]
Scores = dict[str, Any]


def score(rankings: Sequence[Ranking], systems: Sequence[str], *, seed: int = 0) -> dict[str, Scores]:
    """By measure: `rankings` (count), `systems`, `pairs`, `agreement`. JSON-ready.

    A system has its `mean_rank` and `first`, the share of rankings that it leads. A pair has `wins` and `losses` of the
    one against the other, their `share` wins / (wins + losses) and `ratio` wins / losses (null where losses are 0).
    Agreement is Krippendorff's ordinal alpha over (case, system), null where no case has two participants. 95 %
    intervals are percentile bootstraps: of shares and ratios over cases and participants, both drawn anew each time
    (Owen's pigeonhole bootstrap); of alpha over cases.

    Args:
        systems: in an order; pairs name the later one first, so that the last is compared with all others.
        seed: of the bootstrap.
    """
    return {
        measure: _score([r for r in rankings if r.measure == measure], measure, list(systems), seed)
        for measure in MEASURES
    }


def _score(rankings: Sequence[Ranking], measure: str, systems: Sequence[str], seed: int) -> Scores:
    ranks = np.array([[r.ranks[system] for system in systems] for r in rankings])
    weights = _weights(rankings, np.random.default_rng(derive_seed(seed, measure, "human_eval bootstrap")))
    pairs = []
    for low, high in sorted(itertools.combinations(range(len(systems)), 2), key=lambda pair: (-pair[1], -pair[0])):
        pair = {"one": systems[high], "other": systems[low]}
        pair |= _pair(ranks[:, high] < ranks[:, low], weights)
        pairs.append(pair | {"published_ratio": PUBLISHED.get((measure, systems[high], systems[low]))})
    return {
        "rankings": len(rankings),
        "systems": {
            system: {"mean_rank": float(ranks[:, i].mean()), "first": float((ranks[:, i] == 1).mean())}
            for i, system in enumerate(systems)
        },
        "pairs": pairs,
        "agreement": _agreement(rankings, systems, seed),
    }


def _pair(won: np.ndarray, weights: np.ndarray) -> Scores:
    """Shares and ratios of one pair.

    Args:
        won: (rankings,) whether the one was ranked before the other.
        weights: (resamples × rankings).
    """
    wins, losses = int(won.sum()), int((~won).sum())
    low, high = _percentiles((weights @ won) / weights.sum(axis=1))
    return {
        "wins": wins,
        "losses": losses,
        "share": wins / (wins + losses),
        "share_interval": [low, high],
        "ratio": _ratio(wins / (wins + losses)),
        "ratio_interval": [_ratio(low), _ratio(high)],  # the ratio grows with the share, so percentiles carry over
    }


def _ratio(share: float | None) -> float | None:
    return None if share is None or share >= 1 else share / (1 - share)


def _weights(rankings: Sequence[Ranking], random: np.random.Generator) -> np.ndarray:
    """(resamples × rankings): how often each ranking is in each resample; resamples that drew none are left out."""
    weights = np.ones((RESAMPLES, len(rankings)))
    for names in ([r.case_id for r in rankings], [r.participant for r in rankings]):
        values, index = np.unique(names, return_inverse=True)
        if len(values) > 1:
            weights *= random.multinomial(len(values), np.full(len(values), 1 / len(values)), RESAMPLES)[:, index]
    return weights[weights.sum(axis=1) > 0]


def _agreement(rankings: Sequence[Ranking], systems: Sequence[str], seed: int) -> Scores:
    cases = sorted({r.case_id for r in rankings})
    by_case = np.stack([_coincidences([r for r in rankings if r.case_id == case], systems) for case in cases])
    alpha = float(ordinal_alpha(by_case.sum(axis=0)))
    random = np.random.default_rng(derive_seed(seed, "human_eval agreement"))
    draws = random.multinomial(len(cases), np.full(len(cases), 1 / len(cases)), RESAMPLES)
    resampled = ordinal_alpha(np.tensordot(draws, by_case, axes=1))
    return {
        "alpha": alpha if math.isfinite(alpha) else None,
        "interval": _percentiles(resampled),
        "participants": len({r.participant for r in rankings}),
        "cases": len(cases),
    }


def _coincidences(rankings: Sequence[Ranking], systems: Sequence[str]) -> np.ndarray:
    """Of one case's rankings."""
    units = by_unit((system, r.ranks[system]) for r in rankings for system in systems)
    return coincidences(units, n_values=len(systems))


def _percentiles(values: np.ndarray) -> Interval:
    """The middle 95 %; nulls where nothing is finite."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        return [None, None]
    return [float(value) for value in np.percentile(finite, [2.5, 97.5])]


_ADJECTIVE = {"consistency": "more consistent", "fluency": "more fluent"}
_DASH = "–"


def score_tables(scores: Mapping[str, Mapping[str, Any]], labels: Mapping[str, str]) -> list[Table]:
    """One table of pairs a measure, and one of the systems.

    Args:
        scores: of `human_scores.score`.
        labels: of the systems, for people.
    """
    return [*(_pairs(measure, entry, labels) for measure, entry in scores.items()), _systems(scores, labels)]


def _pairs(measure: str, entry: Mapping[str, Any], labels: Mapping[str, str]) -> Table:
    agreement = entry["agreement"]
    title = (
        f"{measure}: {entry['rankings']} rankings of {agreement['cases']} cases by {agreement['participants']} people"
    )
    alpha = f"Krippendorff's alpha {_number(agreement['alpha'])} {_interval(agreement['interval'])}".rstrip()
    table = Table(title=title, caption=f"{alpha}; 95 % intervals in brackets")
    table.add_column("ranked " + _ADJECTIVE[measure], no_wrap=True)
    for column in ("times", "share", "", "ratio", "", "paper"):
        table.add_column(column, justify="right", no_wrap=True)
    for pair in entry["pairs"]:
        percent = [None if value is None else 100 * value for value in pair["share_interval"]]
        table.add_row(
            f"{labels[pair['one']]} than {labels[pair['other']]}",
            f"{pair['wins']} of {pair['wins'] + pair['losses']}",
            f"{100 * pair['share']:.1f} %",
            _interval(percent, digits=1),
            _number(pair["ratio"]),
            _interval(pair["ratio_interval"]),
            _number(pair["published_ratio"]),
        )
    return table


def _systems(scores: Mapping[str, Mapping[str, Any]], labels: Mapping[str, str]) -> Table:
    table = Table(title="mean rank (1 is best), and how often first")
    table.add_column("system")
    for measure in scores:
        table.add_column(measure, justify="right")
    for system, label in labels.items():
        entries = [entry["systems"][system] for entry in scores.values()]
        table.add_row(label, *(f"{entry['mean_rank']:.2f} ({100 * entry['first']:.0f} %)" for entry in entries))
    return table


def _number(value: float | None, digits: int = 2) -> str:
    return _DASH if value is None else f"{value:.{digits}f}"


def _interval(interval: list[float | None], digits: int = 2) -> str:
    low, high = interval
    return "" if low is None and high is None else f"[{_number(low, digits)}, {_number(high, digits)}]"
