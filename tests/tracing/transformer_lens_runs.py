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


def main(asked: dict[str, Any]) -> dict[str, Any]:
    model = AutoModelForCausalLM.from_pretrained(asked["folder"], dtype=torch.float32).eval()
    tokenizer = AutoTokenizer.from_pretrained(asked["folder"])
    bridge = TransformerBridge.boot_transformers(asked["folder"], hf_model=model, tokenizer=tokenizer, device="cpu")
    noise = torch.tensor(asked["noise"], dtype=torch.float64)
    ids = torch.tensor([asked["ids"]] * len(noise))
    begin, end = asked["subject"]
    names = {(kind, layer): HOOKS[kind].format(layer) for kind in HOOKS for layer in range(asked["n_layers"])}

    def add_noise(value: torch.Tensor, hook: Any) -> torch.Tensor:
        noised = value.clone()
        noised[:, begin:end] = (value[:, begin:end].double() + noise).to(value.dtype)
        return noised

    _, clean = bridge.run_with_cache(ids)
    corrupt = ("embed.hook_out", add_noise)
    logits = []
    for kind, token, layer in asked["cells"]:

        def restore(value: Any, hook: Any, name: str = names[kind, layer], token: int = token) -> Any:
            new = first(value).clone()
            new[:, token] = first(clean[name])[:, token]
            return (new, *value[1:]) if isinstance(value, tuple) else new

        patched = bridge.run_with_hooks(ids, fwd_hooks=[corrupt, (names[kind, layer], restore)])
        logits.append(patched[:, -1].tolist())

    kept: dict[tuple[str, int], torch.Tensor] = {}

    def keep(place: tuple[str, int]) -> Any:
        def hook(value: Any, hook: Any) -> None:
            kept[place] = first(value)
            kept[place].retain_grad()

        return hook

    with torch.enable_grad():
        hooks = [corrupt, *((name, keep(place)) for place, name in names.items())]
        out = bridge.run_with_hooks(ids, fwd_hooks=hooks)
        out[:, -1].softmax(-1)[:, asked["answer"]].sum().backward()
    estimates = {
        kind: [
            ((first(clean[names[kind, layer]]) - kept[kind, layer].detach()) * kept[kind, layer].grad)
            .sum(-1)
            .mean(0)
            .tolist()
            for layer in range(asked["n_layers"])
        ]
        for kind in HOOKS
    }
    return {"logits": logits, "estimates": estimates}


if __name__ == "__main__":
    json.dump(main(json.load(sys.stdin)), sys.stdout)
