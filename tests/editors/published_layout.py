"""Files as the authors' training writes them, from networks of ours, laid out as docs/method.md §4.7 says."""

from __future__ import annotations

from collections import OrderedDict
from pathlib import Path
from typing import Any

import torch
from transformers import PretrainedConfig

from romexp.editors.learned.ke import KeNetwork
from romexp.editors.learned.mend import MendNetwork, transform_key


def mend_state(network: MendNetwork, *, prefix: str = "gtn") -> OrderedDict[str, Any]:
    """`u` is x and `v` is δ; the standard deviations are kept beside the sums of squares."""
    state: OrderedDict[str, Any] = OrderedDict(edit_lrs=network.edit_lrs.detach().clone())
    for shape in dict.fromkeys(network.shapes.values()):
        module = network.transforms[transform_key(shape)]
        start = f"{prefix}.{shape}"
        k = module.count.float().reshape(1)
        for letter, side in (("u", "x"), ("v", "delta")):
            squares = getattr(module, f"{side}_squares")
            state[f"{start}.{letter}_mean"] = getattr(module, f"{side}_mean").clone()
            state[f"{start}.{letter}_std"] = (squares / (k - 1)) ** 0.5
            state[f"{start}.{letter}_s"] = squares.clone()
        state[f"{start}.k"] = k
        for i, layer in enumerate(module.layers):
            for name in ("u", "v", "bias"):
                state[f"{start}.mlp.layers.{i}.{name}"] = getattr(layer, name).detach().clone()
            for name in ("mode_shift", "mode_scale"):
                state[f"{start}.mlp.layers.{i}.{name}.weight"] = getattr(layer, name).detach().clone()
    return state


def ke_state(network: KeNetwork) -> OrderedDict[str, Any]:
    state: OrderedDict[str, Any] = OrderedDict()
    for name, conditioner in zip(network.edited, network.conditioners, strict=True):
        start = f"editor.conditioners.{name.replace('.', '_')}_conditioner.conditioners"
        for place, linear in ((0, conditioner.hidden), (2, conditioner.output)):
            state[f"{start}.{place}.bias"] = linear.bias.detach().clone()
            state[f"{start}.{place}.weight_g"] = linear.scale.detach().clone()
            state[f"{start}.{place}.weight_v"] = linear.direction.detach().clone()
    condition = network.condition
    state["editor.condition.embedding.weight"] = condition.embedding.weight.detach().clone()
    for name, tensor in condition.lstm.named_parameters():
        state[f"editor.condition.lstm._module.{name}"] = tensor.detach().clone()
    for name, tensor in condition.linear.named_parameters():
        state[f"editor.condition.linear._linear_layers.0.{name}"] = tensor.detach().clone()
    return state


def write(path: Path, state: OrderedDict[str, Any], config: PretrainedConfig) -> Path:
    """The archive: the state with the model's configuration in it, beside what the trainer keeps."""
    state = OrderedDict(state)
    state["model_config"] = config
    archive = {
        "model": state,
        "opt": {"state": {}, "param_groups": []},
        "lr_opt": None,
        "val_stats": {"loss/edit_val": 0.1},
        "start_time": "01/02/2022-03:04:05/678",
        "elapsed_time": 12.5,
        "step": 5000,
    }
    torch.save(archive, path)
    return path
