"""A training run's state on disk: one safetensors file with a JSON header, replaced as a whole."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn

from romexp.errors import DataError
from romexp.lm.tensor_files import read_tensors, write_tensors

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
