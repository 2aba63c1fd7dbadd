"""Overwriting module outputs at chosen places: the one intervention that causal tracing is made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn

from romexp.lm.forward import first_tensor
from romexp.lm.model import LanguageModel

Change = Callable[[torch.Tensor], torch.Tensor]
"""Takes a module's output (batch × tokens × features) and returns what takes its place."""


@contextmanager
def patch(lm: LanguageModel, changes: Mapping[str, Change]) -> Iterator[LanguageModel]:
    """Within the context the named modules return `change(output)`; other parts of a tuple output stay."""
    handles = []
    try:
        for path, change in changes.items():
            handles.append(lm.module(path).register_forward_hook(_hook(change)))
        yield lm
    finally:
        for handle in handles:
            handle.remove()


def _hook(change: Change) -> Callable[[nn.Module, tuple[Any, ...], Any], Any]:
    def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        changed = change(first_tensor(output))
        return (changed, *output[1:]) if isinstance(output, tuple) else changed

    return hook


def overwrite(columns: torch.Tensor, values: torch.Tensor) -> Change:
    """Row i's output at `columns[i]` becomes `values[i]`.

    Args:
        columns: (batch) int64.
        values: (batch × features).
    """

    def change(output: torch.Tensor) -> torch.Tensor:
        changed = output.clone()
        changed[torch.arange(len(columns), device=output.device), columns.to(output.device)] = values.to(output)
        return changed

    return change
