"""How exactly matrix products of float32 numbers are computed: torch's own setting, for a stretch of the program.

torch has one such setting for the whole process (`torch.set_float32_matmul_precision`). Here it is set around the
computations of one model and put back afterwards, so that two models with different settings do not affect each other.
Threads share it: two threads cannot compute with different settings at the same time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import wraps
from typing import Any, Literal, TypeVar, get_args

import torch

from romexp.errors import ConfigError

MatmulPrecision = Literal["highest", "high", "medium"]
"""What is allowed inside a product; sums are float32 in all three.

- `highest`: float32 products.
- `high`: TensorFloat32 (10 bits of the mantissa) where the device has it, as NVIDIA GPUs from Ampere on.
- `medium`: bfloat16 (7 bits) where the device has it, as CPUs with AMX or AVX512_BF16. torch takes TF32 on NVIDIA GPUs.
"""

PRECISIONS: tuple[MatmulPrecision, ...] = get_args(MatmulPrecision)

Function = TypeVar("Function", bound=Callable[..., Any])


def check_precision(value: object) -> None:
    """Check that torch knows the setting.

    Raises:
        ConfigError: it does not.
    """
    if value not in PRECISIONS:
        raise ConfigError(f"model.matmul_precision: {value!r} is none of {', '.join(PRECISIONS)}")


@contextmanager
def matmul_precision(wanted: MatmulPrecision) -> Iterator[None]:
    """Inside the context, torch computes matrix products with this setting. Afterwards its settings are as before."""
    cuda: Any = torch.backends.cuda.matmul
    cpu: Any = torch.backends.mkldnn.matmul  # type: ignore[attr-defined]
    general, by_device = _general(), (cuda.fp32_precision, cpu.fp32_precision)
    torch.set_float32_matmul_precision(wanted)
    try:
        yield
    finally:
        if general is not None:
            torch.set_float32_matmul_precision(general)
        # The general setting writes those of the devices, which may have been others.
        cuda.fp32_precision, cpu.fp32_precision = by_device


def in_own_precision(function: Function) -> Function:
    """Let a function compute with the setting of its model: its first argument, or `lm` of it."""

    @wraps(function)
    def computing(*args: Any, **kwargs: Any) -> Any:
        first = args[0] if args else kwargs.get("lm")
        # What is no model at all is refused by the function itself.
        own: Any = getattr(getattr(first, "lm", first), "matmul_precision", "highest")
        with matmul_precision(own):
            return function(*args, **kwargs)

    return computing  # type: ignore[return-value]


@torch.no_grad()
def has_effect(precision: MatmulPrecision, *, device: torch.device, dtype: torch.dtype) -> bool:
    """Whether a product on this device, of matrices of this type, gives other numbers than with `highest`."""
    numbers = torch.arange(256 * 256, dtype=torch.float64).reshape(256, 256).cos().to(device=device, dtype=dtype)
    products = []
    for setting in ("highest", precision):
        with matmul_precision(setting):  # type: ignore[arg-type]
            products.append(numbers @ numbers)
    return not torch.equal(*products)


def _general() -> MatmulPrecision | None:
    """The setting of `torch.set_float32_matmul_precision`; None where somebody set devices to something else, since
    torch does not tell it then."""
    try:
        found: Any = torch.get_float32_matmul_precision()
    except RuntimeError:
        return None
    return found  # type: ignore[no-any-return]
