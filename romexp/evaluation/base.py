"""What an evaluator is: cases and edits in, raw numbers of each case out (docs/method.md §9.4)."""

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
    ) -> list[Measurements | RecordError]:
        """Measure each case on its own edited model.

        Unedited and edited models of the same cases are cheapest together: `cases + cases`,
        `deltas=[None] * n + deltas`. What is measured does not depend on the other cases, beyond rounding.

        Args:
            deltas: one a case, None for the unedited model.
            seed: the run's seed; every random draw derives from it, the case id and a purpose.
            references: texts that generations are compared with; None leaves those scores null.

        Returns:
            The measurements of each case, in order; in the place of a case that cannot be measured, its error. A score
            that cannot be taken is null, and the entry `notes` says why.
        """
        ...


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
