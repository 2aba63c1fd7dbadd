"""Optimizes target values by the authors' MEMIT (github.com/kmeng01/memit, commit 80426fd) from a checkout, one fact
after another as they do (see `reference.py`).

Besides the device literals, one thing is changed: a block's output is the tensor itself in current transformers, where
their code takes the first entry of a tuple.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from reference import module_paths, own_model
from reference_copy import import_copy

from romexp.editors.many.base import SpreadEditor
from romexp.editors.many.memit import Memit
from romexp.errors import ConfigError
from romexp.facts import EditRequest
from romexp.lm.model import LanguageModel

VALUES = "memit/compute_z.py"
CHANGED = {VALUES: {"cur_out[0]": "cur_out", ".output[0]": ".output"}}

Values = Callable[[Sequence[EditRequest]], torch.Tensor]


def authors_values(
    folder: Path,
    lm: LanguageModel,
    editor: SpreadEditor,
    *,
    path: str,
    layer: int,
    templates: Sequence[Sequence[str]],
) -> Values:
    """Their `compute_z` on a separate model loaded from `path`.

    Args:
        layer: the last edited layer.
        templates: the contexts, in groups.

    Returns:
        A function from requests to their target values (requests × d), float32.

    Raises:
        ConfigError: `folder` is no checkout of their repository, or the editor is not MEMIT.
    """
    if not isinstance(editor, Memit):
        raise ConfigError("--reference has MEMIT's target values alone: it goes with --method memit")
    if not (folder / VALUES).is_file():
        raise ConfigError(f"--reference: {folder} is no checkout of kmeng01/memit, it lacks {VALUES}")
    names = {"z": "memit.compute_z", "settings": "memit.memit_hparams"}
    code = import_copy(folder, lm.device, names, other=CHANGED)
    model = own_model(lm, path).model
    settings = code["settings"].MEMITHyperParams(**_settings(lm, editor, layer))

    def value(request: EditRequest) -> torch.Tensor:
        asked = {
            "prompt": request.prompt,
            "subject": request.subject,
            "target_new": {"str": f" {request.target_new.strip()}"},
        }
        with contextlib.redirect_stdout(io.StringIO()):
            found = code["z"].compute_z(
                model, lm.tokenizer, asked, settings, layer, [list(group) for group in templates]
            )
        return found.detach().float()

    return lambda requests: torch.stack([value(request) for request in requests])


def _settings(lm: LanguageModel, editor: Memit, layer: int) -> dict[str, Any]:
    return {
        "layers": [layer],
        "layer_selection": "all",
        "fact_token": editor.fact_token,
        "v_num_grad_steps": editor.v_num_grad_steps,
        "v_lr": editor.v_lr,
        "v_loss_layer": lm.n_layers - 1,
        "v_weight_decay": editor.v_weight_decay,
        "clamp_norm_factor": editor.clamp_norm_factor,
        "kl_factor": editor.kl_factor,
        "mom2_adjustment": True,
        "mom2_update_weight": editor.mom2_update_weight,
        "mom2_dataset": "",
        "mom2_n_samples": 0,
        "mom2_dtype": "float32",
        **module_paths(lm),
    }
