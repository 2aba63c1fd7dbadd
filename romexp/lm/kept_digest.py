"""Keeps the digests of models whose files have not changed, so that not every process hashes gigabytes of weights."""

from __future__ import annotations

import hashlib
import json
import re
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import tokenizers
import transformers
from huggingface_hub import try_to_load_from_cache

from romexp.errors import ConfigError
from romexp.files import Stamp, file_sha256, stamp, write_text
from romexp.lm import model as model_module
from romexp.lm.adapter import adapter_base, is_adapter
from romexp.lm.model import LanguageModel, PretrainedModel
from romexp.lm.model_source import local_path


def load_with_digest(model: PretrainedModel, folder: Path) -> LanguageModel:
    """Load a model. If its digest was computed before from the same files, it is taken from there.

    "The same files" means equal names, sizes and times of change; with equal dtype, and versions of the libraries that
    read them. They are those of the folder, the GGUF file, the adapter and its base model, or the snapshot of the hub.
    A digest that cannot be kept is computed again by the next process.

    Args:
        folder: where digests are kept, one small file for each.

    Raises:
        ConfigError: see `PretrainedModel.load`.
    """
    before = _sources(model.path)
    lm = model.load()
    if _sources(model.path) != before:
        return lm
    places, last = before
    # What is not on this machine under its own name is in the cache of the hub, whose snapshots do not change.
    if not (files := places if last is None else _with_snapshot(places, last, lm)):
        return lm
    file = folder / f"{_key(model, files)}.json"
    if (known := _read(file)) is not None:
        return replace(lm, known_digest=known)
    with suppress(OSError):
        write_text(file, json.dumps({"digest": lm.digest, "model": str(model.path)}) + "\n")
    return lm


def _key(model: PretrainedModel, files: list[tuple[str, Stamp]]) -> str:
    """The file name under which a digest is kept. It changes with the code that computes digests, too."""
    versions = [transformers.__version__, tokenizers.__version__, file_sha256(Path(model_module.__file__))]
    parts = [model.dtype, model.revision, model.attn_implementation, files, versions]
    return hashlib.sha256(json.dumps(parts).encode()).hexdigest()[:24]


def _sources(path: str | Path) -> tuple[list[tuple[str, Stamp]], str | None]:
    """The local files that a model is read from: of an adapter those of its base model too.

    Returns:
        Path and stamp of each file, and the id of the model on the hub that is read besides them, if there is one.
    """
    files: list[tuple[str, Stamp]] = []
    with suppress(ConfigError):  # What is wrong is said when the model is loaded.
        source = Path(local_path(path)).expanduser()
        while is_adapter(source):
            files += _stamps(source)
            path = adapter_base(source)[0]
            source = Path(path).expanduser()
        if source.is_file():
            return [*files, (str(source.resolve()), stamp(source))], None
        if source.is_dir():
            return files + _stamps(source), None
    return files, str(path)


def _with_snapshot(files: list[tuple[str, Stamp]], name: str, lm: LanguageModel) -> list[tuple[str, Stamp]]:
    """The files, and those from which a model of the hub was loaded; empty if these are not known."""
    commit: Any = getattr(lm.model.config, "_commit_hash", None)
    if not commit:
        return []
    found = try_to_load_from_cache(name, "config.json", revision=commit)
    return files + _stamps(Path(found).parent) if isinstance(found, str) else []


def _stamps(folder: Path) -> list[tuple[str, Stamp]]:
    """Path and stamp of each file of a folder."""
    return [(str(file.resolve()), stamp(file)) for file in sorted(folder.iterdir()) if file.is_file()]


def _read(file: Path) -> str | None:
    """The kept digest; None if there is none, or the file is damaged."""
    try:
        digest = json.loads(file.read_text(encoding="utf-8"))["digest"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return digest if isinstance(digest, str) and re.fullmatch(r"[0-9a-f]{16}", digest) else None
