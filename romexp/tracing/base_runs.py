"""The two runs that all cells of a trace need: the clean run, and the corrupted run with no state restored
(docs/method.md §2.1). The cells of one are filled with states of the other.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from romexp.lm.forward import KeysAndValues, Row, make_inputs, run_blocks
from romexp.lm.hooks import Change, capture, patch
from romexp.lm.model import LanguageModel
from romexp.tracing.metrics import Metric
from romexp.tracing.prompt import TracedPrompt

Kind = Literal["hidden", "mlp", "attn"]
"""Which output is restored: that of a whole block (`hidden`), of its MLP (`mlp`) or of its attention (`attn`)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class CleanRun:
    """The clean run of a batch of prompts.

    Attributes:
        outputs: by kind (layers × prompts × tokens × hidden size).
        last: states of the last tokens after the final norm (prompts × hidden size).
    """

    outputs: Mapping[Kind, torch.Tensor]
    last: torch.Tensor


@dataclass(frozen=True, kw_only=True, eq=False)
class Copies:
    """A run of n copies of each prompt, from which cells can continue. Row p·n + s is sample s of prompt p.

    Attributes:
        samples: n.
        inputs: the input of each block, and after them the last block's output (layers+1 × rows × tokens × hidden
            size).
        cache: keys and values of all tokens, by layer (rows × heads × tokens × head size).
        outputs: outputs of the requested kinds (layers × rows × tokens × hidden size).
        scores: the metric of each prompt, averaged over its samples (prompts).
    """

    samples: int
    inputs: torch.Tensor
    cache: Mapping[int, tuple[torch.Tensor, torch.Tensor]]
    outputs: Mapping[Kind, torch.Tensor]
    scores: torch.Tensor


def module_path(lm: LanguageModel, kind: Kind, layer: int) -> str:
    """The path of the module whose output `kind` names."""
    architecture = lm.architecture
    paths = {"hidden": architecture.block_name, "mlp": architecture.mlp_name, "attn": architecture.attn_name}
    return paths[kind](layer)


@torch.no_grad()
def clean_run(lm: LanguageModel, prompts: Sequence[TracedPrompt], kinds: Sequence[Kind]) -> CleanRun:
    """Run the unchanged prompts and keep the outputs of the requested kinds in all layers."""
    rows = [Row.text(p.ids) for p in prompts]
    paths = {kind: [module_path(lm, kind, layer) for layer in range(lm.n_layers)] for kind in kinds}
    with capture(lm, [path for kind_paths in paths.values() for path in kind_paths]) as outputs:
        final = run_blocks(lm, make_inputs(lm, rows))
    return CleanRun(
        outputs={kind: torch.stack([outputs[path] for path in kind_paths]) for kind, kind_paths in paths.items()},
        last=final[torch.arange(len(rows)), [len(row) - 1 for row in rows]],
    )


@torch.no_grad()
def corrupted_run(
    lm: LanguageModel,
    prompts: Sequence[TracedPrompt],
    changes: Change,
    *,
    metric: Metric,
    samples: int,
    kinds: Sequence[Kind] = (),
    forced: Mapping[str, Change] | None = None,
) -> Copies:
    """Run n corrupted copies of each prompt and keep the states from which the cells continue.

    Args:
        changes: the corruption of the embeddings (rows × tokens × hidden size); see `romexp.tracing.corruption`. The
            one that changes nothing gives copies of the clean run.
        samples: n.
        kinds: kinds whose outputs are kept.
        forced: changes of further outputs, by module path (severed paths, docs/method.md §2.5).
    """
    rows = [Row.text(p.ids) for p in prompts for _ in range(samples)]
    block_inputs = make_inputs(lm, rows)
    recorder = KeysAndValues(record=True)
    blocks = [module_path(lm, "hidden", layer) for layer in range(lm.n_layers)]
    parts = {kind: [module_path(lm, kind, layer) for layer in range(lm.n_layers)] for kind in kinds}
    wanted = [path for kind_paths in parts.values() for path in kind_paths]
    with (
        patch(lm, {lm.architecture.embedding: changes, **(forced or {})}),
        capture(lm, blocks[:1], at="input") as first,
        capture(lm, [*blocks, *wanted]) as outputs,
    ):
        final = run_blocks(lm, block_inputs, cache=recorder)
    last = final[torch.arange(len(rows)), [len(row) - 1 for row in rows]]
    inputs = torch.stack([first[blocks[0]], *(outputs[path] for path in blocks)])
    return Copies(
        samples=samples,
        inputs=inputs,
        cache=recorder.stored,
        outputs={kind: torch.stack([outputs[path] for path in kind_paths]) for kind, kind_paths in parts.items()},
        scores=metric.mean(lm, last, range(len(prompts)), samples=samples),
    )
