"""A Hugging Face causal language model with its tokenizer and the paths of its modules."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import (
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from romexp.errors import ConfigError
from romexp.lm.adapter import adapter_base, is_adapter, merge_adapter
from romexp.lm.added_tokens import special_ids
from romexp.lm.architecture import Architecture, check
from romexp.lm.head import has_plain_head
from romexp.lm.loading import loading, refuse_quantized
from romexp.lm.model_source import find_source
from romexp.lm.precision import MatmulPrecision, check_precision, has_effect, matmul_precision
from romexp.lm.read_pretrained import ModelParts, read_pretrained

_log = logging.getLogger(__name__)

_NOT_THE_MODEL = {"_name_or_path", "architectures", "transformers_version"}
"""Entries of a model's configuration that do not affect what the model computes."""


@dataclass(frozen=True, kw_only=True, eq=False)
class LanguageModel:
    """A model, its tokenizer and its module paths. The model is in evaluation mode and its weights are frozen.

    Attributes:
        architecture: the paths of the model's parts.
        name: short name for folders and tables.
        known_digest: the digest, if it was computed before (`romexp.lm.kept_digest`).
        provenance: what the weights were converted from (`romexp.lm.gguf`), JSON-ready; empty if they were not.
        matmul_precision: how exactly matrix products are computed (`romexp.lm.precision`). Tasks and the functions of
            `import romexp` set it around their work; who calls `model` himself has torch's own setting.
    """

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    architecture: Architecture
    name: str
    known_digest: str | None = None
    provenance: Mapping[str, Any] = field(default_factory=dict)
    matmul_precision: MatmulPrecision = "highest"

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

    @property
    def vocabulary_size(self) -> int:
        """The number of tokens that have an embedding. The tokenizer may know more or fewer."""
        return int(self.module(self.architecture.embedding).weight.shape[0])  # type: ignore[union-attr, arg-type, index]

    @cached_property
    def start_id(self) -> int:
        """The token from which a text without a prompt is sampled: the tokenizer's end-of-text token; without one that
        has an embedding its BOS token, else the BOS token of the model's configuration, else token 0.
        """
        found = (self.tokenizer.eos_token_id, self.tokenizer.bos_token_id, self.model.config.bos_token_id)
        return next((int(id) for id in found if isinstance(id, int) and 0 <= id < self.vocabulary_size), 0)

    def module(self, path: str) -> nn.Module:
        return self.model.get_submodule(path)

    def block(self, layer: int) -> nn.Module:
        return self.module(self.architecture.block_name(layer))

    def parameter(self, name: str) -> nn.Parameter:
        return self.model.get_parameter(name)

    @cached_property
    def special_ids(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """The special tokens that the tokenizer puts before every text and after it. Those after it are left out."""
        return special_ids(self.tokenizer)

    @cached_property
    def plain_head(self) -> bool:
        """True if logits are what the output head gives. Some families scale or cap them afterwards."""
        return has_plain_head(self.model)

    @cached_property
    def digest(self) -> str:
        """SHA-256 (16 hexadecimal digits) over all weights, the model's configuration and the tokenizer.

        It does not depend on the folder that the model was loaded from. It is computed once and stays valid, because
        `romexp.lm.apply_delta.applied` restores the weights bit for bit. For a cache of what the model computes it is
        not enough: see `cache_key`.
        """
        if self.known_digest is not None:
            return self.known_digest
        # Only entries that differ from the defaults: a new version of transformers may add entries with defaults.
        config = {key: value for key, value in self.model.config.to_diff_dict().items() if key not in _NOT_THE_MODEL}
        tokenizer = json.loads(self.tokenizer.backend_tokenizer.to_str())
        for state in ("padding", "truncation"):  # These depend on the latest call of the tokenizer.
            tokenizer.pop(state, None)
        if self.special_ids[1]:  # What was measured while these still counted as text belongs to another model.
            tokenizer["special_tokens_after_texts"] = "left out"
        digest = hashlib.sha256(json.dumps([config, tokenizer], sort_keys=True, default=str).encode())
        for name, tensor in sorted(self.model.state_dict().items()):
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy())
        return digest.hexdigest()[:16]

    @property
    def cache_key(self) -> str:
        """The key of caches of what the model computes: its digest, and the precision where numbers depend on it."""
        return self.digest if self.matmul_precision == "highest" else f"{self.digest} {self.matmul_precision}"

    @cached_property
    def precision_has_effect(self) -> bool:
        """Whether `matmul_precision` changes any number on this machine, with these weights. Never for `highest`."""
        chosen = self.matmul_precision
        return chosen != "highest" and has_effect(chosen, device=self.device, dtype=self.dtype)


