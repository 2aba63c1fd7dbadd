"""What an editor is: requests in, deltas out, the model unchanged."""

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
    """The result for one request.

    Attributes:
        delta: what to add to the weights.
        diagnostics: numbers worth keeping (losses by step, norms, positions), JSON-ready.
    """

    delta: WeightDelta
    diagnostics: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Resources:
    """What editors may ask for beyond the model; each editor takes what it needs.

    Attributes:
        second_moment: gives C = E[k kᵀ] of a layer's second MLP matrix, loading or fitting it.
        cache_dir: where derived things (context templates) are kept; None keeps nothing.
        seed: the run's seed; everything random derives from it with `romexp.seeds`.
    """

    second_moment: Callable[[int], SecondMoment]
    cache_dir: Path | None = None
    seed: int = 0


class Editor(Protocol):
    """An editing method. Implementations are frozen dataclasses whose fields are its hyper-parameters."""

    @property
    def name(self) -> str:
        """Row label in tables."""
        ...

    def __call__(
        self, lm: LanguageModel, requests: Sequence[EditRequest], *, resources: Resources
    ) -> list[Edit | RecordError]:
        """Edit each request independently of the others; leave `lm` as it was.

        Returns:
            One edit a request, in order; in the place of a request that cannot be edited, its error.
        """
        ...


def pick_layer(lm: LanguageModel, *, layer: int | str | None, fraction: float) -> int:
    """`layer`, or `fraction` of the depth where it is None (GPT-2 XL's 17 of 48 is 0.35).

    Raises:
        ConfigError: no such layer.
    """
    if isinstance(layer, str):  # `traced` is looked up by the experiment, before an editor is called
        raise ConfigError(f"editor.layer: {layer!r} is not a number of a layer, null or traced")
    chosen = round(fraction * lm.n_layers) if layer is None else layer
    if not 0 <= chosen < lm.n_layers:
        raise ConfigError(f"editor.layer: {chosen} is outside 0…{lm.n_layers - 1} of {lm.name!r}")
    return chosen
