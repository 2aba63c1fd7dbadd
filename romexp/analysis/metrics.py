"""The paper's metrics of one case, each defined once
(docs/method.md §5.3, §5.4, §5.6). Fractions here; ×100 is for tables.

All take an evaluator's raw row. NLLs are per prompt [of target_new, of target_true], means over the target's tokens,
and a probability is exp(-nll), the geometric mean over them.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

Pair = Sequence[float | None]
"""[nll of target_new, nll of target_true]; None for one that was not finite."""

COUNTERFACT = ("S", "ES", "EM", "PS", "PM", "NS", "NM", "GE", "RS")
"""Columns of the paper's Table 4, in its order."""

ZSRE = ("S", "Efficacy", "Paraphrase", "Specificity")
"""Columns of the paper's Table 1, after the score S of docs/method.md §5.7."""

Kind = Literal["counterfact", "zsre"]
"""Which of the two sets of metrics a data set is measured by."""

SCORED = (("ES", "PS", "NS"), ("Efficacy", "Paraphrase", "Specificity"))
"""The three metrics whose means' harmonic mean is S, for CounterFact and for zsRE."""

UNSCALED = ("essence",)
"""Metrics that are not multiplied by 100 in summaries."""


def columns_of(kind: Kind) -> tuple[str, ...]:
    """Metrics of a kind of data set, in the paper's order."""
    return ZSRE if kind == "zsre" else COUNTERFACT


def case_metrics(measured: Mapping[str, Any]) -> dict[str, float]:
    """Every metric the measurements allow, by the paper's name.

    One without prompts, or whose score is null, is left out. S is a score of many cases and is not here.
    """
    metrics: dict[str, float] = {}
    for name, (key, per_prompt) in _PAIRWISE.items():
        metrics[name] = _mean([per_prompt(pair) for pair in measured.get(key) or ()])
    for name, key in _ACCURACIES.items():
        metrics[name] = _mean([float(right) for right in measured.get(key) or ()])
    for name, key in _TEXT_SCORES.items():
        value = measured.get(key)
        metrics[name] = math.nan if value is None else float(value)
    return {name: value for name, value in metrics.items() if math.isfinite(value)}


def new_is_likelier(pair: Pair) -> float:
    """Success of the edit at one prompt (ES, PS): 1 iff nll_true > nll_new, strictly. A null NLL is no success."""
    new, true = pair
    return float(new is not None and true is not None and true > new)


def true_is_likelier(pair: Pair) -> float:
    """Success at one neighbour (NS): 1 iff nll_true < nll_new, strictly. A null NLL is no success."""
    new, true = pair
    return float(new is not None and true is not None and true < new)


def margin_of_new(pair: Pair) -> float:
    """Magnitude at one prompt (EM, PM): p(new) - p(true), positive where edited. NaN for a null NLL."""
    new, true = pair
    return math.nan if new is None or true is None else math.exp(-new) - math.exp(-true)


def margin_of_true(pair: Pair) -> float:
    """Magnitude at one neighbour (NM): p(true) - p(new), positive where preserved. NaN for a null NLL."""
    return -margin_of_new(pair)


_PAIRWISE: Mapping[str, tuple[str, Callable[[Pair], float]]] = {
    "ES": ("rewrite_prompts", new_is_likelier),
    "EM": ("rewrite_prompts", margin_of_new),
    "PS": ("paraphrase_prompts", new_is_likelier),
    "PM": ("paraphrase_prompts", margin_of_new),
    "NS": ("neighborhood_prompts", true_is_likelier),
    "NM": ("neighborhood_prompts", margin_of_true),
}
_TEXT_SCORES: Mapping[str, str] = {
    "GE": "ngram_entropy",  # bits; 6.2 bits print as 620
    "RS": "reference_score",
    "essence": "essence_score",
}
_ACCURACIES: Mapping[str, str] = {
    "Efficacy": "rewrite_prompts_correct",
    "Paraphrase": "paraphrase_prompts_correct",
    "Specificity": "neighborhood_prompts_correct",
}


def _mean(values: Sequence[float]) -> float:
    """Over the prompts (or tokens) of a case; NaN without any."""
    return math.fsum(values) / len(values) if values else math.nan
