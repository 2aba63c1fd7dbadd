"""Second moments by layer, each loaded or measured once and then kept in memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from romexp.stats.second_moment import SecondMoment


@dataclass(frozen=True, kw_only=True, eq=False)
class MomentSource:
    """A function from a layer to its second moment.

    Attributes:
        load: loads or measures the second moments of several layers, in one pass over the texts.
    """

    load: Callable[[Sequence[int]], dict[int, SecondMoment]]
    _known: dict[int, SecondMoment] = field(default_factory=dict, init=False, repr=False)

    def __call__(self, layer: int) -> SecondMoment:
        """The second moment of a layer.

        Raises:
            ConfigError: see `Covariance.moments`.
            DataError: see `Covariance.moments`.
        """
        self.prepare([layer])
        return self._known[layer]

    def prepare(self, layers: Sequence[int]) -> None:
        """Load or measure those of several layers, so that one pass serves them all.

        Raises:
            ConfigError: see `Covariance.moments`.
            DataError: see `Covariance.moments`.
        """
        if missing := [layer for layer in layers if layer not in self._known]:
            self._known.update(self.load(missing))
