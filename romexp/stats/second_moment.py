"""The second moment of a layer's keys, C = E[k kᵀ], and its only use, computing C⁻¹k (docs/method.md §3.3, §3.5)."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError

from romexp.errors import DataError
from romexp.lm.tensor_files import read_tensors, stored_metadata, write_tensors
from romexp.os_errors import describe

FORMAT = "romexp second moments 1"
_log = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True, eq=False)
class SecondMoment:
    """C = E[k kᵀ], not centred, over the keys k of a layer, which are the inputs of its second MLP matrix.

    Attributes:
        matrix: (D × D) float32, symmetric, on the CPU; D is the width of the MLP.
        count: number of keys (tokens) over which the mean was taken; 0 if unknown.
        provenance: JSON-ready description of the model and its digest, the layer, the corpus, the sample size and
            versions.

    Raises:
        DataError: the matrix is not square.
    """

    matrix: torch.Tensor
    count: int
    provenance: Mapping[str, Any] = field(default_factory=dict)
    _solvers: dict[torch.device, Callable[[torch.Tensor], torch.Tensor]] = field(
        default_factory=dict, init=False, repr=False
    )
    _derived: dict[Hashable, torch.Tensor] = field(default_factory=dict, init=False, repr=False)

    def __post_init__(self) -> None:
        if self.matrix.ndim != 2 or self.matrix.shape[0] != self.matrix.shape[1]:
            raise DataError(f"second moment{self.origin}: expected a square matrix, got {tuple(self.matrix.shape)}")

    @property
    def width(self) -> int:
        """D, the width of a key."""
        return self.matrix.shape[0]

    @property
    def origin(self) -> str:
        """File or model, and layer, for error messages: ` (model, layer 7)`. Empty if unknown."""
        parts = [str(self.provenance[key]) for key in ("file", "model") if self.provenance.get(key)][:1]
        if self.provenance.get("layer") is not None:
            parts.append(f"layer {self.provenance['layer']}")
        return f" ({', '.join(parts)})" if parts else ""

    def solve(self, keys: torch.Tensor) -> torch.Tensor:
        """C⁻¹k for each row k of `keys` (docs/method.md §3.5): (n × D) → (n × D), same dtype and device as `keys`.

        The system is solved in float64. C is factored once per device: on the keys' device if that supports float64
        (MPS does not), else on the CPU. The authors' code multiplies by a float32 inverse instead, which is equal up to
        rounding.

        Raises:
            DataError: the keys are not as wide as C, or C has no inverse.
        """
        if keys.ndim != 2 or keys.shape[1] != self.width:
            raise DataError(
                f"second moment{self.origin}: keys of shape {tuple(keys.shape)} do not fit a matrix of "
                f"{self.width} × {self.width}; expected (n, {self.width})"
            )
        device = float64_device(keys.device)
        if device not in self._solvers:
            self._solvers[device] = self._factor(device)
        right = keys.detach().to(device=device, dtype=torch.float64).T
        return self._solvers[device](right).T.to(device=keys.device, dtype=keys.dtype)

    def derived(self, name: Hashable, make: Callable[[], torch.Tensor]) -> torch.Tensor:
        """A tensor that follows from the matrix alone, as a basis of its eigenvectors. It is made once for this object.

        Args:
            name: what it is, with the settings that it depends on.
            make: makes it.
        """
        if name not in self._derived:
            self._derived[name] = make()
        return self._derived[name]

    def _factor(self, device: torch.device) -> Callable[[torch.Tensor], torch.Tensor]:
        """Factor C and return a function from right-hand sides (D × n) to solutions (D × n), float64 on `device`.

        Raises:
            DataError: C is not finite, or has no inverse.
        """
        matrix = self.matrix.to(device=device, dtype=torch.float64)
        if not torch.isfinite(matrix).all():
            raise DataError(f"second moment{self.origin}: the matrix holds NaN or infinite values")
        lower, failed = torch.linalg.cholesky_ex(matrix)
        if not int(failed):
            return lambda right: torch.cholesky_solve(right, lower)
        if 0 < self.count < self.width:
            raise self._singular()
        # Rounding of float32 sums can make the smallest eigenvalues negative. The authors' code inverts such a matrix
        # too.
        _log.warning("second moment%s is not positive definite; solving by LU (dtype=float64 avoids it)", self.origin)
        factors, pivots, zero_pivot = torch.linalg.lu_factor_ex(matrix)
        if int(zero_pivot):
            raise self._singular()

        def solve(right: torch.Tensor) -> torch.Tensor:
            solution = torch.linalg.lu_solve(factors, pivots, right)
            residual = (matrix @ solution - right).norm(dim=0)
            if not bool((residual <= 1e-6 * right.norm(dim=0)).all()):
                raise self._singular()
            return solution

        return solve

    def _singular(self) -> DataError:
        return DataError(
            f"second moment{self.origin}: the matrix has no inverse ({self.width} × {self.width}, measured on "
            f"{self.count or 'an unknown number of'} tokens). Measure it on more text (covariance.sample_size) or do "
            f"without it (editor.mom2_adjustment=false)"
        )

    def save(self, path: Path) -> None:
        """Write the second moment to a file of its own (see `save_moments`)."""
        save_moments(path, {int(self.provenance.get("layer", 0)): self})

    @classmethod
    def load(cls, path: Path) -> SecondMoment:
        """Read a file that `save` wrote.

        Raises:
            DataError: there is no such file, it has another format, or it holds more than one layer.
        """
        moments = load_moments(path)
        if len(moments) != 1:
            raise DataError(f"{path}: holds layers {sorted(moments)}; expected one second moment")
        return next(iter(moments.values()))


def float64_device(device: torch.device) -> torch.device:
    """`device` if it supports float64, else the CPU."""
    try:
        return torch.empty(0, dtype=torch.float64, device=device).device
    except (TypeError, RuntimeError):
        return torch.device("cpu")


def save_moments(path: Path, moments: Mapping[int, SecondMoment]) -> None:
    """Write second moments by layer, atomically: safetensors with one packed float32 triangle per layer, its checksum,
    and JSON metadata.

    Raises:
        OSError: the file cannot be written.
    """
    layers = {
        str(layer): {"width": m.width, "count": m.count, "provenance": dict(m.provenance)}
        for layer, m in sorted(moments.items())
    }
    tensors = {f"layers.{layer}": pack(m.matrix.detach().cpu().float()) for layer, m in moments.items()}
    write_tensors(Path(path), tensors, {"romexp": json.dumps({"format": FORMAT, "layers": layers})})


def stored_layers(path: Path) -> dict[int, dict[str, Any]]:
    """The `width`, `count` and `provenance` of each layer in a file of `save_moments`. No matrix is read.

    Raises:
        DataError: there is no such file, it is not a safetensors file, or it holds no second moments.
    """
    if not Path(path).is_file():
        raise DataError(f"no file of second moments at {path}")
    try:
        header = json.loads(stored_metadata(Path(path)).get("romexp", "{}"))
    except (SafetensorError, ValueError, RecursionError) as error:
        raise DataError(f"{path}: not a readable safetensors file ({error})") from error
    except OSError as error:
        raise DataError(describe(error)) from error
    if not isinstance(header, dict) or header.get("format") != FORMAT:
        raise DataError(f"{path}: not a file of second moments (expected metadata romexp.format {FORMAT!r})")
    try:
        return {int(layer): _checked_entry(entry) for layer, entry in header["layers"].items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{path}: its metadata are not those of second moments ({error})") from error


def _checked_entry(entry: dict[str, Any]) -> dict[str, Any]:
    """What a file says of one layer.

    Raises:
        KeyError, TypeError, ValueError: a part is missing or has a wrong type.
    """
    if not isinstance(entry["provenance"], dict):
        raise TypeError("the provenance is not an object")
    width, count = entry["width"], entry["count"]
    if type(width) is not int or type(count) is not int or width < 1 or count < 0:
        raise ValueError(f"width {width!r}, count {count!r}")
    return entry


def load_moments(path: Path, layers: list[int] | None = None) -> dict[int, SecondMoment]:
    """Read second moments by layer from a file of `save_moments`.

    Args:
        layers: the layers to read; None reads all.

    Raises:
        DataError: it is not such a file, a layer is missing, a triangle has the wrong size or type, or it has changed
            since it was written.
    """
    stored = stored_layers(path)
    wanted = sorted(stored) if layers is None else layers
    if missing := [layer for layer in wanted if layer not in stored]:
        raise DataError(f"{path}: no second moment of layer {missing}; it holds {sorted(stored)}")
    names = {f"layers.{layer}": layer for layer in wanted}
    try:
        _, tensors = read_tensors(Path(path), wanted=names.__contains__)
    except SafetensorError as error:
        raise DataError(f"{path}: {error}") from error
    except OSError as error:
        raise DataError(describe(error)) from error
    return {layer: _moment(tensors.get(name), stored[layer], layer, path) for name, layer in names.items()}


def _moment(packed: torch.Tensor | None, entry: Mapping[str, Any], layer: int, path: Path) -> SecondMoment:
    try:
        if packed is None or packed.dtype != torch.float32:
            found = "none" if packed is None else str(packed.dtype)
            raise ValueError(f"expected a triangle of float32, found {found}")
        matrix = unpack(packed, entry["width"])
    except ValueError as error:
        raise DataError(f"{path}, layer {layer}: {error}") from error
    provenance = {**entry["provenance"], "file": str(path)}
    return SecondMoment(matrix=matrix, count=entry["count"], provenance=provenance)


def packed_size(width: int) -> int:
    """Number of entries of the upper triangle of a (D × D) matrix, diagonal included: D (D + 1) / 2."""
    return width * (width + 1) // 2


def pack(matrix: torch.Tensor) -> torch.Tensor:
    """The upper triangle of a (D × D) matrix, row by row, as a vector of D (D + 1) / 2 entries."""
    width = matrix.shape[0]
    packed = matrix.new_empty(packed_size(width))
    start = 0
    # The rows are copied one by one, because index tensors (`triu_indices`) for a layer of GPT-J would take 2 GB.
    for row in range(width):
        packed[start : start + width - row] = matrix[row, row:]
        start += width - row
    return packed


def unpack(packed: torch.Tensor, width: int) -> torch.Tensor:
    """The exactly symmetric (D × D) matrix whose upper triangle is `packed`.

    Raises:
        ValueError: the vector's length is not D (D + 1) / 2.
    """
    if packed.ndim != 1 or packed.shape[0] != packed_size(width):
        raise ValueError(
            f"shape {tuple(packed.shape)} is not the packed triangle of a {width} × {width} matrix; "
            f"expected ({packed_size(width)},)"
        )
    upper = packed.new_zeros((width, width))
    start = 0
    for row in range(width):
        upper[row, row:] = packed[start : start + width - row]
        start += width - row
    return upper + upper.triu(1).T
