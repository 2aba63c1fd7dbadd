"""A Hugging Face causal language model with its tokenizer and the paths of its modules."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase
from transformers.utils import logging as transformers_logging

from romexp.errors import ConfigError
from romexp.lm.architecture import Architecture, architecture_for, check
from romexp.lm.head import has_plain_head
from romexp.lm.model_source import find_source

_NOT_THE_MODEL = {"_name_or_path", "architectures", "transformers_version"}
"""Entries of a model's configuration that do not affect what the model computes."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LanguageModel:
    """A model, its tokenizer and its module paths. The model is in evaluation mode and its weights are frozen.

    Attributes:
        architecture: the paths of the model's parts.
        name: short name for folders and tables.
        provenance: what the weights were converted from (`romexp.lm.gguf`), JSON-ready; empty if they were not.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    architecture: Architecture
    name: str
    provenance: Mapping[str, Any] = field(default_factory=dict)

    @property
    def device(self) -> torch.device:
        """The device for inputs: that of the token embedding. This is also right if `device_map` spreads the model."""
        return self.module(self.architecture.embedding).weight.device  # type: ignore[return-value, union-attr]

    @property
    def dtype(self) -> torch.dtype:
        return self.model.dtype

    @cached_property
    def n_layers(self) -> int:
        return len(self.module(self.architecture.layers))  # type: ignore[arg-type]

    @property
    def hidden_size(self) -> int:
        return int(self.model.config.hidden_size)

    @property
    def max_positions(self) -> int:
        """The number of positions, that is the longest context in tokens."""
        return int(getattr(self.model.config, "max_position_embeddings", 0) or 1024)

    def module(self, path: str) -> nn.Module:
        return self.model.get_submodule(path)

    def block(self, layer: int) -> nn.Module:
        return self.module(self.architecture.block_name(layer))

    def parameter(self, name: str) -> nn.Parameter:
        return self.model.get_parameter(name)

    @cached_property
    def plain_head(self) -> bool:
        """True if logits are what the output head gives. Some families scale or cap them afterwards."""
        return has_plain_head(self.model)

    @cached_property
    def digest(self) -> str:
        """SHA-256 (16 hexadecimal digits) over all weights, the model's configuration and the tokenizer.

        Caches use it as a key. It does not depend on the folder that the model was loaded from. It is computed once and
        stays valid, because `romexp.lm.apply_delta.applied` restores the weights bit for bit.
        """
        # Only entries that differ from the defaults: a new version of transformers may add entries with defaults.
        config = {key: value for key, value in self.model.config.to_diff_dict().items() if key not in _NOT_THE_MODEL}
        tokenizer = json.loads(self.tokenizer.backend_tokenizer.to_str())
        for state in ("padding", "truncation"):  # These depend on the latest call of the tokenizer.
            tokenizer.pop(state, None)
        digest = hashlib.sha256(json.dumps([config, tokenizer], sort_keys=True, default=str).encode())
        for name, tensor in sorted(self.model.state_dict().items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
        return digest.hexdigest()[:16]


@dataclass(frozen=True, kw_only=True)
class PretrainedModel:
    """Where to load a model from, and with which type, device and attention (configuration group `model`).

    Attributes:
        path: hub id, local folder, GGUF file, or `pkg://<package>/<one of the last two>` (`romexp.lm.model_source`).
        name: short name used in folders and tables; if empty, the last part of `path`.
        setup: the command that installs the package of a `pkg://` path, for the error message where it is missing.
        revision: branch, tag or commit on the hub.
        dtype: type of the weights. It is always set, because `from_pretrained` would take that of the checkpoint.
        device: `auto` (CUDA, then MPS, then CPU) or the name of a torch device.
        device_map: passed to `from_pretrained`, which spreads one model over several devices; it overrides `device`.
        attn_implementation: `sdpa`, `eager`, or `auto`, which takes `sdpa` where the family supports it (GPT-J does
            not). Flash attention is not possible, because it does not accept the masks of packed scoring.
        architecture: module paths; needed only for a family that `romexp.lm.architecture` does not know.
        cache_dir: folder that keeps converted GGUF files; see `romexp.files.cache_folder`.
    """

    path: str | Path
    name: str = ""
    setup: str = ""
    revision: str | None = None
    dtype: str = "float32"
    device: str = "auto"
    device_map: Any = None
    attn_implementation: str = "auto"
    architecture: Architecture | None = None
    cache_dir: str | Path | None = None

    def load(self) -> LanguageModel:
        """Load weights and tokenizer.

        Raises:
            ConfigError: `path` holds no complete model, or the dtype, the device or the architecture is unknown.
            DataError: a GGUF file must be converted, and the cache cannot be written.
        """
        dtype = getattr(torch, self.dtype, None)
        if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
            raise ConfigError(f"model.dtype: {self.dtype!r} is not a torch float type (float32, bfloat16, float16)")
        device = resolve_device(self.device) if self.device_map is None else None
        if self.attn_implementation not in ("auto", "sdpa", "eager"):
            raise ConfigError(f"model.attn_implementation: {self.attn_implementation!r} is not auto, sdpa or eager")
        source = find_source(
            self.path, setup=self.setup, dtype=dtype, cache_dir=self.cache_dir, architecture=self.architecture
        )
        path = source.path
        try:
            model, tokenizer, architecture = self._read(path, dtype)
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            if "trust_remote_code" in str(error):
                reason = "it needs Python code of its own (`auto_map` in its files), which romexp does not run"
            raise ConfigError(f"model.path: cannot load {path!r}: {reason}") from error
        if device is not None:
            model.to(device=device)  # type: ignore[call-arg]
        lm = prepare(model, tokenizer, architecture=architecture, name=self.name or source.name)
        return replace(lm, provenance=source.provenance)

    def _read(self, path: str, dtype: torch.dtype) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, Architecture]:
        # False at all three places: without it transformers asks on the terminal whether to run a model's own code.
        config = AutoConfig.from_pretrained(path, revision=self.revision, trust_remote_code=False)
        architecture = self.architecture or architecture_for(config.model_type)
        with _without_weight_bars():
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                path,
                revision=self.revision,
                dtype=dtype,
                device_map=self.device_map,
                attn_implementation=None if self.attn_implementation == "auto" else self.attn_implementation,
                output_loading_info=True,
                trust_remote_code=False,
            )
        model, info = loaded
        # In both cases below transformers itself would continue, with random weights or with an empty tokenizer.
        if missing := sorted(info["missing_keys"]):
            raise ValueError(f"its weights lack {len(missing)} tensors, such as {missing[0]}")
        tokenizer = AutoTokenizer.from_pretrained(path, revision=self.revision, trust_remote_code=False)
        if len(tokenizer) <= len(tokenizer.all_special_tokens):
            raise ValueError("it has no tokenizer files")
        return model, tokenizer, architecture


@contextmanager
def _without_weight_bars() -> Iterator[None]:
    """Hide the progress bar of reading weights. Progress bars of downloads are not affected."""
    shown = transformers_logging.is_progress_bar_enabled()
    transformers_logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            transformers_logging.enable_progress_bar()


def prepare(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, architecture: Architecture, name: str
) -> LanguageModel:
    """Freeze the weights and set evaluation mode. A tokenizer without a pad token gets its end-of-text token as one
    (docs/method.md §0).

    Raises:
        ConfigError: the model does not fit `architecture`, by its paths or by what it computes
            (`romexp.lm.check_architecture`), or the tokenizer cannot give character offsets.
    """
    check(architecture, model)
    if not tokenizer.is_fast:
        raise ConfigError(f"model {name!r}: a fast tokenizer is needed (subject positions come from character offsets)")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.convert_ids_to_tokens(0)
    model.eval().requires_grad_(False)
    lm = LanguageModel(model=model, tokenizer=tokenizer, architecture=architecture, name=name)
    from romexp.lm.check_architecture import check_numbers  # It needs the class that is defined here.

    check_numbers(lm)
    return lm


def resolve_device(device: str) -> torch.device:
    """The torch device of this name. `auto` is the current accelerator, or the CPU if there is none.

    Raises:
        ConfigError: this machine has no such device.
    """
    if device != "auto":
        try:
            return torch.empty(0, device=device).device
        except (RuntimeError, AssertionError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise ConfigError(f"model.device: cannot use {device!r} here: {reason}") from error
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return accelerator or torch.device("cpu")
