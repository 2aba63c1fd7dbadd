"""Reading and writing safetensors files with named tensors and text metadata."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file

from romexp.files import replacing


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors and metadata to a file, atomically. The tensors may be on any device and may share memory."""
    with replacing(path) as part:
        save_file(
            # Safetensors refuses tensors that share memory, so they are cloned.
            {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()},
            part,
            metadata=dict(metadata),
        )


def read_tensors(path: Path) -> tuple[dict[str, str], dict[str, torch.Tensor]]:
    """The metadata and the tensors (on the CPU) of a file.

    Raises:
        OSError: the file cannot be read.
        SafetensorError: the file is damaged, or is not a safetensors file.
    """
    with safe_open(str(path), framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (no mapping)
        return file.metadata() or {}, tensors
