"""A Hugging Face causal language model with its tokenizer and the map of its parts."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
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

_NOT_THE_MODEL = {"_name_or_path", "architectures", "transformers_version"}
"""Entries of a model's config that say where it came from, not what it computes."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LanguageModel:
    """The three things every algorithm needs, as one value. Weights are frozen and in evaluation mode.

    Attributes:
        name: short name for folders and tables.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    architecture: Architecture
    name: str

    @property
    def device(self) -> torch.device:
        """Where inputs go: the device of the token embedding (right for `device_map` too)."""
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
        """Longest context in tokens."""
        return int(getattr(self.model.config, "max_position_embeddings", 0) or 1024)

    def module(self, path: str) -> nn.Module:
        return self.model.get_submodule(path)

    def block(self, layer: int) -> nn.Module:
        return self.module(self.architecture.block_name(layer))

    def parameter(self, name: str) -> nn.Parameter:
        return self.model.get_parameter(name)

    @cached_property
    def digest(self) -> str:
        """Sha256 (16 hex digits) over every weight, the model's config and the tokenizer: what caches are keyed by.

        The folder it was loaded from does not enter. Taken once per loaded model; `romexp.lm.apply_delta.applied`
        restores weights bit for bit, so it stays true.
        """
        # The entries that are not defaults, so that a new transformers with one more of them gives the same digest.
        config = {key: value for key, value in self.model.config.to_diff_dict().items() if key not in _NOT_THE_MODEL}
        tokenizer = json.loads(self.tokenizer.backend_tokenizer.to_str())
        for state in ("padding", "truncation"):  # left behind by the latest call
            tokenizer.pop(state, None)
        digest = hashlib.sha256(json.dumps([config, tokenizer], sort_keys=True, default=str).encode())
        for name, tensor in sorted(self.model.state_dict().items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
        return digest.hexdigest()[:16]


@dataclass(frozen=True, kw_only=True)
class PretrainedModel:
    """Where a model comes from and how to hold it (config group `model`).

    Attributes:
        path: hub id or local folder.
        name: short name used in folders and tables; the last part of `path` if empty.
        revision: branch, tag or commit on the hub.
        dtype: weights' type. Explicit, since `from_pretrained` would take the checkpoint's.
        device: `auto` (CUDA, then MPS, then CPU) or a torch device.
        device_map: passed to `from_pretrained` to spread one model over several devices; overrides `device`.
        attn_implementation: `sdpa`, `eager`, or `auto` (`sdpa` where the family has it, which GPT-J does not); flash
            attention cannot take the masks that packed scoring needs.
        architecture: module paths, only for a family that `romexp.lm.architecture` does not know.
    """

    path: str | Path
    name: str = ""
    revision: str | None = None
    dtype: str = "float32"
    device: str = "auto"
    device_map: Any = None
    attn_implementation: str = "auto"
    architecture: Architecture | None = None

    def load(self) -> LanguageModel:
        """Load weights and tokenizer.

        Raises:
            ConfigError: nothing whole to load at `path`, an unknown dtype or device, or an unknown architecture.
        """
        dtype = getattr(torch, self.dtype, None)
        if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
            raise ConfigError(f"model.dtype: {self.dtype!r} is not a torch float type (float32, bfloat16, float16)")
        device = resolve_device(self.device) if self.device_map is None else None
        path = str(self.path)
        path = str(Path(path).expanduser()) if path.startswith("~") else path
        if self.attn_implementation not in ("auto", "sdpa", "eager"):
            raise ConfigError(f"model.attn_implementation: {self.attn_implementation!r} is not auto, sdpa or eager")
        if (Path(path).is_absolute() or path.startswith(".")) and not Path(path).is_dir():
            raise ConfigError(f"model.path: there is no folder {path!r}")
        try:
            model, tokenizer, architecture = self._read(path, dtype)
        except (OSError, ValueError, RuntimeError, SafetensorError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise ConfigError(f"model.path: cannot load {path!r}: {reason}") from error
        if device is not None:
            model.to(device=device)  # type: ignore[call-arg]
        name = self.name or (Path(path).resolve().name if Path(path).is_dir() else Path(path).name)
        return prepare(model, tokenizer, architecture=architecture, name=name)

    def _read(self, path: str, dtype: torch.dtype) -> tuple[PreTrainedModel, PreTrainedTokenizerBase, Architecture]:
        config = AutoConfig.from_pretrained(path, revision=self.revision)
        architecture = self.architecture or architecture_for(config.model_type)
        with _without_weight_bars():
            loaded: Any = AutoModelForCausalLM.from_pretrained(
                path,
                revision=self.revision,
                dtype=dtype,
                device_map=self.device_map,
                attn_implementation=None if self.attn_implementation == "auto" else self.attn_implementation,
                output_loading_info=True,
            )
        model, info = loaded
        if missing := sorted(info["missing_keys"]):  # transformers fills them with random numbers and goes on
            raise ValueError(f"its weights lack {len(missing)} tensors, such as {missing[0]}")
        tokenizer = AutoTokenizer.from_pretrained(path, revision=self.revision)
        if len(tokenizer) <= len(tokenizer.all_special_tokens):  # transformers makes an empty one and goes on
            raise ValueError("it has no tokenizer files")
        return model, tokenizer, architecture


@contextmanager
def _without_weight_bars() -> Iterator[None]:
    """No bar while transformers reads weights; downloads keep theirs."""
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
    """Freeze the weights, set evaluation mode, make sure of a pad token (the end of text, docs/method.md §0).

    Raises:
        ConfigError: a path of `architecture` is not in the model, or the tokenizer cannot give offsets.
    """
    check(architecture, model)
    if not tokenizer.is_fast:
        raise ConfigError(f"model {name!r}: a fast tokenizer is needed (subject positions come from character offsets)")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token or tokenizer.convert_ids_to_tokens(0)
    model.eval().requires_grad_(False)
    return LanguageModel(model=model, tokenizer=tokenizer, architecture=architecture, name=name)


def resolve_device(device: str) -> torch.device:
    """`auto` is the best accelerator torch sees, else the CPU; anything else is taken as it is.

    Raises:
        ConfigError: there is no such device here.
    """
    if device != "auto":
        try:
            return torch.empty(0, device=device).device
        except (RuntimeError, AssertionError) as error:
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            raise ConfigError(f"model.device: cannot use {device!r} here: {reason}") from error
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return accelerator or torch.device("cpu")
