"""The interface of editors: an editor takes edit requests and returns weight deltas. It does not change the model
(docs/method.md §9.1).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

from romexp.errors import ConfigError, RecordError
from romexp.facts import EditRequest
from romexp.lm.model import LanguageModel
from romexp.lm.weight_delta import WeightDelta
from romexp.stats.second_moment import SecondMoment


@dataclass(frozen=True, kw_only=True)
class Edit:
    """The edit for one request.

    Attributes:
        delta: the terms to add to the model's weights.
        diagnostics: JSON-ready numbers about the edit, such as losses by step and norms. They go into the case's row.
    """

    delta: WeightDelta
    diagnostics: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Goal:
    """What an edit is to reach, if not that the model says the new target (docs/method.md §14.2).

    Attributes:
        unsay: the target becomes less likely: in the loss its probability takes the place of its NLL. Then a small loss
            does not end the optimization.
        copies: number of rows of each prompt that fine-tuning averages its loss over, for inputs that are noised
            differently in each row; ROME and MEMIT have several contexts anyway.
    """

    unsay: bool = False
    copies: int = 1


SAY = Goal()


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What an editor may need besides the model.

    Attributes:
        second_moment: returns C = E[k kᵀ] of a layer's keys (docs/method.md §3.3); it loads or measures it when called.
        prepare: loads or measures the second moments of several layers, in one pass over the texts, so that
            `second_moment` has them at hand. None: each is loaded or measured when it is asked for.
        cache_dir: folder for derived data such as context templates; None stores nothing.
        seed: the run's seed, from which all random numbers are derived (`romexp.seeds`).
        goal: what the edit is to reach; ROME, FT, MEMIT and its relatives read it.
    """

    second_moment: Callable[[int], SecondMoment]
    prepare: Callable[[Sequence[int]], None] | None = None
    cache_dir: Path | None = None
    seed: int = 0
    goal: Goal = SAY


class Editor(Protocol):
    """An editing method. Implementations are frozen dataclasses whose fields are the method's hyper-parameters."""

    @property
    def name(self) -> str:
        """The method's label in tables."""
        ...

    def __call__(
        self, lm: LanguageModel, requests: Sequence[EditRequest], *, resources: Resources
    ) -> list[Edit | RecordError]:
        """Compute an edit for each request, independently of the other requests. `lm` does not change.

        Returns:
            For each request, in order, its edit; or the `RecordError` for which it cannot be edited.
        """
        ...


def pick_layer(lm: LanguageModel, *, layer: int | str | None, fraction: float) -> int:
    """`layer`, or round(`fraction` · number of layers) if `layer` is None.

    Raises:
        ConfigError: the model has no such layer.
    """
    if isinstance(layer, str):  # `with_traced_layer` replaces `traced` by a number before an editor is called.
        raise ConfigError(f"editor.layer: {layer!r} is not a number of a layer, null or traced")
    chosen = round(fraction * lm.n_layers) if layer is None else layer
    if not 0 <= chosen < lm.n_layers:
        raise ConfigError(f"editor.layer: {chosen} is outside 0…{lm.n_layers - 1} of {lm.name!r}")
    return chosen
