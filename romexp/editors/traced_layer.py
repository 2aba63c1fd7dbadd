"""The layer that causal tracing suggests for editing, kept by model: what `editor.layer=traced` looks up."""

from __future__ import annotations

import json
from dataclasses import is_dataclass, replace
from pathlib import Path
from typing import Any

from romexp.errors import ConfigError
from romexp.files import write_text


def _file(cache_dir: Path, digest: str) -> Path:
    return cache_dir / "traced_layers" / f"{digest}.json"


def remember_layer(cache_dir: Path, digest: str, *, layer: int, source: Path) -> None:
    """Keep the layer that the newest trace of a model suggests, with the run that it came from."""
    path = _file(cache_dir, digest)
    write_text(path, json.dumps({"layer": layer, "source": str(source.resolve())}) + "\n")


def traced_layer(cache_dir: Path, digest: str) -> int:
    """The layer that the newest `task=trace` of this model suggested.

    Raises:
        ConfigError: this model has not been traced.
    """
    path = _file(cache_dir, digest)
    if not path.is_file():
        raise ConfigError("editor.layer=traced: this model has not been traced; run romexp task=trace with it first")
    return int(json.loads(path.read_text(encoding="utf-8"))["layer"])


def with_traced_layer(editor: Any, cache_dir: Path, digest: str) -> Any:
    """The editor with the traced layer's number where its `layer` says `traced`, else the editor as it is."""
    if getattr(editor, "layer", None) != "traced" or not is_dataclass(editor) or isinstance(editor, type):
        return editor
    return replace(editor, layer=traced_layer(cache_dir, digest))
