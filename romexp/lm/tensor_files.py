"""Safetensors files: tensors by name, and texts beside them in the file's metadata."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from romexp.files import replacing


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> None:
    """Put tensors, wherever they lie and whatever memory they share, in a file; atomic."""
    with replacing(path) as part:
        save_file(
            # Cloned, because safetensors refuses tensors that share memory.
            {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()},
            part,
            metadata=dict(metadata),
        )


def read_tensors(path: Path) -> tuple[dict[str, str], dict[str, torch.Tensor]]:
    """Metadata and tensors of a file, on the CPU.

    Raises:
        OSError: the file cannot be read.
        SafetensorError: it is torn, or of another kind.
    """
    with safe_open(str(path), framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        return file.metadata() or {}, tensors
