"""The definitions of the paper's metrics for one case (docs/method.md §5.3, §5.4, §5.6).

They are computed from an evaluator's raw measurements. Scores are fractions; only tables multiply them by 100. An NLL
is a mean over the tokens of a target, so exp(-NLL) is the geometric mean of the tokens' probabilities.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Literal

Pair = Sequence[float | None]
"""[NLL of target_new, NLL of target_true] at one prompt, in nats; None for an NLL that was not finite."""

COUNTERFACT = ("S", "ES", "EM", "PS", "PM", "NS", "NM", "GE", "RS")
"""Columns of the paper's Table 4, in its order."""

ZSRE = ("S", "Efficacy", "Paraphrase", "Specificity")
"""The score S, which the paper does not show for zsRE (docs/method.md §5.6), and the columns of its Table 1."""

Kind = Literal["counterfact", "zsre"]
"""The two sets of metrics. Each data set is measured by one of them."""

SCORED = (("ES", "PS", "NS"), ("Efficacy", "Paraphrase", "Specificity"))
"""For CounterFact and for zsRE, the three metrics whose means have S as their harmonic mean."""

RATES = tuple(name for names in SCORED for name in names)
"""Metrics that are shares of outcomes: a case's value is a mean of zeros and ones."""

UNSCALED = ("essence",)
"""Metrics that are not multiplied by 100 in summaries."""


def columns_of(kind: Kind) -> tuple[str, ...]:
    """Metrics of a kind, in the paper's order."""
    return ZSRE if kind == "zsre" else COUNTERFACT


def case_metrics(measured: Mapping[str, Any]) -> dict[str, float]:
    """All metrics that can be computed from a case's measurements, by the paper's names.

    A metric is left out if the case has no prompts for it or its score is null. S is defined only for many cases.
    """
    metrics: dict[str, float] = {}
    for (rate, magnitude), (key, wants_new) in _PAIRWISE.items():
        pairs = measured.get(key) or ()
        metrics[rate] = _mean(_successes(pairs, wants_new=wants_new))
        margin = _mean(_margins(pairs))
        metrics[magnitude] = margin if wants_new else -margin
    for name, key in _ACCURACIES.items():
        metrics[name] = _mean([float(is_right) for is_right in measured.get(key) or ()])
    for name, key in _TEXT_SCORES.items():
        value = measured.get(key)
        metrics[name] = math.nan if value is None else float(value)
    return {name: value for name, value in metrics.items() if math.isfinite(value)}


def new_is_likelier(pair: Pair) -> float:
    """Success of the edit at one prompt (ES, PS): 1 if nll_true > nll_new, else 0. A null NLL gives 0."""
    return _successes([pair], wants_new=True)[0]


def true_is_likelier(pair: Pair) -> float:
    """Success at one neighbourhood prompt (NS): 1 if nll_true < nll_new, else 0. A null NLL gives 0."""
    return _successes([pair], wants_new=False)[0]


def margin_of_new(pair: Pair) -> float:
    """Magnitude at one prompt (EM, PM): p(new) - p(true), positive if the edit succeeds. A null NLL gives NaN."""
    return _margins([pair])[0]


def margin_of_true(pair: Pair) -> float:
    """Magnitude at one neighbourhood prompt (NM): p(true) - p(new), positive if unchanged. A null NLL gives NaN."""
    return -margin_of_new(pair)


def _successes(pairs: Sequence[Pair], *, wants_new: bool) -> list[float]:
    """All prompts of a case at once: a report has millions of them."""
    if wants_new:
        return [float(new is not None and true is not None and true > new) for new, true in pairs]
    return [float(new is not None and true is not None and true < new) for new, true in pairs]


def _margins(pairs: Sequence[Pair]) -> list[float]:
    exp = math.exp
    return [math.nan if new is None or true is None else exp(-new) - exp(-true) for new, true in pairs]


_PAIRWISE: Mapping[tuple[str, str], tuple[str, bool]] = {
    ("ES", "EM"): ("rewrite_prompts", True),
    ("PS", "PM"): ("paraphrase_prompts", True),
    ("NS", "NM"): ("neighborhood_prompts", False),
}
"""Names of success and magnitude, the prompts at which they are measured, and whether the new answer should win."""
_TEXT_SCORES: Mapping[str, str] = {
    "GE": "ngram_entropy",  # In bits; tables show 6.2 bits as 620.
    "RS": "reference_score",
    "essence": "essence_score",
}
_ACCURACIES: Mapping[str, str] = {
    "Efficacy": "rewrite_prompts_correct",
    "Paraphrase": "paraphrase_prompts_correct",
    "Specificity": "neighborhood_prompts_correct",
}


def _mean(values: Sequence[float]) -> float:
    """The mean over the prompts or tokens of a case; NaN if there are none."""
    return math.fsum(values) / len(values) if values else math.nan
