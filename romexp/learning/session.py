"""One training run while it works: network, optimizers, how far it has come, and its file on disk."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError
from torch import nn

from romexp.editors.learned.base import EditNetwork
from romexp.errors import ConfigError, DataError
from romexp.learning.draws import Draws, chunks
from romexp.learning.objective import Losses, losses
from romexp.learning.training import Training
from romexp.lm.model import LanguageModel
from romexp.lm.tensor_files import read_tensors, write_tensors

Values = dict[str, float]


class Reports(Protocol):
    """Who is told what happens."""

    def progress(self, step: int, steps: int) -> None:
        """A step was made."""

    def values(self, values: Mapping[str, float]) -> None:
        """A point of the curves: `step`, and means by name (`train/edit_loss`, `validation/total_loss`, …)."""

    def best(self, network: EditNetwork, values: Mapping[str, float]) -> None:
        """The validation loss has never been lower: keep this network."""


@dataclass(kw_only=True)
class Progress:
    """How far a run has come; JSON-ready through `asdict`.

    Attributes:
        step: steps made.
        best: lowest validation loss so far; None before the first validation.
        best_step: where it was.
        sums: of the training values since the last point of the curves.
        counts: numbers of terms in each sum.
    """

    step: int = 0
    best: float | None = None
    best_step: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, values: Mapping[str, float]) -> None:
        """Take one step's values into the next point."""
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
            self.counts[name] = self.counts.get(name, 0) + 1

    def means(self) -> Values:
        """The values' means since the last call."""
        means = {name: total / self.counts[name] for name, total in self.sums.items()}
        self.sums, self.counts = {}, {}
        return means


class Session:
    """A run at its beginning, or where an earlier process left it.

    Args:
        network: fresh, on the model's device.
        draws: what it sees.
        state: the file that the state is kept in; None keeps none.

    Raises:
        DataError: `state` is of another network, or no state.
    """

    def __init__(
        self,
        *,
        lm: LanguageModel,
        network: EditNetwork,
        draws: Draws,
        training: Training,
        state: Path | None = None,
    ) -> None:
        self.lm, self.network, self.draws, self.training, self.state = lm, network, draws, training, state
        self.optimizers = training.optimizers(network)
        self.progress = Progress()
        if state is not None and state.exists():
            self.progress = Progress(**load_state(state, network, self.optimizers))

    @property
    def finished(self) -> bool:
        """All steps are made, or at a validation the loss has not gone down for `patience` steps."""
        progress = self.progress
        waited = progress.step - progress.best_step if self._validates_after(progress.step) else 0
        return progress.step >= self.training.steps or waited >= self.training.patience

    def _validates_after(self, step: int) -> bool:
        return step in (1, self.training.steps) or step % self.training.validate_every == 0

    def run(self, reports: Reports) -> Progress:
        """Go on to the end; the state is written at every validation.

        The first validation comes after one step, as in the authors' code: MEND has no statistics before it.

        Raises:
            ConfigError: the gradient or the validation loss is no longer finite.
        """
        training, progress = self.training, self.progress
        while not self.finished:
            progress.step += 1
            progress.add(self.step())
            reports.progress(progress.step, training.steps)
            if progress.step % training.log_every == 0:
                reports.values({"step": progress.step} | _named("train", progress.means()))
            if self._validates_after(progress.step):
                self._judge(reports)
        return progress

    def step(self) -> Values:
        """Gather the gradient of one batch; every `accumulate` steps update the network with their mean."""
        training = self.training
        self.network.train()
        found = losses(self.lm, self.network, self.draws.training(self.progress.step, training.edits_per_step))
        (self._total(found).mean() / training.accumulate).backward()
        values = self._means([found])
        if self.progress.step % training.accumulate == 0:
            values["gradient_norm"] = self._update()
        return values

    def _update(self) -> float:
        try:
            norm = torch.nn.utils.clip_grad_norm_(
                self.network.parameters(), self.training.clip, error_if_nonfinite=True
            )
        except RuntimeError as error:
            raise self._diverged("the gradient") from error
        for optimizer in self.optimizers:
            optimizer.step()
        self.network.zero_grad()
        return float(norm)

    def _diverged(self, what: str) -> ConfigError:
        return ConfigError(
            f"training diverged: at step {self.progress.step} {what} is not finite; "
            "lower task.training.lr or editor.edit_lr"
        )

    @torch.no_grad()
    def validate(self) -> Values:
        """Means over the validation edits, the network in evaluation mode."""
        self.network.eval()
        draws = self.draws.validation(self.training.validation_edits)
        batches = chunks(draws, self.training.validation_batch)
        return self._means([losses(self.lm, self.network, batch) for batch in batches])

    def _judge(self, reports: Reports) -> None:
        progress, values = self.progress, self.validate()
        if not math.isfinite(values["total_loss"]):
            raise self._diverged("the validation loss")
        reports.values({"step": progress.step} | _named("validation", values))
        if progress.best is None or values["total_loss"] < progress.best:
            progress.best, progress.best_step = values["total_loss"], progress.step
            reports.best(self.network, {"step": progress.step} | values)
        if self.state is not None:  # after the checkpoint: a process killed in between makes the same one again
            save_state(self.state, self.network, self.optimizers, asdict(progress))

    def _total(self, found: Losses) -> torch.Tensor:
        return self.training.cedit * found.edit + self.training.cloc * found.locality

    def _means(self, parts: Sequence[Losses]) -> Values:
        columns = {
            "edit_loss": [part.edit for part in parts],
            "locality_loss": [part.locality for part in parts],
            "total_loss": [self._total(part) for part in parts],
            "accuracy": [part.accuracy for part in parts],
        }
        return {name: float(torch.cat(column).detach().mean()) for name, column in columns.items()}


