"""Settings of training: loss, optimizers, schedule (docs/method.md §4.6). The loop is in `romexp.learning.session`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

import torch

from romexp.bounds import check_bounds
from romexp.editors.learned.base import EditNetwork
from romexp.errors import ConfigError

LEARNING_RATES: Mapping[str, float] = {"mend": 1e-6, "ke": 1e-5}
"""Step sizes of the authors, by kind of network."""
MAY_BE_ZERO = ("cedit", "cloc", "lr_lr")


@dataclass(frozen=True, kw_only=True)
class Training:
    """Settings of a training run, with the authors' names and values where they exist (docs/method.md §4.6).

    Attributes:
        cedit: weight of the edit loss.
        cloc: weight of the locality loss.
        lr: step size of Adam; None takes the authors' (1e-6 for MEND, 1e-5 for KE).
        lr_lr: step size of a second Adam, which updates only MEND's learned step sizes; the first Adam updates them
            too. The authors set 1e-4, but in their code the second Adam has no effect, because the gradient is cleared
            before it; 0 is equivalent to that.
        steps: the largest number of steps. A step processes `edits_per_step` edits.
        edits_per_step: number of edits in a batch.
        outers: number of judging texts per edit.
        locality_texts: number of locality texts per edit.
        accumulate: number of steps whose mean gradient makes one update.
        clip: largest norm of that gradient.
        validate_every: number of steps between two validations. The state of the run is written at each validation.
        validation_edits: number of edits in a validation.
        validation_batch: number of edits in a batch of a validation.
        patience: training ends after this many steps without a lower validation loss.
        log_every: number of steps between two points of the training curves. Each point is a mean over these steps.

    Raises:
        ConfigError: a number is negative, or is 0 where that is not possible.
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
        check_bounds(self, "task.training", finite=[field.name for field in fields(self)])

    def optimizers(self, network: EditNetwork) -> list[torch.optim.Optimizer]:
        """One Adam per parameter group. A parameter in two groups is updated by both, with the same gradient."""
        lr = LEARNING_RATES[network.kind] if self.lr is None else self.lr
        groups: list[dict[str, Any]] = network.parameter_groups(lr=lr, lr_lr=self.lr_lr)
        return [torch.optim.Adam(group["params"], lr=group["lr"]) for group in groups]
