"""Context managers around forward hooks: `capture` records inputs or outputs of modules, `patch` changes outputs."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Literal

import torch
from torch import nn

from romexp.lm.model import LanguageModel

Change = Callable[[torch.Tensor], torch.Tensor]
"""Maps a module's output (batch × tokens × features) to the output that replaces it."""


def first_tensor(output: torch.Tensor | tuple[Any, ...]) -> torch.Tensor:
    """A module's main output. Modules of some families return a tuple, whose first item this is."""
    return output[0] if isinstance(output, tuple) else output


@dataclass(frozen=True, eq=False)
class Captured:
    """Recorded tensors by module path. A new pass overwrites those of the pass before."""

    tensors: dict[str, torch.Tensor] = field(default_factory=dict)

    def __getitem__(self, path: str) -> torch.Tensor:
        return self.tensors[path]


@contextmanager
def capture(
    lm: LanguageModel, paths: Sequence[str], *, at: Literal["input", "output"] = "output"
) -> Iterator[Captured]:
    """Record the input or output (batch × tokens × features) of the named modules during forward passes."""
    captured = Captured()
    handles = []

    def keep(path: str):  # type: ignore[no-untyped-def]
        def hook(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], output: Any) -> None:
            # Some families pass the attention's input as a keyword argument.
            inputs = args or (kwargs.get("hidden_states"),)
            # A copy, because some families go on to write into the tensor, as Falcon, which adds in place.
            captured.tensors[path] = (inputs[0] if at == "input" else first_tensor(output)).clone()

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
    """Inside the context each named module returns `change(output)`. Of a tuple output, only the first item changes."""
    handles = []
    try:
        for path, change in changes.items():
            handles.append(lm.module(path).register_forward_hook(_change_hook(change)))
        yield lm
    finally:
        for handle in handles:
            handle.remove()


def _change_hook(change: Change) -> Callable[[nn.Module, tuple[Any, ...], Any], Any]:
    def hook(module: nn.Module, args: tuple[Any, ...], output: Any) -> Any:
        changed = change(first_tensor(output))
        return (changed, *output[1:]) if isinstance(output, tuple) else changed

    return hook


def overwrite(columns: torch.Tensor, values: torch.Tensor) -> Change:
    """A `Change` that replaces row i's output at token `columns[i]` by `values[i]`.

    Args:
        columns: token positions (batch) int64.
        values: (batch × features).
    """

    def change(output: torch.Tensor) -> torch.Tensor:
        changed = output.clone()
        changed[torch.arange(len(columns), device=output.device), columns.to(output.device)] = values.to(output)
        return changed

    return change
