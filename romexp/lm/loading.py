"""Turns whatever goes wrong while a model is loaded into one line that says what to do, and prepares its settings."""

from __future__ import annotations

import errno
import json
import logging
import pickle
import re
import warnings
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers import PretrainedConfig
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

from romexp.errors import ConfigError, RomexpError
from romexp.hub import HubUnreachable
from romexp.redact import without_secrets
from romexp.unpacked import check_zip

LONGEST = 300
"""Characters of another program's message that are shown."""

WHAT_TO_DO = {
    "config.json": "check its config.json, or download the model again",
    "weights": "check its config.json and its weights, or download the model again",
    "tokenizer": "check its tokenizer.json, or update the packages transformers and tokenizers",
}
"""What to do about an unknown error, by the part of the model that was being read."""

QUANTIZED = re.compile(
    r"\.(qweight|qzeros|scales|g_idx|SCB|weight_format|absmax|quant_map|quant_state\..+|nested_\w+"
    r"|weight_(packed|shape|zero_point|g_idx|scale(_inv|_2)?)|input_scale)$"
)
"""Names of tensors that only quantized checkpoints have."""


@contextmanager
def loading(path: str, part: str = "weights") -> Iterator[None]:
    """Turn any exception into one line that names the path. Warnings of transformers are held back until the end: after
    an error they are shown only with its traceback.

    Args:
        part: the part of the model that is read, a key of `WHAT_TO_DO`.

    Raises:
        ConfigError: there was an exception. Other errors of `romexp.errors` stay as they are.
    """
    with _held_back() as messages:
        try:
            yield
        except BaseException as error:
            # What the tokenizers' Rust code raises when it fails is no Exception.
            if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
                raise
            if messages:
                error.add_note("\n".join(messages))
            if isinstance(error, RomexpError) and (not isinstance(error, ConfigError) or path in str(error)):
                raise
            known = str(error) if isinstance(error, ConfigError) else _known_folder(Path(path))
            reason = known or explain(error, part, messages)
            raise ConfigError(f"model.path: cannot load {path!r}: {without_secrets(reason)}") from error


def explain(error: BaseException, part: str, messages: Iterable[str] = ()) -> str:
    """Why a part of a model cannot be read, and what to do about it, in one line.

    Args:
        error: the exception.
        part: a key of `WHAT_TO_DO`.
        messages: warnings that came before it.
    """
    said = re.sub(r"\s+", " ", str(error)).strip()
    if isinstance(error, HubUnreachable):
        return (
            f"its files are not in the cache of the Hugging Face hub, and {said}; set model.path to a local folder, "
            "or load it once while there is a network"
        )
    if said.startswith("Repo id must"):
        return "there is no such folder, and no model of the Hugging Face hub can have this name"
    if "trust_remote_code" in said:
        return "it needs Python code of its own (`auto_map` in its files), which romexp does not run"
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return "it does not fit the memory; set model.dtype=bfloat16, model.device=cpu or model.device_map=auto"
    if isinstance(error, pickle.UnpicklingError) or "Weights only load failed" in said:
        return "its weights are a pickle file with more than tensors in it, or damaged; convert them to safetensors"
    if "ignore_mismatched_sizes" in said:
        shown = next((line for message in messages for line in message.splitlines() if "MISMATCH" in line), "")
        name, _, sizes = (piece.strip() for piece in (*shown.split("|"), "", "", "")[:3])
        return f"its weights have other shapes than its config.json says{f' ({name}: {sizes})' if sizes else ''}"
    if isinstance(error, OSError) and error.errno in (errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOSPC):
        where = f"{error.filename}: " if error.filename else ""
        return f"{where}{error.strerror}; HF_HOME names the folder for downloads of the Hugging Face hub"
    shown = said if len(said) <= LONGEST else f"{said[:LONGEST]}…"
    if isinstance(error, ImportError):
        return f"{part}: a package is missing that it needs: {shown}"
    if "CUDA" in said:
        return f"{shown}; check model.device and model.device_map"
    is_parser = isinstance(error, json.JSONDecodeError | UnicodeError)
    if isinstance(error, OSError | ValueError | RuntimeError) and not is_parser:
        return shown  # transformers says itself what was expected
    # A KeyError, for example, says nothing but the key.
    return f"{part}: {type(error).__name__}{f' ({shown})' if shown else ''}; {WHAT_TO_DO[part]}"


