"""Runs the authors' code (github.com/kmeng01/rome, commit 0874014) from a checkout; nothing of it is kept here.

A temporary copy of the checkout is imported, in which three things are changed by replacing text:
- the device literal "cuda", which occurs in every function that makes a tensor, becomes the device of the benchmark;
- `rome/layer_stats.py`, which would download or compute C, is emptied. C⁻¹ is given by replacing
  `compute_u.get_inv_cov`, and the context templates are put into their module's cache;
- `dsets/__init__.py`, from which the evaluation and the tracing import loaders, gets placeholders for them.
Editing, scoring and sampling are not changed. With current transformers `generate_fast` writes other texts than in
2022: with a key/value cache it passes only one column of the attention mask, which transformers now takes for the whole
mask (docs/method.md §5.5). Its time is not affected, since it still makes one pass for each token.
"""

from __future__ import annotations

import contextlib
import copy
import io
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from types import ModuleType
from typing import Any
from unittest import mock

import torch
from reference_copy import import_copy
from timing import Stopwatch
from transformers import AutoModelForCausalLM
from workload import Edited, Variant, Workload

from romexp.editors.finetune import FineTune
from romexp.editors.rome.editor import Rome
from romexp.errors import ConfigError
from romexp.facts import Case
from romexp.lm.apply_delta import applied, stored_transposed
from romexp.lm.model import LanguageModel
from romexp.lm.weight_delta import Dense, LowRank, WeightDelta

NEEDED = ("rome/rome_main.py", "util/generate.py", "experiments/py/eval_utils_counterfact.py", "globals.yml")


def authors(folder: Path, work: Workload, *, path: str) -> Variant:
    """The authors' evaluation loop (docs/method.md §5.1) over the records: edit, measure, restore the weights.

    It runs on a separate model, loaded from `path` by transformers alone, so that no change by our package affects it.

    Args:
        folder: a checkout of their repository.

    Raises:
        ConfigError: `folder` is no such checkout.
    """
    code = load(folder, work.lm.device)
    lm = own_model(work.lm, path)
    tokenizer = copy.deepcopy(work.lm.tokenizer)
    if tokenizer.unk_token_id is None:  # their fine-tuning needs one; GPT-2's is the end-of-text token
        tokenizer.unk_token = tokenizer.eos_token
    tokenizer.padding_side = "right"

    def edit(work: Workload, watch: Stopwatch) -> Edited:
        with _quiet():
            return _edit(code, tokenizer, replace(work, lm=lm), watch)

    def generate(work: Workload, deltas: list[WeightDelta], watch: Stopwatch) -> list[list[str]]:
        with _quiet():
            return _generate(code, tokenizer, replace(work, lm=lm), deltas, watch)

    return Variant(name="authors", edit=edit, generate=generate, ours=False)


def own_model(lm: LanguageModel, path: str) -> LanguageModel:
    """The model as transformers loads it from `path`."""
    model: Any = AutoModelForCausalLM.from_pretrained(path, dtype=lm.dtype, trust_remote_code=False)
    if not hasattr(model.config, "n_embd"):  # Their code knows the width by GPT-2's name of it alone.
        model.config.n_embd = model.config.hidden_size
    return replace(lm, model=model.to(lm.device).eval().requires_grad_(False))


def load(folder: Path, device: torch.device) -> dict[str, ModuleType]:
    """Import a changed copy of the checkout. Modules of an earlier copy, for another device, are removed first.

    Returns:
        The modules, by a short name.

    Raises:
        ConfigError: `folder` is no checkout of their repository.
    """
    if missing := [name for name in NEEDED if not (folder / name).is_file()]:
        raise ConfigError(f"--reference: {folder} is no checkout of kmeng01/rome, it lacks {', '.join(missing)}")
    names = {
        "rome": "rome.rome_main",
        "u": "rome.compute_u",
        "metrics": "experiments.py.eval_utils_counterfact",
        "generate": "util.generate",
    }
    if (folder / "baselines/ft/ft_main.py").is_file():
        names["ft"] = "baselines.ft.ft_main"
    if (folder / "experiments/causal_trace.py").is_file():
        names["trace"] = "experiments.causal_trace"
    return import_copy(folder, device, names)


def _edit(code: dict[str, ModuleType], tokenizer: Any, work: Workload, watch: Stopwatch) -> Edited:
    lm, deltas, nlls = work.lm, [], []
    with _method(code, work) as (apply, results):
        for case in work.cases:
            record = _record(case)
            with watch("edit"):
                _, originals = apply(lm.model, tokenizer, [record["requested_rewrite"]], return_orig_weights=True)
            with watch("metrics"):
                scores = code["metrics"].compute_rewrite_quality_counterfact(lm.model, tokenizer, record, None, None)
            with watch("edit"), torch.no_grad():
                for name, original in originals.items():
                    lm.parameter(name)[...] = original
            lm.model.requires_grad_(False)
            deltas.append(_delta(lm, results[-1]))
            pairs = [pair for kind in scores.values() for pair in kind]
            nlls.append([pair[side] for pair in pairs for side in ("target_new", "target_true")])
    return Edited(deltas=deltas, nlls=nlls)


