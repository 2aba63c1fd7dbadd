"""What an evaluator is: cases and edits in, one row of raw numbers a case out (DESIGN §1.4)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Protocol

from romexp.errors import ConfigError
from romexp.evaluation.generation import References
from romexp.facts import Case
from romexp.lm.model import LanguageModel
from romexp.lm.weight_delta import WeightDelta

EvaluationRow = dict[str, Any]
"""JSON-ready raw measurements of one case under one model; `romexp.analysis.metrics` turns it into metrics."""


class Evaluator(Protocol):
    """A measuring protocol. Implementations are frozen dataclasses whose fields are their settings."""

    @property
    def needs_references(self) -> bool:
        """Whether `references` will be looked at; if not, the snippets need not be downloaded."""
        ...

    def __call__(
        self,
        lm: LanguageModel,
        cases: Sequence[Case],
        *,
        deltas: Sequence[WeightDelta | None],
        seed: int,
        references: References | None = None,
    ) -> list[EvaluationRow]:
        """Measure each case on its own edited model.

        Unedited and edited rows of the same cases are cheapest together: `cases + cases`,
        `deltas=[None] * n + deltas`. A row does not depend on the others, beyond floating-point noise.

        Args:
            deltas: one a case, None for the unedited model.
            seed: the run's seed; every random draw derives from it, the case id and a purpose.
            references: texts that generations are compared with; None leaves those scores null.

        Returns:
            One row a case, in order. A score that cannot be taken is null and the row's `notes` say why.
        """
        ...


def split_deltas(deltas: Sequence[WeightDelta | None], n_cases: int) -> tuple[list[WeightDelta], list[int]]:
    """The deltas that are there, and each case's index among them (-1 for the unedited model).

    Raises:
        ValueError: not exactly one entry a case.
    """
    if len(deltas) != n_cases:
        raise ValueError(f"{n_cases} cases but {len(deltas)} deltas: give one a case, None for the unedited model")
    present: list[WeightDelta] = []
    edits: list[int] = []
    for delta in deltas:
        edits.append(-1 if delta is None else len(present))
        if delta is not None:
            present.append(delta)
    return present, edits


def finite(value: float) -> float | None:
    """The number, or None where it is not finite: strict JSON has no NaN, and a diverged edit produces them."""
    return float(value) if math.isfinite(value) else None


def on_off(value: str | bool, *, field: str) -> bool:
    """The one reading of an `on`/`off` setting. YAML 1.1 turns a bare `off` into False, Hydra's command line does not.

    Raises:
        ConfigError: neither on nor off.
    """
    if isinstance(value, bool):
        return value
    meanings = {"on": True, "true": True, "off": False, "false": False}
    if value.lower() not in meanings:
        raise ConfigError(f"{field}: {value!r} is neither 'on' nor 'off'")
    return meanings[value.lower()]
