"""The two runs that all cells of a trace need: the clean run, and the corrupted run with no state restored
(docs/method.md §2.1).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import torch

from romexp.lm.forward import KeysAndValues, Row, logits, make_inputs, run_blocks
from romexp.lm.hooks import Change, capture, patch
from romexp.lm.model import LanguageModel
from romexp.lm.scoring import LOGIT_CHUNK
from romexp.tracing.prompt import TracedPrompt

Kind = Literal["hidden", "mlp", "attn"]
"""Which output is restored: that of a whole block (`hidden`), of its MLP (`mlp`) or of its attention (`attn`)."""


@dataclass(frozen=True, kw_only=True, eq=False)
class CleanRun:
    """The clean run of a batch of prompts.

    Attributes:
        outputs: by kind (layers × prompts × tokens × hidden size).
    """

    outputs: Mapping[Kind, torch.Tensor]


@dataclass(frozen=True, kw_only=True, eq=False)
class CorruptedRun:
    """The corrupted run of a batch of prompts. Row p·n + s is sample s of prompt p.

    Attributes:
        samples: n, the number of corrupted copies of each prompt.
        inputs: the input of each block, and after them the last block's output (layers+1 × rows × tokens × hidden
            size).
        cache: keys and values of all tokens, by layer (rows × heads × tokens × head size).
        outputs: outputs of the requested kinds (layers × rows × tokens × hidden size).
        scores: probability of each prompt's answer, averaged over its samples (prompts).
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
    inputs = make_inputs(lm, [Row.text(p.ids) for p in prompts])
    paths = {kind: [module_path(lm, kind, layer) for layer in range(lm.n_layers)] for kind in kinds}
    with capture(lm, [path for kind_paths in paths.values() for path in kind_paths]) as outputs:
        run_blocks(lm, inputs)
    return CleanRun(
        outputs={kind: torch.stack([outputs[path] for path in kind_paths]) for kind, kind_paths in paths.items()}
    )


@torch.no_grad()
def corrupted_run(
    lm: LanguageModel,
    prompts: Sequence[TracedPrompt],
    changes: Change,
    *,
    samples: int,
    kinds: Sequence[Kind] = (),
    forced: Mapping[str, Change] | None = None,
) -> CorruptedRun:
    """Run n corrupted copies of each prompt and keep the states from which the cells continue.

    Args:
        changes: the corruption of the embeddings (rows × tokens × hidden size); see `corrupt`.
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
    last = [len(row) - 1 for row in rows]
    inputs = torch.stack([first[blocks[0]], *(outputs[path] for path in blocks)])
    return CorruptedRun(
        samples=samples,
        inputs=inputs,
        cache=recorder.stored,
        outputs={kind: torch.stack([outputs[path] for path in kind_paths]) for kind, kind_paths in parts.items()},
        scores=answer_scores(lm, final[torch.arange(len(rows)), last], prompts, samples=samples),
    )


def answer_scores(
    lm: LanguageModel, states: torch.Tensor, prompts: Sequence[TracedPrompt], *, samples: int
) -> torch.Tensor:
    """p(answer) at the last token of each prompt, averaged over its samples (prompts).

    Args:
        states: states of the last tokens after the final norm (prompts·samples × hidden size); the samples of a prompt
            are adjacent rows.
    """
    answers = torch.tensor([p.answer for p in prompts], device=states.device).repeat_interleave(samples)
    probabilities = []
    for states_chunk, wanted in zip(states.split(LOGIT_CHUNK), answers.split(LOGIT_CHUNK), strict=True):
        scores = logits(lm, states_chunk)
        probabilities.append((scores.gather(1, wanted[:, None])[:, 0] - scores.logsumexp(dim=-1)).exp())
    return torch.cat(probabilities).reshape(len(prompts), samples).mean(dim=1)


def corrupt(
    prompts: Sequence[TracedPrompt], noises: Sequence[torch.Tensor], *, samples: int, extra_token: int, replace: bool
) -> Change:
    """A change of the embeddings that puts noise on the tokens [b, e + extra_token) of each sample.

    Args:
        noises: one per prompt (samples × corrupted tokens × hidden size).
        replace: the noise replaces the embedding instead of being added to it.
    """

    def change(embeddings: torch.Tensor) -> torch.Tensor:
        changed = embeddings.clone()
        for i, (prompt, noise) in enumerate(zip(prompts, noises, strict=True)):
            rows = slice(i * samples, (i + 1) * samples)
            begin, end = corrupted_range(prompt, extra_token)
            # The sum is made in float64 and then rounded, as in the authors' code.
            old = changed[rows, begin:end]
            new = noise.to(old.device) if replace else old.double() + noise.to(old.device)
            changed[rows, begin:end] = new.to(old.dtype)
        return changed

    return change


def corrupted_range(prompt: TracedPrompt, extra_token: int) -> tuple[int, int]:
    """The tokens [b, e) that get noise: the subject and up to `extra_token` tokens after it, within the prompt."""
    begin, end = prompt.subject_range
    return begin, min(end + extra_token, len(prompt.ids))
