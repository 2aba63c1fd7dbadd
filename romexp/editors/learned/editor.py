"""MEND and KE as editors: their settings, untrained networks for training, and the variants of using a trained network
(docs/method.md §4.4, §4.5; paper App. E).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

import torch

from romexp.bounds import check_bounds
from romexp.editors.learned.base import EditNetwork, default_parameters, shapes_of
from romexp.editors.learned.ke import KeNetwork
from romexp.editors.learned.mend import MendNetwork
from romexp.editors.learned.network_editor import NetworkEditor
from romexp.errors import ConfigError, DataError
from romexp.lm.model import LanguageModel
from romexp.lm.weight_delta import LowRank, WeightDelta


@dataclass(frozen=True, kw_only=True)
class Mend(NetworkEditor):
    """MEND (docs/method.md §4.4).

    `rank`, `n_hidden`, `edit_lr` and `n_layers` are used only to train a new network.

    Attributes:
        lr_scale: factor of all deltas.
        statistics: `frozen` keeps the normalization statistics of the checkpoint, as MEND's own repository does.
            `training` does as the ROME authors' evaluation: the statistics are reset at the first edit, and each edit
            is added to them before it is normalized. Then a result depends on the edits before it in the same process;
            a run that is resumed starts with new statistics.
        lr_order: `config` gives each matrix its own learned step size. `named_parameters` does as the ROME authors'
            evaluation: the step sizes are assigned in the model's order of parameters, which swaps those of the two
            matrices of each GPT-2 layer.
        rank: rank of the residual layers; at most their width is used.
        n_hidden: number of residual layers minus one.
        edit_lr: initial value of the learned step sizes.

    Raises:
        ConfigError: a setting has a value that is not possible.
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
        check_bounds(self, "editor", from_0=("lr_scale", "n_hidden", "edit_lr"))
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
            model_order = [in_model.index(name) for name in network.edited]
            with torch.no_grad():
                network.edit_lrs.copy_(network.edit_lrs[model_order].clone())
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
class KE(NetworkEditor):
    """KE, which the authors' code calls EFK (docs/method.md §4.5).

    All sizes are used only to train a new network. There is no `lr_scale`, because in the authors' code it has no
    effect on KE.

    Attributes:
        hidden_size: width of the LSTM in each direction, and of each parameter's conditioner.
        condition_size: width of the condition vector.
        max_scale: bound of the learned factor of an update. The authors' files do not hold it; their code uses 1.

    Raises:
        ConfigError: a size is not positive.
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
