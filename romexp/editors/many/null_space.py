"""The null space of a layer's keys, in which AlphaEdit writes (docs/method.md §12.6)."""

from __future__ import annotations

import hashlib
from functools import partial
from pathlib import Path

import torch

from romexp.errors import ConfigError
from romexp.lm.tensor_files import read_tensors, write_tensors
from romexp.stats.second_moment import SecondMoment, float64_device


def null_basis(moment: SecondMoment, *, threshold: float, cache_dir: Path | None, device: torch.device) -> torch.Tensor:
    """U₀: orthonormal eigenvectors of C whose eigenvalues are below `threshold` (D × r), float32.

    It is computed once for a matrix and a threshold, and kept in `cache_dir`.

    Args:
        threshold: the largest eigenvalue, in the units of C = E[k kᵀ].
        device: where C is decomposed, if it supports float64.

    Raises:
        ConfigError: no eigenvalue is below the threshold, or all are. An edit would be nothing, or not held back.
    """
    make = partial(_read_or_computed, moment, threshold, cache_dir, device)
    return moment.derived(("null basis", threshold), make)


def _read_or_computed(
    moment: SecondMoment, threshold: float, cache_dir: Path | None, device: torch.device
) -> torch.Tensor:
    if cache_dir is None:
        return _computed(moment, threshold, device)
    digest = hashlib.sha256(repr(threshold).encode())
    digest.update(moment.matrix.contiguous().view(-1).view(torch.uint8).numpy().data)
    path = cache_dir / "null_spaces" / f"{digest.hexdigest()[:24]}.safetensors"
    if not path.is_file():
        write_tensors(path, {"basis": _computed(moment, threshold, device)}, {})
    return read_tensors(path)[1]["basis"]


def _computed(moment: SecondMoment, threshold: float, device: torch.device) -> torch.Tensor:
    values, vectors = torch.linalg.eigh(moment.matrix.to(device=float64_device(device), dtype=torch.float64))
    below = values < threshold
    found = int(below.sum())
    if found in (0, moment.width):
        raise ConfigError(
            f"editor.nullspace_threshold: {'no' if found == 0 else 'every'} eigenvalue of the second "
            f"moment{moment.origin} is below {threshold:g}; the {moment.width} lie between {float(values[0]):.3g} and "
            f"{float(values[-1]):.3g}, half of them below {float(values.median()):.3g}"
        )
    return vectors[:, below].float().cpu()
