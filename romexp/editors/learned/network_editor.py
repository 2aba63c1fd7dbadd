"""An editor over a trained network: where the network comes from, and one pass of it for all requests
(docs/method.md §4.3).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch

from romexp.editors.base import Edit, Resources
from romexp.editors.learned.base import EditNetwork
from romexp.editors.learned.checkpoint import digest, load
from romexp.editors.learned.factors import edit_factors
from romexp.editors.learned.published import PublishedNetworks
from romexp.editors.targets import edit_text
from romexp.errors import ConfigError, RecordError, result_or_error, with_errors_in_place, without_errors
from romexp.facts import EditRequest
from romexp.lm.model import LanguageModel
from romexp.lm.weight_delta import WeightDelta


@dataclass
class _Held:
    """The network of the latest call, read once; in the training-mode variant its statistics go on changing."""

    network: EditNetwork | None = None
    source: tuple[Path, str] | None = None


@dataclass(frozen=True, kw_only=True)
class NetworkEditor(ABC):
    """What MEND and KE share: where the trained network comes from. First that is set: `checkpoint`, `shipped`,
    `published`. Subclasses name the fields that are sizes of a new network (`_sizes`) and those that say how a trained
    one is used (`_uses`).

    The authors add a `[PAD]` token to the model and make its embedding, the last row, the mean of all rows, so their
    "pre" metrics are those of the resized model (docs/method.md §4.3). Here the model stays as it is: our numbers
    leave that out.

    The network is read at the first call and held (`_held`), so that no edit reads it again.

    Attributes:
        name: row label in tables.
        checkpoint: a network of `task=train` (.safetensors) or a file of the authors (.pt).
        shipped: the network that comes with this model.
        published: name of a file of the authors for this model.
        networks: their server; needed for `published`.
        n_layers: how many of the last layers are edited, both MLP matrices each. For training; a checkpoint knows its
            own.
    """

    name: str
    checkpoint: str | Path | None = None
    shipped: str | Path | None = None
    published: str | None = None
    networks: PublishedNetworks | None = None
    n_layers: int = 3
    _sizes: ClassVar[tuple[str, ...]]
    _uses: ClassVar[tuple[str, ...]]
    _held: _Held = field(default_factory=_Held, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        for size in self._sizes:
            if not getattr(self, size) > 0:
                raise ConfigError(f"editor.{size}: expected a positive number, not {getattr(self, size)}")

    @property
    def provenance(self) -> dict[str, Any]:
        """What decides the edits, by which runs are told apart: the network's content and how it is used.

        Neither where its file lies nor the sizes that a new one would have. A published network is its file's name.

        Raises:
            DataError: the file is missing, torn, or something else.
        """
        given = self.checkpoint or self.shipped
        network = digest(Path(given).expanduser()) if given else self.published
        return {"type": type(self).__name__, "network": network} | {use: getattr(self, use) for use in self._uses}

    @abstractmethod
    def new_network(self, lm: LanguageModel, *, seed: int) -> EditNetwork:
        """An untrained network for a model, on its device, in training mode; the seed decides its weights.

        Raises:
            ConfigError: the model has fewer than `n_layers` layers.
        """

    @abstractmethod
    def _prepared(self, network: EditNetwork, lm: LanguageModel, path: Path) -> EditNetwork:
        """The network of a checkpoint as this editor's variants want it."""

    @abstractmethod
    def _scaled(self, delta: WeightDelta) -> WeightDelta: ...

    def __call__(
        self, lm: LanguageModel, requests: Sequence[EditRequest], *, resources: Resources
    ) -> list[Edit | RecordError]:
        """Edit every request on its own, all in one forward and one backward pass.

        Returns:
            In the place of a request with a prompt or target without tokens, or too long for the model, its error.

        Raises:
            ConfigError: no trained network for this model.
            DataError: a checkpoint that is torn, of another layout, or for another model.
        """
        # All texts before any edit: a bad request must not leave its mark on MEND's statistics.
        texts = [result_or_error(partial(edit_text, lm, request.text, request.target_new)) for request in requests]
        good = without_errors(texts)
        if not good:
            return with_errors_in_place(texts, [])
        network = self.network(lm)
        factors = edit_factors(lm, good, network.edited)
        with torch.no_grad():
            deltas = [self._scaled(delta) for delta in network(factors)]
        edits = [
            Edit(delta=delta, diagnostics={"loss": float(loss), "norm": delta.norm()})
            for delta, loss in zip(deltas, factors.losses, strict=True)
        ]
        return with_errors_in_place(texts, edits)

    def network(self, lm: LanguageModel) -> EditNetwork:
        """The trained network, ready to edit `lm`.

        Raises:
            ConfigError, DataError: as for a call.
        """
        source = (self._locate(lm), lm.digest)
        if self._held.network is None or self._held.source != source:
            self._held.network = self._prepared(load(source[0], lm), lm, source[0])
            self._held.source = source
        return self._held.network

    def _locate(self, lm: LanguageModel) -> Path:
        if given := self.checkpoint or self.shipped:
            return Path(given).expanduser()
        if self.published and self.networks:
            return self.networks.locate(self.published)
        raise ConfigError(
            f"editor.checkpoint: there is no trained {self.name} network for {lm.name!r}; train one with task=train "
            "and give its file"
        )
