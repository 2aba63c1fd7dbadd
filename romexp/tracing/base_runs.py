"""The two runs that every cell of a trace starts from: clean, and corrupted with nothing restored
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
"""`hidden` (a whole block's output), `mlp` or `attn`."""


@dataclass(frozen=True, kw_only=True, eq=False)
class CleanRun:
    """Outputs in the clean run, by kind: (layers × prompts × tokens × hidden size)."""

    outputs: Mapping[Kind, torch.Tensor]


@dataclass(frozen=True, kw_only=True, eq=False)
class CorruptedRun:
    """The corrupted run of a batch of prompts, samples in rows (row p·n + s is sample s of prompt p).

    Attributes:
        samples: n, corrupted copies of each prompt.
        inputs: input of each block, and last the final block's output: (layers+1 × rows × tokens × hidden size).
        cache: keys and values of all tokens by layer (rows × heads × tokens × head size).
        outputs: MLP and attention outputs by kind (layers × rows × tokens × hidden size), only if asked for.
        scores: probability of each prompt's answer with nothing restored, averaged over samples (prompts).
    """

    samples: int
    inputs: torch.Tensor
    cache: Mapping[int, tuple[torch.Tensor, torch.Tensor]]
    outputs: Mapping[Kind, torch.Tensor]
    scores: torch.Tensor


def module_path(lm: LanguageModel, kind: Kind, layer: int) -> str:
    """The module whose output `kind` names."""
    architecture = lm.architecture
    paths = {"hidden": architecture.block_name, "mlp": architecture.mlp_name, "attn": architecture.attn_name}
    return paths[kind](layer)


@torch.no_grad()
def clean_run(lm: LanguageModel, prompts: Sequence[TracedPrompt], kinds: Sequence[Kind]) -> CleanRun:
    """Run the prompts as they are and keep every output of the kinds asked for."""
    inputs = make_inputs(lm, [Row.text(p.ids) for p in prompts])
    paths = {kind: [module_path(lm, kind, layer) for layer in range(lm.n_layers)] for kind in kinds}
    with capture(lm, [path for each in paths.values() for path in each]) as outputs:
        run_blocks(lm, inputs)
    return CleanRun(outputs={kind: torch.stack([outputs[path] for path in each]) for kind, each in paths.items()})


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
    """Run n corrupted copies of each prompt and keep what later runs resume from.

    Args:
        changes: what happens to the embeddings (rows × tokens × hidden size); see `corrupt`.
        forced: further outputs to overwrite by module path (severed paths).
    """
    rows = [Row.text(p.ids) for p in prompts for _ in range(samples)]
    block_inputs = make_inputs(lm, rows)
    recorder = KeysAndValues(record=True)
    blocks = [module_path(lm, "hidden", layer) for layer in range(lm.n_layers)]
    parts = {kind: [module_path(lm, kind, layer) for layer in range(lm.n_layers)] for kind in kinds}
    wanted = [path for each in parts.values() for path in each]
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
        outputs={kind: torch.stack([outputs[path] for path in each]) for kind, each in parts.items()},
        scores=answer_scores(lm, final[torch.arange(len(rows)), last], prompts, samples=samples),
    )


def answer_scores(
    lm: LanguageModel, states: torch.Tensor, prompts: Sequence[TracedPrompt], *, samples: int
) -> torch.Tensor:
    """Mean over samples of p(answer) where each prompt is read (prompts).

    Args:
        states: normed final states of the last tokens (prompts·samples × hidden size), prompt-major.
    """
    answers = torch.tensor([p.answer for p in prompts], device=states.device).repeat_interleave(samples)
    probabilities = []
    for some, wanted in zip(states.split(LOGIT_CHUNK), answers.split(LOGIT_CHUNK), strict=True):
        scores = logits(lm, some)
        probabilities.append((scores.gather(1, wanted[:, None])[:, 0] - scores.logsumexp(dim=-1)).exp())
    return torch.cat(probabilities).reshape(len(prompts), samples).mean(dim=1)


def corrupt(
    prompts: Sequence[TracedPrompt], noises: Sequence[torch.Tensor], *, samples: int, extra_token: int, replace: bool
) -> Change:
    """The change of the embeddings: noise on tokens [b, e + extra_token) of each sample.

    Args:
        noises: one a prompt (samples × corrupted tokens × hidden size).
        replace: put the noise in the embedding's place instead of adding it.
    """

    def change(embeddings: torch.Tensor) -> torch.Tensor:
        changed = embeddings.clone()
        for i, (prompt, noise) in enumerate(zip(prompts, noises, strict=True)):
            rows = slice(i * samples, (i + 1) * samples)
            begin, end = corrupted_range(prompt, extra_token)
            # Added in float64 and then cast, as the authors' in-place addition does.
            old = changed[rows, begin:end]
            new = noise.to(old.device) if replace else old.double() + noise.to(old.device)
            changed[rows, begin:end] = new.to(old.dtype)
        return changed

    return change


def corrupted_range(prompt: TracedPrompt, extra_token: int) -> tuple[int, int]:
    """Tokens [b, e) that get noise: the subject and `extra_token` tokens after it, within the prompt."""
    begin, end = prompt.subject_range
    return begin, min(end + extra_token, len(prompt.ids))
