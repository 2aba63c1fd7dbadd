"""Loads an export from disk in a fresh process, and compares it with the edited model in memory."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from romexp.errors import DataError
from romexp.export import check_reload
from romexp.export.gather import FoundEdit
from romexp.lm.apply_delta import applied
from romexp.lm.model import LanguageModel
from romexp.lm.packing import target_start
from romexp.lm.tokens import encode
from romexp.lm.weight_delta import WeightDelta

TOLERANCE = {"float32": 1e-4, "float64": 1e-4, "float16": 0.02, "bfloat16": 0.1}
"""How far the NLL of an edited prompt, in nats, may be from that of the edited model in memory, by type of the weights.

In the half-precision types the adapter's output is added to each activation, while the reference has the edit in its
rounded weights. Both are the edit up to rounding, which in bfloat16 keeps 8 bits.
"""

Reload = Callable[[Mapping[str, Any]], Mapping[str, Any]]
"""Loads an exported folder and scores targets: `check_reload.check`, here or in another process."""


def reload_request(
    lm: LanguageModel, edits: Sequence[FoundEdit], *, base: str | None, revision: str | None
) -> dict[str, Any]:
    """What `check_reload.check` is asked, without the folder.

    Args:
        base: the base model of an adapter; None for a whole model.
        revision: of the base model on the hub.
    """
    texts = []
    for edit in edits:
        request = edit.saved.request
        (encoding,) = encode(lm.tokenizer, [f"{request.text} {request.target_new}"])
        start = target_start(encoding, len(request.text))
        texts.append({"text": encoding.text, "ids": list(encoding.ids), "start": start})
    return {
        "base": base,
        "revision": revision if base else None,
        "dtype": str(lm.dtype).removeprefix("torch."),
        "attention": lm.model.config._attn_implementation,
        "device": str(lm.device),
        "device_map": "auto" if getattr(lm.model, "hf_device_map", None) else None,
        "texts": texts,
    }


def in_fresh_process(request: Mapping[str, Any]) -> Mapping[str, Any]:
    """`check_reload.check` in a process of its own, which imports nothing of romexp.

    Raises:
        DataError: it cannot load the folder.
    """
    command = [sys.executable, str(Path(check_reload.__file__))]
    done = subprocess.run(command, input=json.dumps(request), capture_output=True, text=True, encoding="utf-8")
    lines = done.stdout.splitlines()
    if done.returncode or not lines:
        reason = (done.stderr.strip().splitlines() or [f"exit status {done.returncode}"])[-1]
        raise DataError(f"a fresh process cannot load what was exported: {reason}")
    found: Mapping[str, Any] = json.loads(lines[-1])
    return found


def nlls_in_memory(lm: LanguageModel, delta: WeightDelta, request: Mapping[str, Any]) -> list[float]:
    """What the loaded export should give: NLLs of the model with the edits in its weights."""
    with applied(lm, delta):
        return check_reload.target_nlls(lm.model, request["texts"])


def compare(
    found: Mapping[str, Any], expected: Sequence[float], request: Mapping[str, Any], folder: Path
) -> dict[str, Any]:
    """What the check has shown, as JSON values.

    Args:
        found: the answer of `check_reload.check`.
        expected: the NLLs of the edited model in memory.
        request: what was asked.
        folder: the export, for messages.

    Raises:
        DataError: the loaded model is not the edited one.
    """
    if not found["same_tokens"]:
        raise DataError(f"{folder}: not exported: its tokenizer, once loaded, gives other tokens")
    tolerance = TOLERANCE.get(request["dtype"], TOLERANCE["bfloat16"])
    differences = [abs(own - other) for own, other in zip(found["nlls"], expected, strict=True)]
    worst = max(range(len(differences)), key=lambda i: differences[i])
    if not differences[worst] <= tolerance * max(1.0, expected[worst] if tolerance > 1e-3 else 1.0):
        raise DataError(
            f"{folder}: not exported: loaded from disk, the NLL of {request['texts'][worst]['text']!r} is "
            f"{found['nlls'][worst]:.6f}, that of the edited model {expected[worst]:.6f} (allowed difference in "
            f"{request['dtype']}: {tolerance:g})"
        )
    return {
        "dtype": request["dtype"],
        "tolerance": tolerance,
        "largest_difference": differences[worst],
        "libraries": found["libraries"],
    }
