"""How many layers fit into memory in one pass."""

from __future__ import annotations

from collections.abc import Sequence

import psutil
import torch

from romexp.lm.model import LanguageModel
from romexp.stats.keys import largest_key_width

SHARE = 0.5
"""Share of the free memory that second moments may take."""


def layers_that_fit(
    lm: LanguageModel, needed: Sequence[int], others: Sequence[int], dtype: str, *, free_bytes: int | None = None
) -> list[int]:
    """The layers to measure in one pass: those that are needed, and as many of the others as memory allows.

    A layer takes its sum (D × D, on the model's device) and its result (D × D float32, on the CPU).

    Args:
        dtype: type of the sums, `float32` or `float64`.
        free_bytes: free memory; None asks the machine.
    """
    per_layer = largest_key_width(lm) ** 2 * ((8 if dtype == "float64" else 4) + 4)
    free = _free_bytes(lm.device) if free_bytes is None else free_bytes
    room = int(SHARE * free / per_layer) - len(needed)
    return [*needed, *others[: max(0, room)]]


def _free_bytes(device: torch.device) -> int:
    free = int(psutil.virtual_memory().available)
    own = torch.get_device_module(device)
    return min(free, int(own.mem_get_info(device)[0])) if hasattr(own, "mem_get_info") else free
