"""The training loop, with its state on disk so that a killed run can be resumed (docs/method.md §4.6)."""

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
    """Receives what happens during training."""

    def progress(self, step: int, steps: int) -> None:
        """Step `step` of at most `steps` was made."""

    def values(self, values: Mapping[str, float]) -> None:
        """A new point of the training curves: `step`, and means by name, such as `train/edit_loss`."""

    def best(self, network: EditNetwork, values: Mapping[str, float]) -> None:
        """The validation loss is lower than ever before, so this network should be kept."""


@dataclass(kw_only=True)
class Progress:
    """The progress of a run. `dataclasses.asdict` makes it JSON-ready.

    Attributes:
        step: number of steps made.
        best: lowest validation loss so far; None before the first validation.
        best_step: the step of that validation.
        sums: sums of the training values since the last point of the curves, by name.
        counts: number of terms in each sum.
    """

    step: int = 0
    best: float | None = None
    best_step: int = 0
    sums: dict[str, float] = field(default_factory=dict)
    counts: dict[str, int] = field(default_factory=dict)

    def add(self, values: Mapping[str, float]) -> None:
        """Add the values of one step to the sums."""
        for name, value in values.items():
            self.sums[name] = self.sums.get(name, 0.0) + value
            self.counts[name] = self.counts.get(name, 0) + 1

    def means(self) -> Values:
        """Return the means of the values since the last call, and reset the sums."""
        means = {name: total / self.counts[name] for name, total in self.sums.items()}
        self.sums, self.counts = {}, {}
        return means


class Session:
    """A training run. If its state file exists, the run continues from there, else it starts.

    Args:
        network: an untrained network on the model's device.
        draws: the edits and texts of the steps.
        training: the settings.
        state: file that holds the state of the run; None stores nothing.

    Raises:
        DataError: `state` is not a training state, or is one of another network.
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
        """True if all steps are made, or a validation found no lower loss for `patience` steps."""
        progress = self.progress
        waited = progress.step - progress.best_step if self._validates_after(progress.step) else 0
        return progress.step >= self.training.steps or waited >= self.training.patience

    def _validates_after(self, step: int) -> bool:
        return step in (1, self.training.steps) or step % self.training.validate_every == 0

    def run(self, reports: Reports) -> Progress:
        """Train until `finished`. The state is written at each validation.

        The first validation comes after one step, as in the authors' code, because MEND has no statistics before.

        Raises:
            ConfigError: the gradient or the validation loss is not finite.
        """
        training, progress = self.training, self.progress
        while not self.finished:
            progress.step += 1
            progress.add(self.step())
            reports.progress(progress.step, training.steps)
            if progress.step % training.log_every == 0:
                reports.values({"step": progress.step} | _named("train", progress.means()))
            if self._validates_after(progress.step):
                self._validate_and_save(reports)
        return progress

    def step(self) -> Values:
        """Accumulate the gradient of one batch. Each `accumulate` steps, update the network with the mean gradient."""
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
            raise self._divergence_error("the gradient") from error
        for optimizer in self.optimizers:
            optimizer.step()
        self.network.zero_grad()
        return float(norm)

    def _divergence_error(self, what: str) -> ConfigError:
        return ConfigError(
            f"training diverged: at step {self.progress.step} {what} is not finite; "
            "lower task.training.lr or editor.edit_lr"
        )

    @torch.no_grad()
    def validate(self) -> Values:
        """The mean losses over the validation edits, with the network in evaluation mode."""
        self.network.eval()
        draws = self.draws.validation(self.training.validation_edits)
        batches = chunks(draws, self.training.validation_batch)
        return self._means([losses(self.lm, self.network, batch) for batch in batches])

    def _validate_and_save(self, reports: Reports) -> None:
        progress, values = self.progress, self.validate()
        if not math.isfinite(values["total_loss"]):
            raise self._divergence_error("the validation loss")
        reports.values({"step": progress.step} | _named("validation", values))
        if progress.best is None or values["total_loss"] < progress.best:
            progress.best, progress.best_step = values["total_loss"], progress.step
            reports.best(self.network, {"step": progress.step} | values)
        # The state is written after the best network. If the process is killed between the two, the resumed run makes
        # the same network again.
        if self.state is not None:
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
    """Write the network's weights, buffers and accumulated gradients, the optimizers' moments, and `progress`."""
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
    """Restore network and optimizers from a file of `save_state`, and return its `progress`.

    Raises:
        DataError: the file is not a training state, or is one of another network.
    """
    try:
        metadata, tensors = read_tensors(path)
        progress = asdict(Progress(**json.loads(metadata[HEADER])))
        if type(progress["step"]) is not int or type(progress["best_step"]) is not int:
            raise ValueError("its numbers of steps are no integers")
    except (SafetensorError, OSError, KeyError, ValueError, TypeError, RecursionError) as error:
        raise DataError(f"{path}: not a training state ({error}); delete it to start over") from error
    try:
        network.load_state_dict(_under_prefix(tensors, "network"))
    except RuntimeError as error:
        raise DataError(f"{path}: the state of another network ({str(error).splitlines()[0]})") from error
    try:
        _restore_optimization(tensors, network, optimizers)
    except (RuntimeError, KeyError, ValueError, TypeError) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise DataError(f"{path}: not the state of this training ({reason}); delete it to start over") from error
    return progress


def _restore_optimization(
    tensors: Mapping[str, torch.Tensor], network: nn.Module, optimizers: Sequence[torch.optim.Optimizer]
) -> None:
    """Restore the accumulated gradients, and the optimizers' moments."""
    gradients = _under_prefix(tensors, "gradient")
    for name, parameter in network.named_parameters():
        parameter.grad = gradients[name].to(parameter.device) if name in gradients else None
    for number, optimizer in enumerate(optimizers):
        state: dict[int, dict[str, torch.Tensor]] = {}
        for name, value in _under_prefix(tensors, f"optimizer.{number}").items():
            index, _, kind = name.partition(".")
            state.setdefault(int(index), {})[kind] = value
        optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _under_prefix(tensors: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name[len(prefix) + 1 :]: value for name, value in tensors.items() if name.startswith(prefix + ".")}