def _named(prefix: str, values: Mapping[str, float]) -> Values:
    return {f"{prefix}/{name}": value for name, value in values.items()}


HEADER = "romexp_training"


def save_state(
    path: Path, network: nn.Module, optimizers: Sequence[torch.optim.Optimizer], progress: Mapping[str, Any]
) -> None:
    """Write weights, buffers and gathered gradients of the network, the optimizers' moments, and `progress` as JSON."""
    tensors = {f"network.{name}": value for name, value in network.state_dict().items()}
    for name, parameter in network.named_parameters():
        if parameter.grad is not None:
            tensors[f"gradient.{name}"] = parameter.grad
    for number, optimizer in enumerate(optimizers):
        for index, moments in optimizer.state_dict()["state"].items():
            for name, value in moments.items():
                tensors[f"optimizer.{number}.{index}.{name}"] = value
    write_tensors(path, tensors, {HEADER: json.dumps(dict(progress))})


def load_state(path: Path, network: nn.Module, optimizers: Sequence[torch.optim.Optimizer]) -> dict[str, Any]:
    """Put back what `save_state` wrote, and return `progress`.

    Raises:
        DataError: the file is no such state, or of another network.
    """
    try:
        metadata, tensors = read_tensors(path)
        progress: dict[str, Any] = json.loads(metadata[HEADER])
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise DataError(f"{path}: not a training state ({error}); delete it to start over") from error
    try:
        network.load_state_dict(_below(tensors, "network"))
    except RuntimeError as error:
        raise DataError(f"{path}: the state of another network ({str(error).splitlines()[0]})") from error
    gradients = _below(tensors, "gradient")
    for name, parameter in network.named_parameters():
        parameter.grad = gradients[name].to(parameter.device) if name in gradients else None
    for number, optimizer in enumerate(optimizers):
        state: dict[int, dict[str, torch.Tensor]] = {}
        for name, value in _below(tensors, f"optimizer.{number}").items():
            index, _, kind = name.partition(".")
            state.setdefault(int(index), {})[kind] = value
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})
    return progress


def _below(tensors: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name[len(prefix) + 1 :]: value for name, value in tensors.items() if name.startswith(prefix + ".")}