@dataclass(frozen=True, kw_only=True)
class PretrainedModel:
    """Where to load a model from, and with which type, device and attention (configuration group `model`).

    Attributes:
        path: hub id, local folder, GGUF file, or `pkg://<package>/<one of the last two>` (`romexp.lm.model_source`).
            The folder of a PEFT adapter stands for its base model with the adapter merged into the weights.
        name: short name used in folders and tables; if empty, the last part of `path`.
        setup: the command that installs the package of a `pkg://` path, for the error message where it is missing.
        revision: branch, tag or commit on the hub.
        dtype: type of the weights. It is always set, because `from_pretrained` would take that of the checkpoint.
        matmul_precision: how exactly matrix products of float32 weights are computed (`romexp.lm.precision`).
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
    matmul_precision: MatmulPrecision = "highest"
    device: str = "auto"
    device_map: Any = None
    attn_implementation: str = "auto"
    architecture: Architecture | None = None
    cache_dir: str | Path | None = None

    def load(self) -> LanguageModel:
        """Load weights and tokenizer.

        Raises:
            ConfigError: `path` holds no complete model, or the dtype, the precision, the device or the architecture is
                unknown.
            DataError: a GGUF file must be converted, and the cache cannot be written.
        """
        dtype = getattr(torch, self.dtype, None)
        if not isinstance(dtype, torch.dtype) or not dtype.is_floating_point:
            raise ConfigError(f"model.dtype: {self.dtype!r} is not a torch float type (float32, bfloat16, float16)")
        check_precision(self.matmul_precision)
        device = resolve_device(self.device) if self.device_map is None else None
        if self.attn_implementation not in ("auto", "sdpa", "eager"):
            raise ConfigError(f"model.attn_implementation: {self.attn_implementation!r} is not auto, sdpa or eager")
        source = find_source(
            self.path, setup=self.setup, dtype=dtype, cache_dir=self.cache_dir, architecture=self.architecture
        )
        model, tokenizer, architecture = self._read(source.path, dtype)
        if device is not None:
            with loading(source.path):
                model.to(device=device)  # type: ignore[call-arg]
        lm = prepare(model, tokenizer, architecture=architecture, name=self.name or source.name)
        lm = replace(lm, provenance=source.provenance)
        return with_precision(lm, self.matmul_precision)

    def _read(self, path: str, dtype: torch.dtype) -> ModelParts:
        if is_adapter(path):
            with loading(path, "adapter_config.json"):
                base, revision = adapter_base(path)
            model, tokenizer, architecture = replace(self, revision=revision)._read(base, dtype)
            return merge_adapter(model, path), tokenizer, architecture
        return read_pretrained(
            path,
            revision=self.revision,
            dtype=dtype,
            device_map=self.device_map,
            attn_implementation=None if self.attn_implementation == "auto" else self.attn_implementation,
            architecture=self.architecture,
        )


def prepare(
    model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, *, architecture: Architecture, name: str
) -> LanguageModel:
    """Freeze the weights and set evaluation mode. A tokenizer without a pad token, or with one that has no embedding,
    gets its end-of-text token as one, or else token 0 (docs/method.md §0). Padding is masked, so any token will do.

    Raises:
        ConfigError: the model is quantized, or does not fit `architecture`, by its paths or by what it computes
            (`romexp.lm.check_architecture`), or the tokenizer cannot give character offsets.
    """
    try:
        refuse_quantized(model.config)
    except ConfigError as error:
        raise ConfigError(f"model {name!r}: {error}") from error
    check(architecture, model)
    if not tokenizer.is_fast:
        raise ConfigError(f"model {name!r}: a fast tokenizer is needed (subject positions come from character offsets)")
    model.eval().requires_grad_(False)
    lm = LanguageModel(model=model, tokenizer=tokenizer, architecture=architecture, name=name)
    end, known = tokenizer.eos_token_id, range(lm.vocabulary_size)
    if tokenizer.pad_token_id not in known:
        tokenizer.pad_token = tokenizer.eos_token if end in known else tokenizer.convert_ids_to_tokens(0)
    if end not in known:
        start = tokenizer.convert_ids_to_tokens(lm.start_id)
        _log.warning("%s: no end-of-text token; texts without a prompt are sampled from %r", name, start)
    from romexp.lm.check_architecture import check_numbers  # It needs the class that is defined here.

    with matmul_precision("highest"):  # It compares sums, which must agree to the last digits.
        check_numbers(lm)
    return lm


def with_precision(lm: LanguageModel, precision: MatmulPrecision) -> LanguageModel:
    """The model with this precision of matrix products. A setting that changes nothing here is kept, with a warning."""
    lm = replace(lm, matmul_precision=precision)
    if precision != "highest" and not lm.precision_has_effect:
        how = f"{lm.name}, {str(lm.dtype).removeprefix('torch.')} on {lm.device}"
        _log.warning("model.matmul_precision=%s has no effect here (%s): products are those of highest", precision, how)
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
