"""Reading and writing safetensors files with named tensors, text metadata, and a checksum of each tensor."""

from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from romexp.files import replacing
from romexp.os_errors import os_error, path_in_errors

CHECKSUMS = "romexp_checksums"
"""Key of the metadata. Its value is a JSON object: the SHA-256 of each tensor's bytes (`checksum`), by name."""

Wanted = Callable[[str], bool]
"""Whether a tensor of this name is read."""


def write_tensors(path: Path, tensors: Mapping[str, torch.Tensor], metadata: Mapping[str, str]) -> None:
    """Write tensors, their checksums and metadata to a file, atomically.

    The tensors may be on any device and may share memory.

    Raises:
        OSError: the file cannot be written. Its `filename` is the path.
    """
    # Safetensors refuses tensors that share memory, so they are cloned.
    kept = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    checksums = json.dumps({name: checksum(tensor) for name, tensor in kept.items()})
    with replacing(path) as part, os_errors_of_safetensors(path):
        save_file(kept, part, metadata=dict(metadata) | {CHECKSUMS: checksums})
        _sort_metadata(part)


def _sort_metadata(path: Path) -> None:
    """Sort the metadata in a file's header by key, since safetensors writes them in a random order. So equal content
    gives equal bytes.
    """
    with path.open("r+b") as file:
        size = int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(size))
        header["__metadata__"] = dict(sorted(header["__metadata__"].items()))
        text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
        if len(text) <= size:  # A header ends in spaces; a longer one would move the tensors.
            file.seek(8)
            file.write(text.ljust(size))


def read_tensors(path: Path, *, wanted: Wanted = lambda name: True) -> tuple[dict[str, str], dict[str, torch.Tensor]]:
    """The metadata and the wanted tensors (on the CPU) of a file.

    Checksums are compared where the file has some. Files that other programs wrote, and old ones, have none.

    Raises:
        OSError: the file cannot be read. Its `filename` is the path.
        SafetensorError: the file is damaged, or is not a safetensors file.
    """
    with path_in_errors(path), os_errors_of_safetensors(path), safe_open(str(path), framework="pt") as file:
        names = [name for name in file.keys() if wanted(name)]  # noqa: SIM118 (no mapping)
        tensors = {name: file.get_tensor(name) for name in names}
        metadata = file.metadata() or {}
    expected = _checksums(metadata.pop(CHECKSUMS, "{}"))
    for name, tensor in tensors.items():
        if name in expected and checksum(tensor) != expected[name]:
            raise SafetensorError(f"tensor {name} has changed since it was written (its checksum differs)")
    return metadata, tensors


def stored_metadata(path: Path) -> dict[str, str]:
    """The metadata of a file, without its checksums; of its tensors only the sizes are checked.

    Raises:
        OSError, SafetensorError: as in `read_tensors`.
    """
    metadata, _ = read_tensors(path, wanted=lambda name: False)
    return metadata


def checksum(tensor: torch.Tensor) -> str:
    """The SHA-256 of a tensor's bytes, in hexadecimal."""
    return hashlib.sha256(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data).hexdigest()


def _checksums(text: str) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise SafetensorError("its checksums are not JSON") from error
    if not isinstance(found, dict):
        raise SafetensorError("its checksums are not a JSON object")
    return found


@contextmanager
def os_errors_of_safetensors(path: Path) -> Iterator[None]:
    """Raise errors of the operating system as `OSError` with this path; safetensors reports them as text."""
    try:
        yield
    except FileNotFoundError as error:
        raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path)) from error
    except (SafetensorError, OSError) as error:
        if getattr(error, "errno", None) is None and (found := os_error(str(error), path)) is not None:
            raise found from error
        raise
