"""Hooks on modules: keeping what passes through them (`capture`), and changing what comes out (`patch`)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import nn

from romexp.lm.model import LanguageModel

Change = Callable[[torch.Tensor], torch.Tensor]
"""Takes a module's output (batch × tokens × features) and returns what takes its place."""


def first_tensor(output: torch.Tensor | tuple[Any, ...]) -> torch.Tensor:
    """A module's main output: some families return a tuple."""
    return output[0] if isinstance(output, tuple) else output


@dataclass(frozen=True, eq=False)
class Captured:
    """Tensors that passed through modules, by module path, newest pass only."""

    tensors: dict[str, torch.Tensor] = field(default_factory=dict)

    def __getitem__(self, path: str) -> torch.Tensor:
        return self.tensors[path]


@contextmanager
def capture(
    lm: LanguageModel, paths: Sequence[str], *, at: Literal["input", "output"] = "output"
) -> Iterator[Captured]:
    """Keep the input or output (batch × tokens × features) of the named modules during forward passes."""
    captured = Captured()
    handles = []

    def keep(path: str):  # type: ignore[no-untyped-def]
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            # Some families hand the attention its input by name.
            inputs = args or (kwargs.get("hidden_states"),)
            captured.tensors[path] = inputs[0] if at == "input" else first_tensor(output)

        return hook

    try:
        for path in paths:
            handles.append(lm.module(path).register_forward_hook(keep(path), with_kwargs=True))
        yield captured
    finally:
        for handle in handles:
            handle.remove()


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
