"""The common part of the editors MEND and KE: finding and loading the trained network, and applying it to requests
(docs/method.md §4.3, §4.7).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar

import torch

from romexp.bounds import check_bounds
from romexp.editors.base import Edit, Resources
from romexp.editors.filters import Filter, check_filter, filtered_edits
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
    """The loaded network and the (path, model digest) that it was loaded for.

    It is loaded only once. MEND with `statistics=training` needs this, because its statistics change with each edit.
    """

    network: EditNetwork | None = None
    source: tuple[Path, str] | None = None


@dataclass(frozen=True, kw_only=True)
class NetworkEditor(ABC):
    """Base class of MEND and KE. The network comes from the first that is set: `checkpoint`, `shipped`, `published`.

    Subclasses define `_sizes`, the names of fields that are sizes of a new network, and `_uses`, the names of fields
    that decide how a trained network is used.

    Unlike the authors' code, no `[PAD]` token is added to the model (docs/method.md §4.3).

    Attributes:
        name: label in tables.
        checkpoint: path of a network of `task=train` (.safetensors) or of a file of the authors (.pt).
        shipped: path of a network that ships with this model.
        published: name of a file of the authors for this model.
        networks: the authors' server; needed for `published`.
        n_layers: number of last layers in which both MLP matrices are edited; used only to train a new network.
        filter: `rect` or `prune` holds the edit back (`romexp.editors.filters`); None does not.

    Raises:
        ConfigError: a size is not positive.
    """

    name: str
    checkpoint: str | Path | None = None
    shipped: str | Path | None = None
    published: str | None = None
    networks: PublishedNetworks | None = None
    n_layers: int = 3
    filter: Filter | None = None
    _sizes: ClassVar[tuple[str, ...]]
    _uses: ClassVar[tuple[str, ...]]
    _held: _Held = field(default_factory=_Held, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        check_filter(self.filter)
        for size in self._sizes:
            if not getattr(self, size) > 0:
                raise ConfigError(f"editor.{size}: expected a positive number, not {getattr(self, size)}")
        check_bounds(self, "editor", finite=self._sizes)

    @property
    def provenance(self) -> dict[str, Any]:
        """The part of a run's identity that this editor decides: the network's content and how it is used
        (docs/method.md §11.4).

        A published network is identified by its file name, other networks by `digest`. Paths and the sizes of new
        networks do not count.

        Raises:
            DataError: the file is missing or damaged, or holds no edit network.
        """
        given = self.checkpoint or self.shipped
        network = digest(Path(given).expanduser()) if given else self.published
        uses = (*self._uses, *(["filter"] if self.filter else []))
        return {"type": type(self).__name__, "network": network} | {use: getattr(self, use) for use in uses}

    @abstractmethod
    def new_network(self, lm: LanguageModel, *, seed: int) -> EditNetwork:
        """Make an untrained network for a model, on the model's device and in training mode.

        Args:
            seed: decides the initial weights.

        Raises:
            ConfigError: the model has fewer than `n_layers` layers.
        """

    @abstractmethod
    def _prepared(self, network: EditNetwork, lm: LanguageModel, path: Path) -> EditNetwork:
        """Check the kind of a loaded network and set it up as this editor's settings say.

        Args:
            path: the network's file, for error messages.

        Raises:
            DataError: the network is of another kind.
        """

    @abstractmethod
    def _scaled(self, delta: WeightDelta) -> WeightDelta:
        """The delta times the editor's scale, if it has one."""

    def __call__(
        self, lm: LanguageModel, requests: Sequence[EditRequest], *, resources: Resources
    ) -> list[Edit | RecordError]:
        """Compute an edit for each request. All requests share one forward and one backward pass.

        Returns:
            For each request its edit; or a `RecordError` if its prompt or target has no token, or the text is too long
            for the model.

        Raises:
            ConfigError: there is no trained network for this model.
            DataError: the checkpoint is damaged, has another layout, or is for another model.
        """
        # Bad requests are sorted out before any edit, so that they do not change MEND's statistics.
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
        return filtered_edits(lm, with_errors_in_place(texts, edits), self.filter)

    def network(self, lm: LanguageModel) -> EditNetwork:
        """The trained network, ready to edit `lm`.

        Raises:
            ConfigError: there is no trained network for this model.
            DataError: the checkpoint is damaged, has another layout, or is for another model.
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
