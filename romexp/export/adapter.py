"""Writes edits as a PEFT LoRA adapter: ΔW = left rightᵀ is the adapter with A = leftᵀ, B = right and alpha = r."""

from __future__ import annotations

from pathlib import Path

import torch
from transformers.pytorch_utils import Conv1D

from romexp.errors import ConfigError
from romexp.lm.adapter import import_peft, is_adapter
from romexp.lm.model import LanguageModel
from romexp.lm.tensor_files import write_tensors
from romexp.lm.weight_delta import LowRank, WeightDelta

WEIGHTS = "adapter_model.safetensors"


def refuse_for_adapter(delta: WeightDelta) -> None:
    """Check that a delta can be an adapter.

    Raises:
        ConfigError: a term has all its entries, or changes a bias; or peft is not installed.
    """
    for name, term in delta.terms.items():
        if not isinstance(term, LowRank):
            kind = "bias" if len(term.shape) == 1 else "weight"
            raise ConfigError(
                f"{name}: its edit is a whole {kind}, as fine-tuning makes it, which no LoRA adapter can hold: "
                "export it with format hf (task.format=hf)"
            )
    import_peft()


def base_of(lm: LanguageModel) -> str:
    """What the adapter names as its base model: the hub id or the folder that transformers has loaded.

    Raises:
        ConfigError: the model was loaded from nowhere, or is itself a base model with an adapter.
    """
    path = str(lm.model.config.name_or_path or "")
    if not path:
        raise ConfigError(
            f"{lm.name}: an adapter names the folder or hub id of its base model, and this model has none: "
            "save it first (save_pretrained), or export with format hf"
        )
    if is_adapter(path):
        raise ConfigError(f"{lm.name}: it is itself a base model with the adapter {path}: export with format hf")
    return str(Path(path).resolve()) if Path(path).is_dir() else path


def write_adapter(lm: LanguageModel, delta: WeightDelta, folder: Path, *, revision: str | None) -> None:
    """Write `adapter_config.json` and `adapter_model.safetensors`, of one rank for all modules.

    The factors are stored in float32, whatever type the model has. A module whose edits have a lower rank gets zeros.

    Args:
        lm: the unedited model.
        delta: low-rank terms alone (see `refuse_for_adapter`).
        folder: an empty folder.
        revision: of the base model on the hub.
    """
    peft = import_peft()
    terms = {name.removesuffix(".weight"): term for name, term in delta.terms.items() if isinstance(term, LowRank)}
    rank = max(term.left.shape[1] for term in terms.values())
    tensors: dict[str, torch.Tensor] = {}
    for module, term in terms.items():
        tensors[f"base_model.model.{module}.lora_A.weight"] = _padded(term.left, rank).T
        tensors[f"base_model.model.{module}.lora_B.weight"] = _padded(term.right, rank)
    config = peft.LoraConfig(
        task_type="CAUSAL_LM",
        base_model_name_or_path=base_of(lm),
        revision=revision,
        r=rank,
        lora_alpha=rank,
        target_modules=sorted(terms),
        # Only merging reads it. `Conv1D` stores its weight as (in × out), `Linear` as (out × in).
        fan_in_fan_out=any(isinstance(lm.module(module), Conv1D) for module in terms),
        inference_mode=True,
    )
    config.save_pretrained(str(folder))
    write_tensors(folder / WEIGHTS, tensors, {"format": "pt"})


def _padded(factor: torch.Tensor, rank: int) -> torch.Tensor:
    return torch.nn.functional.pad(factor.detach().float().cpu(), (0, rank - factor.shape[1]))
