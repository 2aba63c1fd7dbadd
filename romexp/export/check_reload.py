"""Loads an exported folder with transformers and peft alone, and says how likely it finds given targets.

`romexp.export.verify` runs this file as a script in a fresh process, with a JSON object on standard input. It imports
nothing of romexp: what works here works for everybody who has the folder.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import nn


def check(request: Mapping[str, Any]) -> dict[str, Any]:
    """Load a folder and score targets.

    Args:
        request: `folder`; `base` and `revision` of an adapter's base model (`base` is null for a whole model); `dtype`,
            `attention`, `device` and `device_map` of the model; and `texts` (see `target_nlls`).

    Returns:
        `nlls` in nats; `same_tokens`, whether the folder's tokenizer makes the same tokens; and `libraries`.
    """
    import transformers
    from transformers import AutoTokenizer

    transformers.utils.logging.disable_progress_bar()
    base, folder = request["base"], request["folder"]
    tokenizer = AutoTokenizer.from_pretrained(base or folder, revision=request["revision"], trust_remote_code=False)
    try:
        nlls = target_nlls(_load(request, request["device"]), request["texts"])
    except torch.OutOfMemoryError:  # The process that asks holds the model too.
        nlls = target_nlls(_load({**request, "device_map": None}, "cpu"), request["texts"])
    libraries = {"torch": torch.__version__, "transformers": transformers.__version__}
    if base:
        import peft

        libraries["peft"] = peft.__version__
    same = all(list(tokenizer(text["text"])["input_ids"]) == list(text["ids"]) for text in request["texts"])
    return {"nlls": nlls, "same_tokens": same, "libraries": libraries}


def _load(request: Mapping[str, Any], device: str) -> Any:
    from transformers import AutoModelForCausalLM

    model: Any = AutoModelForCausalLM.from_pretrained(
        request["base"] or request["folder"],
        revision=request["revision"],
        dtype=getattr(torch, request["dtype"]),
        attn_implementation=request["attention"],
        device_map=request["device_map"],
        trust_remote_code=False,
    )
    if request["base"]:
        from peft import PeftModel

        model = PeftModel.from_pretrained(model, request["folder"])
    return (model if request["device_map"] else model.to(device)).eval()


@torch.no_grad()
def target_nlls(model: Any, texts: Sequence[Mapping[str, Any]]) -> list[float]:
    """For each text, the mean of -log p over its target's tokens, in nats.

    Args:
        texts: each with its token `ids` and the `start` of its target among them.
    """
    found = []
    with _float32_head(model.get_output_embeddings()):
        for text in texts:
            ids = torch.tensor(text["ids"], device=model.get_input_embeddings().weight.device)
            log_p = model(input_ids=ids[None, :-1]).logits[0].float().log_softmax(dim=-1)
            target = ids[text["start"] :].to(log_p.device)
            found.append(float(-log_p[text["start"] - 1 :].gather(1, target[:, None]).mean()))
    return found


@contextmanager
def _float32_head(head: nn.Linear) -> Iterator[None]:
    """Compute the logits in float32. In bfloat16 those of GPT-2, of about -100, would be rounded to a half."""

    def exact(module: nn.Module, inputs: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        bias = None if head.bias is None else head.bias.float()
        return nn.functional.linear(inputs[0].float(), head.weight.float(), bias)

    if head.weight.dtype == torch.float32:
        yield
        return
    handle = head.register_forward_hook(exact)
    try:
        yield
    finally:
        handle.remove()


if __name__ == "__main__":
    print(json.dumps(check(json.load(sys.stdin))))  # noqa: T201 (the answer to the process that asks)
