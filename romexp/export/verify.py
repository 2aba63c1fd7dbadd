"""Loads an export from disk in a fresh process, and compares it with the edited model in memory."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from romexp.errors import DataError, RecordError
from romexp.export import check_reload
from romexp.export.gather import FoundEdit
from romexp.lm.apply_delta import applied
from romexp.lm.forward import check_length
from romexp.lm.model import LanguageModel
from romexp.lm.packing import target_start
from romexp.lm.precision import matmul_precision
from romexp.lm.tokens import encode
from romexp.lm.weight_delta import WeightDelta

HALF = ("float16", "bfloat16")
TOLERANCE = {"float32": 1e-4, "float64": 1e-4, "float16": 0.01, "bfloat16": 0.05}
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

    Raises:
        RecordError: a prompt or its target has no token, or the text is too long for the model.
    """
    texts = []
    for edit in edits:
        request = edit.saved.request
        (encoding,) = encode(lm.tokenizer, [f"{request.text} {request.target_new}"])
        try:
            check_length(lm, len(encoding) - 1)  # The last token is not fed to the model.
            start = target_start(encoding, len(request.text))
        except RecordError as error:
            raise RecordError(f"{edit.label}: {error}") from error
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
    """What the loaded export should give: NLLs of the model with the edits in its weights. The other process computes
    with torch's usual precision, so this one does too."""
    with matmul_precision("highest"), applied(lm, delta):
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
        raise DataError(f"{folder}: loaded from disk, its tokenizer gives other tokens")
    dtype, differences = request["dtype"], []
    for text, own, other in zip(request["texts"], found["nlls"], expected, strict=True):
        differences.append(abs(own - other))
        allowed = allowed_difference(dtype, other)
        if not differences[-1] <= allowed:  # So that a NaN fails too.
            raise DataError(
                f"{folder}: loaded from disk, it is not the edited model: the NLL of {text['text']!r} is {own:.6f}, "
                f"it should be {other:.6f} (allowed difference in {dtype}: {allowed:g})"
            )
    return {
        "dtype": dtype,
        "tolerance": TOLERANCE[dtype],
        "largest_difference": max(differences),
        "libraries": found["libraries"],
    }


def allowed_difference(dtype: str, nll: float) -> float:
    """How far an NLL may be off. In the half-precision types it grows with the NLL, as rounding errors do."""
    tolerance = TOLERANCE[dtype]
    return tolerance * max(1.0, nll) if dtype in HALF else tolerance
