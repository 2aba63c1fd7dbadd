"""How an edit network is trained: loss, optimizers, schedule (docs/method.md §4.6). The loop is in
`romexp.learning.session`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch

from romexp.editors.learned.base import EditNetwork
from romexp.errors import ConfigError

LEARNING_RATES: Mapping[str, float] = {"mend": 1e-6, "ke": 1e-5}
"""The authors', by kind of network."""
MAY_BE_ZERO = ("cedit", "cloc", "lr_lr")


@dataclass(frozen=True, kw_only=True)
class Training:
    """The settings of a training run, under the authors' names where they have one. Defaults are theirs, but `lr_lr`.

    Attributes:
        cedit: weight of the edit loss.
        cloc: weight of the locality loss.
        lr: Adam's step size; None takes the authors': 1e-6 for MEND, 1e-5 for KE.
        lr_lr: step size of a second Adam, on MEND's learned step sizes alone, which the first moves too. The authors
            set 1e-4, but their code clears the gradient between the two, so that the second does nothing: that is 0.
        steps: at most this many. A step looks at `edits_per_step` edits; see `accumulate` for when it is an update.
        edits_per_step: edits in a batch.
        outers: texts of each edit that its loss is taken on.
        locality_texts: locality texts of each edit.
        accumulate: steps whose mean gradient makes one update.
        clip: largest norm of that gradient.
        validate_every: steps between two validations. The state is written then: a killed run goes on from there.
        validation_edits: edits in a validation.
        validation_batch: of which so many at once.
        patience: stop after this many steps without a lower validation loss.
        log_every: steps between two points of the training curves, each a mean over the steps since the last.
    """

    cedit: float = 0.1
    cloc: float = 1.0
    lr: float | None = None
    lr_lr: float = 1e-4
    steps: int = 1_000_000
    edits_per_step: int = 1
    outers: int = 1
    locality_texts: int = 1
    accumulate: int = 10
    clip: float = 100.0
    validate_every: int = 5000
    validation_edits: int = 500
    validation_batch: int = 5
    patience: int = 20_000
    log_every: int = 100

    def __post_init__(self) -> None:
        for field in fields(self):
            value = getattr(self, field.name)
            if value is not None and (value < 0 or (value == 0 and field.name not in MAY_BE_ZERO)):
                raise ConfigError(f"task.training.{field.name}: expected a positive number, not {value}")

    def optimizers(self, network: EditNetwork) -> list[torch.optim.Optimizer]:
        """One Adam a group: a parameter of two groups is stepped by both, with one gradient."""
        lr = LEARNING_RATES[network.kind] if self.lr is None else self.lr
        groups: list[dict[str, Any]] = network.parameter_groups(lr=lr, lr_lr=self.lr_lr)
        return [torch.optim.Adam(group["params"], lr=group["lr"]) for group in groups]
