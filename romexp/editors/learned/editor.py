"""MEND and KE as editors: a trained network and one forward and backward pass for all requests (SPEC §4.3 to §4.5)."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Literal

import torch

from romexp.editors.base import Edit, Resources
from romexp.editors.learned.base import EditNetwork, shapes_of
from romexp.editors.learned.checkpoint import digest, load
from romexp.editors.learned.factors import edit_factors, edit_text
from romexp.editors.learned.ke import KeNetwork
from romexp.editors.learned.mend import MendNetwork
from romexp.editors.learned.parameters import default_parameters
from romexp.editors.learned.published import PublishedNetworks
from romexp.errors import ConfigError, DataError
from romexp.facts import EditRequest
from romexp.lm.model import LanguageModel
from romexp.lm.terms import LowRank, WeightDelta


@dataclass
class _Held:
    """The network of the latest call, read once; in the training-mode variant its statistics go on changing."""

    network: EditNetwork | None = None
    source: tuple[Path, str] | None = None


@dataclass(frozen=True, kw_only=True)
class _LearnedEditor(ABC):
    """What MEND and KE share: where the trained network comes from. First that is set: `checkpoint`, `shipped`,
    `published`.

    The authors add a `[PAD]` token to the model and make its embedding, the last row, the mean of all rows, so their
    "pre" metrics are those of the resized model (SPEC §4.3). Here the model stays as it is: our numbers leave that out.

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

    def __call__(self, lm: LanguageModel, requests: Sequence[EditRequest], *, resources: Resources) -> list[Edit]:
        """Edit every request on its own, all in one forward and one backward pass.

        Raises:
            RecordError: a prompt or target without tokens, or a text longer than the model's context; `index` is the
                position in `requests`.
            ConfigError: no trained network for this model.
            DataError: a checkpoint that is torn, of another layout, or for another model.
        """
        if not requests:
            return []
        # All of them before any is edited: a bad one must not leave its mark on statistics.
        texts = [edit_text(lm, i, request.text, request.target_new) for i, request in enumerate(requests)]
        network = self.network(lm)
        factors = edit_factors(lm, texts, network.edited)
        with torch.no_grad():
            deltas = [self._scaled(delta) for delta in network(factors)]
        return [
            Edit(delta=delta, diagnostics={"loss": float(loss), "norm": delta.norm()})
            for delta, loss in zip(deltas, factors.losses, strict=True)
        ]

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


@dataclass(frozen=True, kw_only=True)
class Mend(_LearnedEditor):
    """MEND (SPEC §4.4). `rank`, `n_hidden` and `edit_lr` are for training; a checkpoint knows its own.

    Attributes:
        lr_scale: factor of every delta.
        statistics: `frozen` keeps the checkpoint's normalization statistics, as MEND's own repository evaluates.
            `training` is what the ROME authors' evaluation does: the first edit forgets them, and every edit adds to
            them before it is normalized, so that a result depends on the edits before it (in this process: a run that
            goes on after an interruption begins anew).
        lr_order: `config` gives each matrix its own learned step size. `named_parameters` is what the ROME authors'
            evaluation does: step sizes as listed are given to matrices in the model's order, which swaps the two of a
            GPT-2 layer.
        rank: of the residual layers, at most their width.
        n_hidden: residual layers minus one.
        edit_lr: initial step size.
    """

    name: str = "MEND"
    lr_scale: float = 1.0
    statistics: Literal["frozen", "training"] = "frozen"
    lr_order: Literal["config", "named_parameters"] = "config"
    rank: int = 1920
    n_hidden: int = 1
    edit_lr: float = 1e-4
    _sizes: ClassVar[tuple[str, ...]] = ("n_layers", "rank")
    _uses: ClassVar[tuple[str, ...]] = ("lr_scale", "statistics", "lr_order")

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.n_hidden < 0:
            raise ConfigError(f"editor.n_hidden: expected 0 or more, not {self.n_hidden}")
        if self.statistics not in ("frozen", "training"):
            raise ConfigError(f"editor.statistics: {self.statistics!r} is none of frozen, training")
        if self.lr_order not in ("config", "named_parameters"):
            raise ConfigError(f"editor.lr_order: {self.lr_order!r} is none of config, named_parameters")

    def new_network(self, lm: LanguageModel, *, seed: int) -> MendNetwork:
        network = MendNetwork(
            shapes_of(lm, default_parameters(lm, self.n_layers)),
            rank=self.rank,
            n_hidden=self.n_hidden,
            edit_lr=self.edit_lr,
            generator=torch.Generator().manual_seed(seed),
        )
        return network.to(lm.device)

    def _prepared(self, network: EditNetwork, lm: LanguageModel, path: Path) -> EditNetwork:
        if not isinstance(network, MendNetwork):
            raise DataError(f"{path}: a {network.kind} network, expected mend")
        if self.lr_order == "named_parameters":
            in_model = [name for name, _ in lm.model.named_parameters() if name in network.shapes]
            places = [in_model.index(name) for name in network.edited]
            with torch.no_grad():
                network.edit_lrs.copy_(network.edit_lrs[places].clone())
        if self.statistics == "training":
            network.reset_statistics()
            network.train()
        return network

    def _scaled(self, delta: WeightDelta) -> WeightDelta:
        scaled = {
            name: LowRank(left=self.lr_scale * term.left, right=term.right)
            for name, term in delta.terms.items()
            if isinstance(term, LowRank)
        }
        return WeightDelta(terms=scaled)


@dataclass(frozen=True, kw_only=True)
class KE(_LearnedEditor):
    """KE (SPEC §4.5), which the authors' code calls EFK. The sizes are for training; a checkpoint knows its own.

    There is no `lr_scale`: the authors' KE has the setting and never applies it.

    Attributes:
        hidden_size: of the LSTM in each direction, and of each parameter's conditioner.
        condition_size: of the condition vector.
        max_scale: bound of the learned factor of the update. The authors' files do not hold it: theirs is 1.
    """

    name: str = "KE"
    hidden_size: int = 512
    condition_size: int = 768
    max_scale: float = 1.0
    _sizes: ClassVar[tuple[str, ...]] = ("n_layers", "hidden_size", "condition_size", "max_scale")
    _uses: ClassVar[tuple[str, ...]] = ()

    def new_network(self, lm: LanguageModel, *, seed: int) -> KeNetwork:
        embedding = lm.module(lm.architecture.embedding).weight.detach().float()  # type: ignore[union-attr, operator]
        network = KeNetwork(
            shapes_of(lm, default_parameters(lm, self.n_layers)),
            vocabulary=embedding.shape[0],
            embedding_size=embedding.shape[1],
            hidden_size=self.hidden_size,
            condition_size=self.condition_size,
            max_scale=self.max_scale,
            generator=torch.Generator().manual_seed(seed),
        )
        network.adopt_embedding(embedding)
        return network.to(lm.device)

    def _prepared(self, network: EditNetwork, lm: LanguageModel, path: Path) -> EditNetwork:
        if not isinstance(network, KeNetwork):
            raise DataError(f"{path}: a {network.kind} network, expected ke")
        return network

    def _scaled(self, delta: WeightDelta) -> WeightDelta:
        return delta
