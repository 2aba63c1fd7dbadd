"""Attention in which several query heads share keys and values, without copies of these on a CPU."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import torch

_SWITCH = "TRANSFORMERS_SDPA_FORCE_GQA"
"""Transformers' own switch, which its attention reads on each call. A version without it makes the copies."""


@contextmanager
def without_copies(device: torch.device, *, n_queries: int) -> Iterator[None]:
    """Inside the context attention on a CPU reads shared keys and values in place.

    Where there is a mask, Transformers copies them for every query head, because fast attention on a GPU needs that. On
    one core of a CPU attention takes half the time without the copies, with its gradients too. The numbers are the same
    up to rounding. Passes with one token for each text need no switch, since they make no copies. A value of the switch
    that the user has set stays.

    Args:
        device: where the pass runs.
        n_queries: number of tokens of each text in the pass.
    """
    if device.type != "cpu" or n_queries == 1 or _SWITCH in os.environ:
        yield
        return
    os.environ[_SWITCH] = "1"
    try:
        yield
    finally:
        os.environ.pop(_SWITCH, None)