@contextlib.contextmanager
def _method(
    code: dict[str, ModuleType], work: Workload
) -> Iterator[tuple[Callable[..., tuple[Any, dict[str, torch.Tensor]]], list[dict[str, Any]]]]:
    """Yield their function that edits a model, and a list to which it appends every edit's result by parameter."""
    results: list[dict[str, Any]] = []
    rome = isinstance(work.editor, Rome)
    if not rome and "ft" not in code:
        raise ConfigError("--reference: the checkout lacks baselines/ft")
    module, attribute = (code["rome"], "execute_rome") if rome else (code["ft"], "execute_ft")
    execute = getattr(module, attribute)

    def execute_and_record(*args: Any, **kwargs: Any) -> Any:
        results.append(execute(*args, **kwargs))
        return results[-1]

    inverse = _inverse(work)
    with (
        mock.patch.object(module, attribute, execute_and_record),
        mock.patch.object(code["u"], "get_inv_cov", return_value=inverse),
        mock.patch.object(code["rome"], "CONTEXT_TEMPLATES_CACHE", list(work.templates)),
    ):
        if isinstance(work.editor, Rome):
            hyper, edit = code["rome"].ROMEHyperParams(**_rome_settings(work, work.editor)), module.apply_rome_to_model
        else:
            hyper, edit = code["ft"].FTHyperParams(**_ft_settings(work, work.editor)), module.apply_ft_to_model
        yield lambda model, tok, requests, **kwargs: edit(model, tok, requests, hyper, **kwargs), results


def _inverse(work: Workload) -> torch.Tensor | None:
    """C⁻¹, computed in float32 as in their code."""
    return None if work.moment is None else torch.inverse(work.moment.matrix.to(work.lm.device))


def _rome_settings(work: Workload, editor: Rome) -> dict[str, Any]:
    return {
        "layers": [work.layer],
        "fact_token": editor.fact_token,
        "v_num_grad_steps": editor.v_num_grad_steps,
        "v_lr": editor.v_lr,
        "v_loss_layer": work.lm.n_layers - 1,
        "v_weight_decay": editor.v_weight_decay,
        "clamp_norm_factor": editor.clamp_norm_factor,
        "kl_factor": editor.kl_factor,
        "mom2_adjustment": editor.mom2_adjustment,
        "context_template_length_params": [list(pair) for pair in editor.context_template_length_params],
        "mom2_dataset": "",
        "mom2_n_samples": 0,
        "mom2_dtype": "float32",
        **module_paths(work.lm),
    }


def _ft_settings(work: Workload, editor: FineTune) -> dict[str, Any]:
    return {
        "layers": [work.layer],
        "num_steps": editor.num_steps,
        "lr": editor.lr,
        "weight_decay": 0,
        "kl_factor": 0,
        "norm_constraint": False if editor.norm_constraint is None else editor.norm_constraint,
        **module_paths(work.lm),
    }


def module_paths(lm: LanguageModel) -> dict[str, str]:
    """Paths of modules in their settings, with `{}` for the layer."""
    a = lm.architecture
    block = f"{a.layers}.{{}}"
    return {
        "rewrite_module_tmp": f"{block}.{a.mlp_out}",
        "layer_module_tmp": block,
        "mlp_module_tmp": f"{block}.{a.mlp}",
        "attn_module_tmp": f"{block}.{a.attn}",
        "ln_f_module": a.final_norm,
        "lm_head_module": a.embedding,
    }


def _record(case: Case) -> dict[str, Any]:
    """The case as a record of counterfact.json."""
    r = case.request
    return {
        "requested_rewrite": {
            "prompt": r.prompt,
            "subject": r.subject,
            "relation_id": r.relation_id,
            "target_new": {"str": r.target_new, "id": r.target_new_id},
            "target_true": {"str": r.target_true, "id": ""},
        },
        "paraphrase_prompts": list(case.paraphrase_prompts),
        "neighborhood_prompts": list(case.neighborhood_prompts),
        "attribute_prompts": list(case.attribute_prompts),
        "generation_prompts": list(case.generation_prompts),
    }


def _delta(lm: LanguageModel, found: dict[str, Any]) -> WeightDelta:
    """Their result as a delta. ROME returns (u, Λ') by parameter, fine-tuning the change as the parameter is stored."""
    return WeightDelta(
        terms={
            name: LowRank(left=value[0][:, None], right=value[1][:, None])
            if isinstance(value, tuple)
            else Dense(value=value.T if stored_transposed(lm, name) else value)
            for name, value in found.items()
        }
    )


def _generate(
    code: dict[str, ModuleType], tokenizer: Any, work: Workload, deltas: list[WeightDelta], watch: Stopwatch
) -> list[list[str]]:
    texts = []
    for case, delta in zip(work.cases, deltas, strict=True):
        prompts = list(case.generation_prompts)
        with applied(work.lm, delta), watch("generate"):
            texts.append(
                code["generate"].generate_fast(
                    work.lm.model, tokenizer, prompts, top_k=work.sampler.top_k, max_out_len=work.sampler.max_length
                )
            )
    return texts


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Suppress standard output, on which their functions print every step."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield
