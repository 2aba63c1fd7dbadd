"""The interface of an evaluator, which returns raw numbers for each case, not means (docs/method.md §9.4)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Protocol

from romexp.errors import ConfigError, RecordError
from romexp.evaluation.generation import References
from romexp.facts import Case, Measurements
from romexp.lm.model import LanguageModel
from romexp.lm.weight_delta import WeightDelta


class Evaluator(Protocol):
    """Measures cases. Implementations are frozen dataclasses whose fields are their settings."""

    @property
    def needs_references(self) -> bool:
        """Whether this evaluator reads `references`. If it does not, the snippets need not be downloaded."""
        ...

    def __call__(
        self,
        lm: LanguageModel,
        cases: Sequence[Case],
        *,
        deltas: Sequence[WeightDelta | None],
        seed: int,
        references: References | None = None,
    ) -> list[Measurements | RecordError]:
        """Measure each case on its own edited model.

        To measure both the unedited and the edited model, one call with both is cheapest: `cases + cases` with
        `deltas=[None] * n + deltas`. Apart from rounding, the result of a case does not depend on the other cases.

        Args:
            lm: the unedited model.
            deltas: one for each case; None stands for the unedited model.
            seed: the run's seed. The seed of every random draw is derived from it, the case id and the draw's purpose.
            references: texts that generated texts are compared with. If it is None, the scores that need them are null.

        Returns:
            The measurements of each case, in the order of `cases`, or the error of a case that cannot be measured. A
            score that cannot be computed is null, and the entry `notes` says why.
        """
        ...


def finite(value: float) -> float | None:
    """The number, or None if it is not finite. A diverged edit can produce NaN, which strict JSON cannot express."""
    return float(value) if math.isfinite(value) else None


def on_off(value: str | bool, *, field: str) -> bool:
    """Read an `on`/`off` setting. It may be a bool, because YAML 1.1 reads a bare `off` as False.

    Raises:
        ConfigError: the value is neither on nor off.
    """
    if isinstance(value, bool):
        return value
    meanings = {"on": True, "true": True, "off": False, "false": False}
    if value.lower() not in meanings:
        raise ConfigError(f"{field}: {value!r} is neither 'on' nor 'off'")
    return meanings[value.lower()]
