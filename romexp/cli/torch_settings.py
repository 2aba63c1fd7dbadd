"""Settings of torch that hold while a job runs. torch has one of each for the whole process, so they are put back."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

from romexp.errors import ConfigError


def precision_of(task: Any) -> AbstractContextManager[None]:
    """The precision of matrix products with which a task's model computes; nothing for a task without a model."""
    from romexp.lm.precision import check_precision, matmul_precision

    wanted = getattr(getattr(task, "model", None), "matmul_precision", None)
    if wanted is None:
        return nullcontext()
    check_precision(wanted)
    return matmul_precision(wanted)


@contextmanager
def cpu_threads(number: int | None) -> Iterator[None]:
    """Inside the context torch uses this number of CPU threads; None leaves it as it is.

    Raises:
        ConfigError: the number is not positive.
    """
    if number is None:
        yield
        return
    if number < 1:
        raise ConfigError(f"threads: expected a number of at least 1, not {number}")
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(number)
    try:
        yield
    finally:
        torch.set_num_threads(before)
