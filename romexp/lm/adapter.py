"""PEFT adapters: which folders are one, and how they are merged into the weights of their base model."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from types import ModuleType

from transformers import PreTrainedModel

from romexp.errors import ConfigError

CONFIG = "adapter_config.json"


def is_adapter(path: str | Path) -> bool:
    """Whether this is a folder with a PEFT adapter."""
    return (Path(path) / CONFIG).is_file()


def adapter_base(folder: str | Path) -> tuple[str, str | None]:
    """The base model that an adapter names: hub id or folder, and revision.

    Raises:
        ConfigError: the adapter's configuration is damaged, or names no base model.
    """
    file = Path(folder) / CONFIG
    try:
        said = json.loads(file.read_text(encoding="utf-8"))
        base, revision = said["base_model_name_or_path"], said.get("revision")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise ConfigError(f"{file}: expected an adapter's configuration ({type(error).__name__}: {error})") from error
    if not isinstance(base, str) or not base:
        raise ConfigError(f"{file}: base_model_name_or_path names no model")
    if Path(base).is_absolute() and not Path(base).is_dir():
        raise ConfigError(f"{file}: the base model {base!r} is not there; name its place in base_model_name_or_path")
    return base, revision


def merge_adapter(model: PreTrainedModel, folder: str | Path) -> PreTrainedModel:
    """Add an adapter to the weights of its base model, in place.

    Raises:
        ConfigError: peft is not installed, or the adapter does not belong to this model.
    """
    peft = import_peft()
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("error", message="Found missing adapter keys")
            warnings.filterwarnings("ignore", message="`is_gradient_checkpointing`")  # between peft and transformers
            merged: PreTrainedModel = peft.PeftModel.from_pretrained(model, str(folder)).merge_and_unload(
                safe_merge=True
            )
    except (OSError, ValueError, RuntimeError, KeyError, TypeError, UserWarning) as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise ConfigError(f"{folder}: cannot add this adapter to {model.config.name_or_path}: {reason}") from error
    merged.config._name_or_path = str(folder)
    return merged


def import_peft() -> ModuleType:
    """The module `peft`, which is imported only when it is used: it takes seconds, and romexp works without it.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import peft
    except ImportError as error:
        raise ConfigError(f"peft is needed for adapters: pip install 'romexp[export]' ({error})") from error
    return peft  # type: ignore[no-any-return]
