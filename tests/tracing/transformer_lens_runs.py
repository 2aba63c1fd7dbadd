"""Patched runs and attribution patching by TransformerLens, in a Python that has it: reads one JSON object, writes one.

It runs as a program of its own, since TransformerLens wants other versions of some packages. It does not use romexp.
"""

from __future__ import annotations

import json
import sys
from typing import Any

import torch
from transformer_lens.model_bridge import TransformerBridge
from transformers import AutoModelForCausalLM, AutoTokenizer

HOOKS = {"hidden": "blocks.{}.hook_out", "mlp": "blocks.{}.hook_mlp_out", "attn": "blocks.{}.hook_attn_out"}


def first(value: Any) -> torch.Tensor:
    return value[0] if isinstance(value, tuple) else value


def add_noise(asked: dict[str, Any]) -> Any:
    """A hook of the embeddings: row r of the batch gets the noise of sample r at the subject."""
    noise = torch.tensor(asked["noise"], dtype=torch.float64)
    begin, end = asked["subject"]

    def hook(value: torch.Tensor, hook: Any) -> torch.Tensor:
        noised = value.clone()
        noised[:, begin:end] = (value[:, begin:end].double() + noise).to(value.dtype)
        return noised

    return hook


def restore(clean: torch.Tensor, token: int) -> Any:
    """A hook that puts the clean value in at one token."""

    def hook(value: Any, hook: Any) -> Any:
        new = first(value).clone()
        new[:, token] = clean[:, token]
        return (new, *value[1:]) if isinstance(value, tuple) else new

    return hook


def keep(kept: dict[str, torch.Tensor], name: str) -> Any:
    """A hook that keeps a value and its gradient."""

    def hook(value: Any, hook: Any) -> None:
        kept[name] = first(value)
        kept[name].retain_grad()

    return hook


def main(asked: dict[str, Any]) -> dict[str, Any]:
    model = AutoModelForCausalLM.from_pretrained(asked["folder"], dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(asked["folder"])
    bridge = TransformerBridge.boot_transformers(asked["folder"], hf_model=model, tokenizer=tokenizer, device="cpu")
    ids = torch.tensor([asked["ids"]] * len(asked["noise"]))
    names = {(kind, layer): HOOKS[kind].format(layer) for kind in HOOKS for layer in range(asked["n_layers"])}
    _, clean = bridge.run_with_cache(ids)
    corrupt = ("embed.hook_out", add_noise(asked))
    logits = []
    for kind, token, layer in asked["cells"]:
        name = names[kind, layer]
        patched = bridge.run_with_hooks(ids, fwd_hooks=[corrupt, (name, restore(first(clean[name]), token))])
        logits.append(patched[:, -1].tolist())
    kept: dict[str, torch.Tensor] = {}
    with torch.enable_grad():
        out = bridge.run_with_hooks(ids, fwd_hooks=[corrupt, *((name, keep(kept, name)) for name in names.values())])
        out[:, -1].softmax(-1)[:, asked["answer"]].sum().backward()
    estimates: dict[str, list[Any]] = {kind: [] for kind in HOOKS}
    for (kind, _), name in names.items():
        effect = (first(clean[name]) - kept[name].detach()) * kept[name].grad
        estimates[kind].append(effect.sum(-1).mean(0).tolist())
    return {"logits": logits, "estimates": estimates}


if __name__ == "__main__":
    json.dump(main(json.load(sys.stdin)), sys.stdout)
