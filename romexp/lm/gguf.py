"""Model files in the GGUF format of llama.cpp. They hold configuration, tokenizer and weights, which are usually
quantized.

A file is converted once into a folder that transformers reads as any other; later runs find the folder in the cache.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections import Counter
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import torch
import transformers
from filelock import FileLock
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

from romexp.errors import ConfigError, DataError
from romexp.files import file_sha256
from romexp.lm.architecture import Architecture, architecture_for
from romexp.lm.weight_bars import without_weight_bars

SUFFIX = ".gguf"
READERS = ("gguf", "accelerate")
"""Packages with which transformers reads such a file."""
ORIGIN = "gguf.json"
"""The file of a converted folder that says what it was made from."""

_log = logging.getLogger(__name__)


def convert_once(
    file: Path, *, dtype: torch.dtype, cache_dir: Path, architecture: Architecture | None
) -> tuple[Path, Mapping[str, Any]]:
    """The folder `<cache_dir>/gguf/<digest of the file>/<dtype>`. The file is converted if there is no such folder.

    The folder is written under another name and renamed when it is complete, so a conversion that was interrupted is
    never used. Only one process at a time converts a file.

    Args:
        file: a GGUF file.
        dtype: type of the converted weights. Quantized weights are dequantized to it.
        architecture: that of a family without a row in `romexp.lm.architecture`; else None.

    Returns:
        The folder, and what it was made from, JSON-ready: `file`, its `sha256`, `tensors` (the number of tensors of
        each type, such as Q4_1) and `dequantized_to`.

    Raises:
        ConfigError: it is not a GGUF file, it is damaged, the family is unknown, or a package is missing.
        DataError: the cache cannot be written.
    """
    _check_magic(file)
    folder = cache_dir / "gguf" / file_sha256(file)[:16] / str(dtype).removeprefix("torch.")
    if (found := _read_origin(folder)) is not None:
        return folder, found
    if missing := [package for package in READERS if find_spec(package) is None]:
        raise ConfigError(f"model.path: {file} needs packages that are not installed: pip install {' '.join(missing)}")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(folder.with_suffix(".lock")):
            if (found := _read_origin(folder)) is None:
                _log.info("converting %s, once; the result is kept in %s", file.name, folder)
                _convert(file, folder, dtype, architecture)
                found = _read_origin(folder)
    except OSError as error:
        raise DataError(f"cache_dir: cannot write {folder}: {error.strerror or error}") from error
    if found is None:
        raise DataError(f"cache_dir: {folder / ORIGIN} cannot be read")
    return folder, found


def _check_magic(file: Path) -> None:
    try:
        with file.open("rb") as opened:
            magic = opened.read(4)
    except OSError as error:
        raise ConfigError(f"model.path: cannot read {str(file)!r}: {error.strerror or error}") from error
    if magic != b"GGUF":
        raise ConfigError(f"model.path: {str(file)!r} is not a GGUF file (it does not begin with the letters GGUF)")


def _read_origin(folder: Path) -> Mapping[str, Any] | None:
    try:
        origin = json.loads((folder / ORIGIN).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    return origin if isinstance(origin, dict) else None


def _convert(file: Path, folder: Path, dtype: torch.dtype, architecture: Architecture | None) -> None:
    """Write the folder.

    Raises:
        ConfigError: the file is damaged, or transformers cannot read this kind of model.
        OSError: the folder cannot be written.
    """
    part = folder.with_suffix(".part")
    shutil.rmtree(part, ignore_errors=True)  # The rest of a conversion that was killed.
    shutil.rmtree(folder, ignore_errors=True)  # A folder that somebody has damaged.
    part.mkdir()
    try:
        # In a folder of its own, so that transformers does not read other files that lie beside it.
        alone = part / "source"
        alone.mkdir()
        (alone / file.name).symlink_to(file.resolve())
        try:
            with without_weight_bars():
                _write_model(alone, file.name, part, dtype, architecture)
        except Exception as error:
            if isinstance(error, ConfigError) or (isinstance(error, OSError) and error.errno):
                raise
            # The readers raise errors of many kinds for a damaged file or an unknown kind of model.
            reason = f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
            raise ConfigError(
                f"model.path: cannot convert {str(file)!r}, which is damaged or of a kind that transformers cannot "
                f"read ({reason})"
            ) from error
        shutil.rmtree(alone)
        _write_origin(file, part, dtype)
        part.rename(folder)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _write_model(source: Path, name: str, folder: Path, dtype: torch.dtype, architecture: Architecture | None) -> None:
    config = AutoConfig.from_pretrained(source, gguf_file=name, trust_remote_code=False)
    architecture or architecture_for(config.model_type)  # Before the weights are read, which may take minutes.
    loaded: Any = AutoModelForCausalLM.from_pretrained(
        source,
        gguf_file=name,
        config=config,
        quantization_config=_dense(),
        dtype=dtype,
        output_loading_info=True,
        trust_remote_code=False,
    )
    model, info = loaded
    if missing := sorted(info["missing_keys"]):
        raise ValueError(f"its weights lack {len(missing)} tensors, such as {missing[0]}")
    # The weights are plain numbers now. With these entries transformers would refuse to save them.
    model.hf_quantizer = None
    for entry in ("quantization_config", "_model_name_or_path"):
        if hasattr(model.config, entry):
            delattr(model.config, entry)
    model.save_pretrained(folder)
    AutoTokenizer.from_pretrained(source, gguf_file=name, trust_remote_code=False).save_pretrained(folder)


def _dense() -> Any:
    """Asks transformers for plain matrices. By default newer versions keep the weights packed where they can compute
    with them, and such a model can be neither edited nor saved. Older versions know plain matrices alone.
    """
    packed = getattr(transformers, "GgufConfig", None)
    return None if packed is None else packed(dequantize=True)


def _write_origin(file: Path, folder: Path, dtype: torch.dtype) -> None:
    from gguf import GGUFReader  # It is installed only where somebody wants to read such files.

    types = Counter(tensor.tensor_type.name for tensor in GGUFReader(file).tensors)
    origin = {
        "file": file.name,
        "sha256": file_sha256(file),
        "tensors": dict(types.most_common()),
        "dequantized_to": str(dtype).removeprefix("torch."),
    }
    text = folder / ORIGIN
    text.write_text(json.dumps(origin, indent=1) + "\n", encoding="utf-8")
    for weights in folder.glob("*.safetensors"):  # safetensors makes its files private
        weights.chmod(text.stat().st_mode)
