"""Scores of a human evaluation: how often a system is ranked before another, with intervals, and agreement of people.

Implements docs/method.md §6.3.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from rich.table import Table

from romexp.human_eval.agreement import by_unit, coincidences, ordinal_alpha
from romexp.human_eval.answers import MEASURES, Ranking
from romexp.reporting.tables.fitting import FittingTable
from romexp.reporting.terminal import literal
from romexp.seeds import derive_seed

PUBLISHED: Mapping[tuple[str, str, str], float] = {
    ("consistency", "rome", "ft_l"): 1.8,
    ("fluency", "rome", "ft_l"): 1 / 1.3,
}
"""The paper's ratios wins / losses for GPT-2 XL, by (measure, one system, other system); 150 rankings of each kind.

ROME was ranked more consistent than FT+L 1.8 times as often as less consistent. FT+L was ranked more fluent than ROME
1.3 times as often as less fluent.
"""

RESAMPLES = 2000
Interval = list[float | None]
Scores = dict[str, Any]


def score(rankings: Sequence[Ranking], systems: Sequence[str], *, seed: int = 0) -> dict[str, Scores]:
    """The scores of each measure as JSON values: `rankings` (their number), `systems`, `pairs` and `agreement`.

    - A system has its `mean_rank`, and as `first` the fraction of rankings in which it has rank 1.
    - A pair has the `wins` and `losses` of its system `one` against its system `other`, the `share`
      wins / (wins + losses), and the `ratio` wins / losses, which is null if there are no losses.
    - Agreement is Krippendorff's ordinal alpha over (case, system). It is null if no case has two participants.

    All intervals are 95 % percentile bootstrap intervals. Those of shares and ratios resample cases and participants
    (Owen's pigeonhole bootstrap), and those of alpha resample cases.

    Args:
        rankings: all rankings.
        systems: the systems in some order. In a pair, `one` is the later of the two.
        seed: seed of the bootstrap.
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
    """Share and ratio of one pair. If all rankings agree, so do all resamples, and the intervals are None.

    Args:
        won: bool (rankings,): whether the first system was ranked before the second.
        weights: (resamples × rankings), from `_weights`.
    """
    wins, losses = int(won.sum()), int((~won).sum())
    low, high = _percentiles((weights @ won) / weights.sum(axis=1)) if wins and losses else [None, None]
    return {
        "wins": wins,
        "losses": losses,
        "share": wins / (wins + losses),
        "share_interval": [low, high],
        "ratio": _ratio(wins / (wins + losses)),
        # The ratio increases with the share, so its percentiles are the ratios of the share's percentiles.
        "ratio_interval": [_ratio(low), _ratio(high)],
    }


def _ratio(share: float | None) -> float | None:
    return None if share is None or share >= 1 else share / (1 - share)


def _weights(rankings: Sequence[Ranking], random: np.random.Generator) -> np.ndarray:
    """(resamples × rankings): how often each ranking occurs in each resample. Empty resamples are left out."""
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
    """The coincidence matrix of the rankings of one case."""
    units = by_unit((system, r.ranks[system]) for r in rankings for system in systems)
    return coincidences(units, n_values=len(systems))


def _percentiles(values: np.ndarray) -> Interval:
    """The 2.5th and the 97.5th percentile of the finite values; None if there are none."""
    finite = values[np.isfinite(values)]
    if not len(finite):
        return [None, None]
    return [float(value) for value in np.percentile(finite, [2.5, 97.5])]


_ADJECTIVE = {"consistency": "more consistent", "fluency": "more fluent"}
_DASH = "–"


def score_tables(scores: Mapping[str, Mapping[str, Any]], labels: Mapping[str, str]) -> list[Table]:
    """A table of pairs for each measure, and a table of the systems.

    Args:
        scores: the result of `score`.
        labels: the labels of the systems in the tables.
    """
    return [*(_pairs(measure, entry, labels) for measure, entry in scores.items()), _systems(scores, labels)]


def _pairs(measure: str, entry: Mapping[str, Any], labels: Mapping[str, str]) -> Table:
    agreement = entry["agreement"]
    title = (
        f"{measure}: {entry['rankings']} rankings of {agreement['cases']} cases by {agreement['participants']} people"
    )
    alpha = f"Krippendorff's alpha {_number(agreement['alpha'])} {_interval(agreement['interval'])}".rstrip()
    table = FittingTable(title=title, caption=f"{alpha}; 95 % intervals in brackets")
    table.add_column("ranked " + _ADJECTIVE[measure], no_wrap=True)
    for column in ("times", "share", "", "ratio", "", "paper"):
        table.add_column(column, justify="right", no_wrap=True)
    for pair in entry["pairs"]:
        percent = [None if value is None else 100 * value for value in pair["share_interval"]]
        table.add_row(
            literal(f"{labels[pair['one']]} than {labels[pair['other']]}"),
            f"{pair['wins']} of {pair['wins'] + pair['losses']}",
            f"{100 * pair['share']:.1f} %",
            literal(_interval(percent, digits=1)),
            _number(pair["ratio"]),
            literal(_interval(pair["ratio_interval"])),
            _number(pair["published_ratio"]),
        )
    return table


def _systems(scores: Mapping[str, Mapping[str, Any]], labels: Mapping[str, str]) -> Table:
    table = FittingTable(title="mean rank (1 is best), and how often first")
    table.add_column("system")
    for measure in scores:
        table.add_column(measure, justify="right")
    for system, label in labels.items():
        entries = [entry["systems"][system] for entry in scores.values()]
        table.add_row(
            literal(label), *(f"{entry['mean_rank']:.2f} ({100 * entry['first']:.0f} %)" for entry in entries)
        )
    return table


def _number(value: float | None, digits: int = 2) -> str:
    return _DASH if value is None else f"{value:.{digits}f}"


def _interval(interval: list[float | None], digits: int = 2) -> str:
    low, high = interval
    return "" if low is None and high is None else f"[{_number(low, digits)}, {_number(high, digits)}]"