def _known_folder(folder: Path) -> str:
    """What is known to be wrong with a folder that cannot be loaded; empty if nothing is."""
    for file in sorted(folder.glob("*")) if folder.is_dir() else ():
        if file.is_file() and file.stat().st_size < 1000 and file.read_bytes().startswith(b"version https://git-lfs"):
            return f"{file.name} is a pointer of Git LFS and not the file itself; run `git lfs pull` there"
    if (folder / "adapter_config.json").is_file():
        return "it is an adapter (PEFT); merge it into its base model (merge_and_unload), and load what that saves"
    return ""


def prepare_config(config: PretrainedConfig) -> None:
    """Refuse a configuration that cannot be loaded right, and correct entries that do not affect what is computed.

    Raises:
        ConfigError: the weights are quantized, or transformers does not know the kind of rotary positions.
    """
    refuse_quantized(config)
    for entry in _rope_settings(config):
        kind = entry.get("rope_type", entry.get("type", "default"))
        if kind not in ("default", *ROPE_INIT_FUNCTIONS):
            known = ", ".join(sorted({"default", *ROPE_INIT_FUNCTIONS}))
            raise ConfigError(
                f"its config.json asks for rotary positions of the kind {kind!r}, which transformers "
                f"{transformers.__version__} does not know ({known}); a newer one may"
            )
    # Padding is masked, so its embedding does not matter, but torch refuses one that does not exist.
    vocabulary, pad = getattr(config, "vocab_size", None), getattr(config, "pad_token_id", None)
    if isinstance(vocabulary, int) and isinstance(pad, int) and not -vocabulary <= pad < vocabulary:
        config.pad_token_id = None
    # A checkpoint may name flash attention, which does not accept the masks of packed scoring.
    config._attn_implementation = None


def refuse_quantized(config: PretrainedConfig) -> None:
    """Refuse a model with quantized weights: they have no plain matrices to edit.

    Raises:
        ConfigError: they are quantized, by any method.
    """
    for name in ("quantization_config", "compression_config"):
        if settings := getattr(config, name, None):
            found = settings if isinstance(settings, Mapping) else getattr(settings, "__dict__", {})
            method = found.get("quant_method") or "method unknown"
            raise ConfigError(_quantized(str(getattr(method, "value", method))))


def refuse_quantized_tensors(names: Iterable[str]) -> None:
    """Refuse weights that hold tensors of a quantized checkpoint, if the configuration does not say so.

    Args:
        names: names of tensors that the model does not have.

    Raises:
        ConfigError: one of them is of this kind.
    """
    if found := next((name for name in sorted(names) if QUANTIZED.search(name)), None):
        raise ConfigError(_quantized(f"they hold {found}"))


def _quantized(how: str) -> str:
    return f"its weights are quantized ({how}) and cannot be edited; load a checkpoint that is not quantized"


def refuse_unpacking(path: str) -> None:
    """Refuse pickled weights in a local folder that would unpack to far more than they are.

    Raises:
        DataError: see `romexp.unpacked.check_unpacked_size`.
    """
    folder = Path(path)
    for pattern in ("*.bin", "*.pt", "*.pth"):
        for file in sorted(folder.glob(pattern)) if folder.is_dir() else ():
            check_zip(file)


def _rope_settings(config: PretrainedConfig) -> list[Mapping[str, Any]]:
    """The entries on rotary positions. Some families have one for each kind of layer."""
    given = [getattr(config, name, None) for name in ("rope_parameters", "rope_scaling")]
    entries = [entry for entry in given if isinstance(entry, Mapping)]
    inner = [value for entry in entries for value in entry.values() if isinstance(value, Mapping)]
    return inner or entries


@contextmanager
def _held_back() -> Iterator[list[str]]:
    """Collect the warnings of transformers and of Python. They are shown when the context ends, if without an error."""
    logger, held = logging.getLogger("transformers"), _Collected()
    handlers, propagate = logger.handlers[:], logger.propagate
    logger.handlers[:], logger.propagate = [held], False
    try:
        with warnings.catch_warnings(record=True) as caught:
            yield held.messages
    finally:
        logger.handlers[:], logger.propagate = handlers, propagate
    for record in held.records:
        logger.handle(record)
    for each in caught:
        warnings.warn_explicit(each.message, each.category, each.filename, each.lineno)


class _Collected(logging.Handler):
    def __init__(self) -> None:
        super().__init__()
        self.records: list[logging.LogRecord] = []
        self.messages: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.records.append(record)
        self.messages.append(record.getMessage())
