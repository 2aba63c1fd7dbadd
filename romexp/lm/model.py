"""A Hugging Face causal language model with its tokenizer and the map of its parts."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from romexp.errors import ConfigError
from romexp.lm.architecture import Architecture, architecture_for, check


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
        """Sha256 (16 hex digits) over every weight, the model's config and the vocabulary: what caches are keyed by.

        Taken once per loaded model; `romexp.lm.deltas.applied` restores weights bit for bit, so it stays true.
        """
        digest = hashlib.sha256(self.model.config.to_json_string(use_diff=False).encode())
        digest.update(repr(sorted(self.tokenizer.get_vocab().items())).encode())
        for name, tensor in sorted(self.model.state_dict().items()):
            digest.update(name.encode())
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
        attn_implementation: `sdpa` or `eager`; flash attention cannot take the masks that packed scoring needs.
        architecture: module paths, only for a family that `romexp.lm.architecture` does not know.
    """

    path: str
    name: str = ""
    revision: str | None = None
    dtype: str = "float32"
    device: str = "auto"
    device_map: Any = None
    attn_implementation: str = "sdpa"
    architecture: Architecture | None = None

    def load(self) -> LanguageModel:
        """Load weights and tokenizer.

        Raises:
            ConfigError: nothing loadable at `path`, an unknown dtype, or an unknown architecture.
        """
        dtype = getattr(torch, self.dtype, None)
        if not isinstance(dtype, torch.dtype):
            raise ConfigError(f"model.dtype: {self.dtype!r} is not a torch dtype (float32, bfloat16, float16)")
        try:
            config = AutoConfig.from_pretrained(self.path, revision=self.revision)
            architecture = self.architecture or architecture_for(config.model_type)
            model = AutoModelForCausalLM.from_pretrained(
                self.path,
                revision=self.revision,
                dtype=dtype,
                device_map=self.device_map,
                attn_implementation=self.attn_implementation,
            )
            tokenizer = AutoTokenizer.from_pretrained(self.path, revision=self.revision)
        except (OSError, ValueError) as error:
            raise ConfigError(f"model.path: cannot load {self.path!r}: {str(error).splitlines()[0]}") from error
        if self.device_map is None:
            model.to(device=resolve_device(self.device))  # type: ignore[call-arg]
        return prepare(model, tokenizer, architecture=architecture, name=self.name or Path(self.path).name)


def prepare(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, architecture: Architecture, name: str
) -> LanguageModel:
    """Freeze the weights, set evaluation mode, make sure of a pad token (the end of text, SPEC header).

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
    """`auto` is the best accelerator torch sees, else the CPU; anything else is taken as it is."""
    if device != "auto":
        try:
            return torch.device(device)
        except RuntimeError as error:
            raise ConfigError(f"model.device: {device!r} is not a device ({error})") from error
    accelerator = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else None
    return accelerator or torch.device("cpu")
