"""Reads a model, its tokenizer and its architecture by transformers. Each failure is one error that says what to do."""

from __future__ import annotations

from contextlib import nullcontext
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    PretrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from romexp.errors import ConfigError
from romexp.hub import hub_access
from romexp.lm.architecture import Architecture, architecture_for
from romexp.lm.loading import loading, prepare_config, refuse_quantized_tensors, refuse_unpacking
from romexp.lm.weight_bars import without_weight_bars

ModelParts = tuple[PreTrainedModel, PreTrainedTokenizerBase, Architecture]


def read_pretrained(
    path: str,
    *,
    revision: str | None,
    dtype: torch.dtype,
    device_map: Any,
    attn_implementation: str | None,
    architecture: Architecture | None,
) -> ModelParts:
    """Read a folder or a model of the hub.

    Args:
        path: the folder, or the id on the hub.
        revision, dtype, device_map, attn_implementation: as for `from_pretrained`.
        architecture: module paths; None finds them by the model's family.

    Raises:
        ConfigError: `path` holds no complete model, or its family is unknown.
    """
    with loading(path), nullcontext() if Path(path).exists() else hub_access():
        # False at all three places: without it transformers asks on the terminal whether to run a model's own code.
        with loading(path, "config.json"):
            config = AutoConfig.from_pretrained(path, revision=revision, trust_remote_code=False)
            prepare_config(config)
            found = architecture or architecture_for(config.model_type)
        with loading(path, "weights"):
            refuse_unpacking(path)
            model = _weights(
                path, config, revision=revision, dtype=dtype, device_map=device_map, attention=attn_implementation
            )
        with loading(path, "tokenizer"):
            tokenizer = AutoTokenizer.from_pretrained(path, revision=revision, trust_remote_code=False)
            # transformers would continue with an empty tokenizer.
            if len(tokenizer) <= len(tokenizer.all_special_tokens):
                raise ConfigError("it has no tokenizer files")
    return model, tokenizer, found


def _weights(
    path: str,
    config: PretrainedConfig,
    *,
    revision: str | None,
    dtype: torch.dtype,
    device_map: Any,
    attention: str | None,
) -> PreTrainedModel:
    with without_weight_bars():
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            path,
            config=config,
            revision=revision,
            dtype=dtype,
            device_map=device_map,
            attn_implementation=attention,
            output_loading_info=True,
            trust_remote_code=False,
        )
    model: PreTrainedModel = loaded[0]
    refuse_quantized_tensors(loaded[1]["unexpected_keys"])
    # transformers would continue with random weights.
    if missing := sorted(loaded[1]["missing_keys"]):
        raise ConfigError(f"its weights lack {len(missing)} tensors, such as {missing[0]}")
    return model
