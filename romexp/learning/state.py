"""A training run's state on disk: one safetensors file with a JSON header, replaced as a whole."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import nn

from romexp.errors import DataError
from romexp.files import replacing

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
    with replacing(path) as part:
        save_file(
            # Cloned, because safetensors refuses tensors that share memory.
            {name: value.detach().cpu().contiguous().clone() for name, value in tensors.items()},
            part,
            metadata={HEADER: json.dumps(dict(progress))},
        )


def load_state(path: Path, network: nn.Module, optimizers: Sequence[torch.optim.Optimizer]) -> dict[str, Any]:
    """Put back what `save_state` wrote, and return `progress`.

    Raises:
        DataError: the file is no such state, or of another network.
    """
    progress = read_progress(path)
    with safe_open(str(path), framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
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


def read_progress(path: Path) -> dict[str, Any]:
    """The JSON part alone.

    Raises:
        DataError: the file is no training state.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            header = (file.metadata() or {})[HEADER]
        progress: dict[str, Any] = json.loads(header)
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise DataError(f"{path}: not a training state ({error}); delete it to start over") from error
    return progress


def _below(tensors: Mapping[str, torch.Tensor], prefix: str) -> dict[str, torch.Tensor]:
    return {name[len(prefix) + 1 :]: value for name, value in tensors.items() if name.startswith(prefix + ".")}
