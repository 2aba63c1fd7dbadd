"""Reads the authors' checkpoints of MEND and KE and renames their tensors (docs/method.md §4.7)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from romexp.editors.learned.base import default_parameters
from romexp.errors import ConfigError, DataError
from romexp.lm.apply_delta import weight_in_out
from romexp.lm.model import LanguageModel
from romexp.unpacked import check_zip

Tensors = dict[str, torch.Tensor]

_MEND_KEY = re.compile(r"(?:gtn|mend)\.\((\d+), (\d+)\)\.(.+)")
_KE_KEY = re.compile(r"editor\.conditioners\.(.+)_conditioner\.conditioners\.([02])\.(weight_g|weight_v|bias)")
_KE_CONDITION = "editor.condition."
_KE_NAMES = {"weight_g": "scale", "weight_v": "direction", "bias": "bias"}
_STATISTICS = {"u_mean": "x_mean", "v_mean": "delta_mean", "u_s": "x_squares", "v_s": "delta_squares", "k": "count"}
_DERIVED = {"u_std", "v_std"}  # They are computed again from the sums of squares and the count.


class _Ignored:
    """Replaces the model's configuration, which the authors pickled with the weights and which is not needed."""


_STAND_INS = [
    (_Ignored, f"transformers.models.{module}.configuration_{module}.{name}")
    for module, name in (("gpt2", "GPT2Config"), ("gptj", "GPTJConfig"))
]


def read_published(path: Path, lm: LanguageModel) -> tuple[dict[str, Any], Tensors]:
    """Read a checkpoint of the authors.

    Returns:
        The configuration of the network (`EditNetwork.config`), and its tensors under the names used here.

    Raises:
        DataError: the file is damaged, has another layout, or was made for a model of other widths.
    """
    state = _state(path)
    try:
        if any(_KE_KEY.fullmatch(key) for key in state):
            return _ke(state, lm)
        if any(_MEND_KEY.fullmatch(key) for key in state):
            return _mend(state, lm)
    except (KeyError, IndexError) as error:
        raise DataError(f"{path}: lacks the tensor {error}") from error
    except (DataError, ConfigError) as error:
        raise DataError(f"{path}: {error}") from error
    raise DataError(f"{path}: neither a MEND nor a KE checkpoint of the authors (it has {', '.join(list(state)[:3])})")


def _state(path: Path) -> Tensors:
    """The tensors of the entry `model` of the file."""
    check_zip(path)
    try:
        with torch.serialization.safe_globals(_STAND_INS):  # type: ignore[arg-type]
            content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # On a file of another kind torch raises many types of errors: KeyError, struct.error, …
        reason = " ".join(f"{type(error).__name__}: {error}".split())[:200]
        raise DataError(f"{path}: torch cannot read it as plain weights ({reason})") from error
    model = content.get("model", content) if isinstance(content, Mapping) else None
    if not isinstance(model, Mapping):
        raise DataError(f"{path}: expected a dictionary with `model`, found {type(content).__name__}")
    return {key: value for key, value in model.items() if isinstance(value, torch.Tensor)}


def _mend(state: Tensors, lm: LanguageModel) -> tuple[dict[str, Any], Tensors]:
    matched = {key: match for key in state if (match := _MEND_KEY.fullmatch(key))}
    parameters = default_parameters(lm, len(state["edit_lrs"]) // 2)
    shapes = {name: tuple(weight_in_out(lm, name).shape) for name in parameters}
    stored = {(int(match[1]), int(match[2])) for match in matched.values()}
    if stored != set(shapes.values()) or len(parameters) != len(state["edit_lrs"]):
        expected = ", ".join(f"{len(parameters)} of {shape}" for shape in sorted(set(shapes.values())))
        found = ", ".join(map(str, sorted(stored)))
        raise DataError(f"made for {len(state['edit_lrs'])} matrices of {found} (in × out); {lm.name!r}: {expected}")
    tensors: Tensors = {"edit_lrs": state["edit_lrs"].float()}
    for key, match in matched.items():
        if match[3] in _DERIVED:
            continue
        name = f"transforms.{match[1]}x{match[2]}.{_mend_name(match[3])}"
        tensors[name] = state[key].reshape(()).long() if match[3] == "k" else state[key].float()
    first = next(iter(matched.values()))
    prefix = first.string.removesuffix(first[3])
    layers = {int(n) for key in matched if (n := _layer_number(key)) is not None}
    sizes = {"rank": state[f"{prefix}mlp.layers.0.u"].shape[1], "n_hidden": max(layers) - min(layers)}
    return _config("mend", shapes, sizes), tensors


def _mend_name(rest: str) -> str:
    if rest in _STATISTICS:
        return _STATISTICS[rest]
    return (
        rest.removeprefix("mlp.").replace("mode_shift.weight", "mode_shift").replace("mode_scale.weight", "mode_scale")
    )


def _layer_number(key: str) -> str | None:
    match = re.search(r"\.mlp\.layers\.(\d+)\.", key)
    return match[1] if match else None


def _ke(state: Tensors, lm: LanguageModel) -> tuple[dict[str, Any], Tensors]:
    by_flat_name = {name.replace(".", "_"): name for name, _ in lm.model.named_parameters()}
    matched = {key: match for key in state if (match := _KE_KEY.fullmatch(key))}
    flat_names = list(dict.fromkeys(match[1] for match in matched.values()))
    if unknown := [name for name in flat_names if name not in by_flat_name]:
        raise DataError(f"made for a model with {unknown[0]}, which {lm.name!r} lacks")
    shapes = {by_flat_name[name]: tuple(weight_in_out(lm, by_flat_name[name]).shape) for name in flat_names}
    tensors: Tensors = {}
    for key, match in matched.items():
        layer = {"0": "hidden", "2": "output"}[match[2]]
        tensors[f"conditioners.{flat_names.index(match[1])}.{layer}.{_KE_NAMES[match[3]]}"] = state[key].float()
    for name, shape in shapes.items():
        width = state[f"editor.conditioners.{name.replace('.', '_')}_conditioner.conditioners.2.bias"].shape[0]
        if width != 2 * sum(shape) + 1:
            raise DataError(f"{name}: made for in + out = {(width - 1) // 2}, but in {lm.name!r} it is {shape}")
    for key, tensor in state.items():
        if key.startswith(_KE_CONDITION):
            name = key.removeprefix("editor.").replace("lstm._module.", "lstm.").replace("_linear_layers.0.", "")
            tensors[name] = tensor.float()
    embedding, linear = tensors["condition.embedding.weight"], tensors["condition.linear.weight"]
    sizes = {
        "vocabulary": embedding.shape[0],
        "embedding_size": embedding.shape[1],
        "hidden_size": linear.shape[1] // 2,
        "condition_size": linear.shape[0],
    }
    return _config("ke", shapes, sizes), tensors


def _config(kind: str, shapes: Mapping[str, tuple[int, ...]], sizes: Mapping[str, Any]) -> dict[str, Any]:
    return {"kind": kind, "parameters": {n: list(shape) for n, shape in shapes.items()}, "sizes": dict(sizes)}
