"""Severed paths: the last subject token is restored, but the outputs of its MLPs or of its attention stay corrupted
(paper Fig. 3, docs/method.md §2.5).
"""

from __future__ import annotations

from dataclasses import replace

import torch

from romexp.lm.hooks import Change, overwrite
from romexp.tracing.base_runs import CleanRun, Kind, corrupted_run, module_path
from romexp.tracing.cells import Cell, Replacement, Resumption, Values, values_of

SEVERED: tuple[Kind, ...] = ("mlp", "attn")


def severed_curves(resume: Resumption, clean: CleanRun, *, change: Change | None) -> dict[str, list[list[float]]]:
    """The metric by kind, prompt and layer, with block l's output restored at the last subject token i.

    The outputs of all modules of the kind at token i are held at their values in the corrupted run.

    Args:
        resume: continues the corrupted run, which must have kept the outputs of MLPs and attention modules.
        change: the corruption of the severed run, if its noise is a second draw. None uses the corrupted run itself;
            then the outputs below layer l already have the values at which they are held.
    """
    lm, corrupted, n = resume.lm, resume.base, resume.base.samples
    last = [p.subject_range[1] - 1 for p in resume.prompts for _ in range(n)]
    token = torch.tensor(last, device=corrupted.inputs.device)
    row = torch.arange(len(token), device=token.device)
    curves: dict[str, list[list[float]]] = {}
    for kind in SEVERED:
        frozen = corrupted.outputs[kind][:, row, token]  # (layers × rows × hidden size)
        severed_run = resume
        if change is not None:
            forced = {module_path(lm, kind, layer): overwrite(token, frozen[layer]) for layer in range(lm.n_layers)}
            again = corrupted_run(lm, resume.prompts, change, metric=resume.metric, samples=n, forced=forced)
            severed_run = replace(resume, base=again)
        by_layer = severed_run([_restored(resume, clean, frozen, kind, layer) for layer in range(lm.n_layers)])
        curves[kind] = [list(scores) for scores in zip(*by_layer, strict=True)]
    return curves


def _restored(resume: Resumption, clean: CleanRun, frozen: torch.Tensor, kind: Kind, layer: int) -> Replacement:
    """For all prompts, block `layer`'s output is restored at the last subject token."""
    n = resume.base.samples

    def corrupted(at: int) -> Values:
        return lambda cells: frozen[at][[cell.prompt * n + sample for cell in cells for sample in range(n)]]

    return Replacement(
        cells=[Cell(prompt=i, token=p.subject_range[1] - 1) for i, p in enumerate(resume.prompts)],
        start=layer + 1,
        restored=values_of(clean, "hidden", layer, samples=n),
        forced={(kind, each): corrupted(each) for each in range(layer + 1, resume.lm.n_layers)},
    )
