"""Stores, for each model, the layer that causal tracing suggests for editing; `editor.layer=traced` reads it
(docs/method.md §2.7).
"""

from __future__ import annotations

import json
from dataclasses import is_dataclass, replace
from pathlib import Path
from typing import Any

from romexp.errors import ConfigError
from romexp.files import read_json, write_text


def _layer_file(cache_dir: Path, digest: str) -> Path:
    return cache_dir / "traced_layers" / f"{digest}.json"


def remember_layer(cache_dir: Path, digest: str, *, layer: int, source: Path) -> None:
    """Store the layer that a trace suggests, in place of that of an earlier trace.

    Args:
        digest: digest of the traced model.
        source: folder of the trace's run.
    """
    path = _layer_file(cache_dir, digest)
    write_text(path, json.dumps({"layer": layer, "source": str(source.resolve())}) + "\n")


def traced_layer(cache_dir: Path, digest: str) -> int:
    """The layer that the newest trace of the model with this digest suggested.

    Raises:
        ConfigError: the model has not been traced, or the file with its layer is damaged.
    """
    if (layer := _stored_layer(cache_dir, digest)) is not None:
        return layer
    path = _layer_file(cache_dir, digest)
    why = f"{path} is damaged" if path.exists() else "this model has not been traced"
    raise ConfigError(f"editor.layer=traced: {why}; run romexp task=trace with this model first")


def knows_layer(cache_dir: Path, digest: str) -> bool:
    """Whether a layer is stored for the model with this digest."""
    return _stored_layer(cache_dir, digest) is not None


def _stored_layer(cache_dir: Path, digest: str) -> int | None:
    try:
        content = read_json(_layer_file(cache_dir, digest))
    except (OSError, ValueError):
        return None
    layer = content.get("layer") if isinstance(content, dict) else None
    return layer if type(layer) is int and layer >= 0 else None


def with_traced_layer(editor: Any, cache_dir: Path, digest: str) -> Any:
    """If the editor's `layer` is `traced`, a copy of the editor with the number of that layer; else the editor itself.

    Raises:
        ConfigError: the model has not been traced.
    """
    if getattr(editor, "layer", None) != "traced" or not is_dataclass(editor) or isinstance(editor, type):
        return editor
    return replace(editor, layer=traced_layer(cache_dir, digest))
