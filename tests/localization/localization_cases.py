"""Facts that minifact knows, as cases, and a small study of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from romexp.data.counterfact import CounterFact
from romexp.editors.finetune import FineTune
from romexp.editors.many.memit import Memit
from romexp.editors.rome.editor import Rome
from romexp.minifact import assets


def write_records(path: Path, count: int = 3) -> Path:
    """The first records of minifact, and one whose true answer the model does not say."""
    records: list[dict[str, Any]] = json.loads(assets.counterfact_path().read_text())[:count]
    unknown = json.loads(json.dumps(records[0]))
    unknown["case_id"] = 900
    unknown["requested_rewrite"]["target_true"]["str"] = "nonsense"
    path.write_text(json.dumps([*records, unknown]))
    return path


def cases(path: Path, **selection: Any) -> CounterFact:
    return CounterFact(path=str(path), **selection)


def editors() -> dict[str, Any]:
    """Editors that need no second moments and take few steps."""
    contexts = ["{}", "He said so. {}"]
    return {
        "rome": Rome(
            v_num_grad_steps=6, mom2_adjustment=False, clamp_norm_factor=6.0, context_templates=contexts, layer=2
        ),
        "ft": FineTune(num_steps=6, teacher_forcing=True, lr=1e-3),
    }


def memit() -> Memit:
    return Memit(v_num_grad_steps=3, context_templates=["{}"])
