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

from romexp.files import Stamp, file_sha256, stamp, write_text
from romexp.lm import model as model_module
from romexp.lm.model import LanguageModel, PretrainedModel


def load_with_digest(model: PretrainedModel, folder: Path) -> LanguageModel:
    """Load a model. If its digest was computed before from the same files, it is taken from there.

    "The same files" means equal names, sizes and times of change; with equal dtype, and versions of the libraries that
    read them. A digest that cannot be kept is computed again by the next process.

    Args:
        folder: where digests are kept, one small file for each.

    Raises:
        ConfigError: see `PretrainedModel.load`.
    """
    before = _stamps(_local_folder(model))
    lm = model.load()
    files = before or _stamps(_snapshot(model, lm))
    if not files or (before and _stamps(_local_folder(model)) != before):
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


def _local_folder(model: PretrainedModel) -> Path:
    return Path(model.path).expanduser()


def _snapshot(model: PretrainedModel, lm: LanguageModel) -> Path | None:
    """The folder in the Hugging Face cache from which a model of the hub was loaded; None if it is not known."""
    commit: Any = getattr(lm.model.config, "_commit_hash", None)
    if not commit:
        return None
    found = try_to_load_from_cache(str(model.path), "config.json", revision=commit)
    return Path(found).parent if isinstance(found, str) else None


def _stamps(folder: Path | None) -> list[tuple[str, Stamp]]:
    """Path and stamp of each file of a folder; empty if there is no such folder."""
    if folder is None or not folder.is_dir():
        return []
    return [(str(file.resolve()), stamp(file)) for file in sorted(folder.iterdir()) if file.is_file()]


def _read(file: Path) -> str | None:
    """The kept digest; None if there is none, or the file is damaged."""
    try:
        digest = json.loads(file.read_text(encoding="utf-8"))["digest"]
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return digest if isinstance(digest, str) and re.fullmatch(r"[0-9a-f]{16}", digest) else None
