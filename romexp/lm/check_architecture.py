"""Checks by numbers, on one short text, that a model computes what all code here takes for granted.

All paths of an architecture can exist and still mean something else: a family may scale its logits after the head, or
normalize what the MLP puts out before it is added. Such a model would give wrong numbers without a word. So it is
refused when it is loaded.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass

import torch

from romexp.errors import ConfigError
from romexp.lm.forward import KeysAndValues, Row, context_length, logits, make_inputs, run_blocks, suffix_inputs
from romexp.lm.hooks import capture
from romexp.lm.model import LanguageModel
from romexp.lm.tokens import bare_ids

TEXT = "The Space Needle is in the city of Seattle, and the Eiffel Tower is in Paris."
LENGTH = 12
"""How many tokens of the text are used."""
TOLERANCE = {torch.float64: 1e-3, torch.float32: 1e-3, torch.float16: 0.1, torch.bfloat16: 0.4}
"""The largest difference between two passes, as a share of the usual distance between tokens. Kernels that sum in
another order differ by 1e-5 in float32, by 0.02 in float16 and by 0.1 in bfloat16, also in a model of 30 blocks."""
ALIBI = "ALiBi positions and flash attention, for example, do not take such positions and masks"
SLACK = 4
"""The largest difference between a sum and its terms, in units in the last place of the terms."""


@dataclass(frozen=True, kw_only=True, eq=False)
class _OwnPass:
    """What the model's own forward pass gives for the text. All tensors are (tokens × features).

    Attributes:
        logits: of all tokens.
        final: states after the final norm.
        entering: the input of each checked block, by layer; by the number of blocks, the output of the last one.
        outputs: outputs of the checked modules, by path.
    """

    logits: torch.Tensor
    final: torch.Tensor
    entering: dict[int, torch.Tensor]
    outputs: dict[str, torch.Tensor]


@dataclass(frozen=True, kw_only=True)
class Finding:
    """What one check measured.

    Attributes:
        name: what was compared, in a few words.
        measured: how far the two are from each other, in `unit`.
        limit: the most that is allowed.
        reason: what is wrong if it is more.
        unit: of both numbers; a share unless it is named.
    """

    name: str
    measured: float
    limit: float
    reason: str
    unit: str = ""

    @property
    def passed(self) -> bool:
        """False also for a number that is not finite."""
        return self.measured <= self.limit


def check_numbers(lm: LanguageModel) -> None:
    """Check by `findings` that a model computes what all code here takes for granted.

    Raises:
        ConfigError: one check fails. The message says which one, and what it means.
    """
    for finding in findings(lm):
        if finding.measured > finding.limit:
            raise refused(lm, finding.reason)


@torch.no_grad()
def findings(lm: LanguageModel) -> Iterator[Finding]:
    """Measure on one short text whether these three hold. Of the blocks, only the first, middle and last are looked at.

    - Running the blocks and the head as `romexp.lm.forward` does gives the logits of the model's own forward pass.
    - A block's output is its input plus the outputs of its attention and its MLP, and the MLP's output is that of its
      second matrix.
    - Continuing in the middle, over cached keys and values, gives the states of the model's own forward pass.

    Raises:
        ConfigError: the model raises an error, or gives tensors of another shape. The message says where.
    """
    middle = max(1, lm.n_layers // 2)
    layers = sorted({0, min(middle, lm.n_layers - 1), lm.n_layers - 1})
    with named_step(lm, "its own forward pass"):
        ids = _token_ids(lm)
        own = _run_own(lm, ids, layers, resumed=(middle, middle + 1))
    with named_step(lm, "running its blocks with explicit positions and masks", hint=f"; {ALIBI}"):
        yield from _logits(lm, ids, own)
    for layer in layers:
        yield from _sums(lm, layer, own)
    with named_step(lm, f"continuing at block {middle}"):
        yield from _resumed(lm, ids, own, start=middle)


def refused(lm: LanguageModel, reason: str) -> ConfigError:
    """The error for a model that cannot be used."""
    return ConfigError(f"model {lm.name!r} (model_type {lm.model.config.model_type!r}) cannot be used: {reason}")


@contextmanager
def named_step(lm: LanguageModel, doing: str, *, hint: str = "") -> Iterator[None]:
    """Turn whatever a model raises into one line that says what was tried."""
    try:
        yield
    except (ConfigError, torch.OutOfMemoryError):
        raise
    except Exception as error:
        lines = str(error).splitlines() or [""]
        raise refused(lm, f"{doing} ends with {type(error).__name__} ({lines[0]}){hint}") from error


def _token_ids(lm: LanguageModel) -> list[int]:
    """Different tokens, so that a mistake in their positions shows: those of the text, then any others."""
    known = range(lm.module(lm.architecture.embedding).weight.shape[0])  # type: ignore[union-attr, arg-type, index]
    text = bare_ids(lm.tokenizer, TEXT)
    different = dict.fromkeys([*(token for token in text if token in known), *known[: LENGTH + 1]])
    return list(different)[: min(LENGTH, context_length(lm))]


def _run_own(lm: LanguageModel, ids: Sequence[int], layers: Sequence[int], *, resumed: Sequence[int]) -> _OwnPass:
    """Run the model as it is. `resumed` are the layers whose inputs are kept too."""
    row = lm.architecture
    parts = [row.block_name, row.attn_name, row.mlp_name, row.mlp_out_name]
    paths = [row.final_norm, row.block_name(lm.n_layers - 1), *(part(layer) for part in parts for layer in layers)]
    entered = sorted({layer for layer in (*layers, *resumed) if layer < lm.n_layers})
    with (
        capture(lm, list(dict.fromkeys(paths))) as outputs,
        capture(lm, [row.block_name(layer) for layer in entered], at="input") as inputs,
    ):
        scores = lm.model(input_ids=torch.tensor([list(ids)], device=lm.device), use_cache=False).logits
    for path, tensor in outputs.tensors.items():
        if tensor.shape != (1, len(ids), lm.hidden_size):
            raise refused(
                lm,
                f"{path} gives a tensor of the shape {tuple(tensor.shape)} for a text of {len(ids)} tokens; it must be "
                f"(texts, tokens, hidden size), here (1, {len(ids)}, {lm.hidden_size}), to edit or trace single tokens",
            )
    entering = {layer: inputs[row.block_name(layer)][0] for layer in entered}
    return _OwnPass(
        logits=scores[0],
        final=outputs[row.final_norm][0],
        entering={**entering, lm.n_layers: outputs[row.block_name(lm.n_layers - 1)][0]},
        outputs={path: tensor[0] for path, tensor in outputs.tensors.items()},
    )


def _logits(lm: LanguageModel, ids: Sequence[int], own: _OwnPass) -> Iterator[Finding]:
    """The logits of the text's states, then those of the text as an alternative in a packed row and in a padded one."""
    off = _difference(logits(lm, own.final[None])[0], own.logits)
    yield Finding(
        name="logits of its final states",
        measured=off,
        limit=tolerance(lm) / 10,
        reason=f"of its final states, the output head makes other logits than its own forward pass (they differ by "
        f"{off:.2g} of the distance between tokens), so every probability would be wrong",
    )
    cut, n = len(ids) // 2, len(ids) - len(ids) // 2
    packed = Row(
        ids=(*ids[:cut], *reversed(ids[cut:]), *ids[cut:]),
        positions=(*range(cut), *range(cut, len(ids)), *range(cut, len(ids))),
        segments=(*[0] * cut, *[1] * n, *[2] * n),
    )
    final = run_blocks(lm, make_inputs(lm, [packed, Row.text(ids[:cut])]))
    columns = [*range(cut), *range(cut + n, cut + 2 * n)]
    for name, ours, theirs in (
        ("logits of a packed row", final[0, columns], own.logits),
        ("logits of a padded row", final[1, :cut], own.logits[:cut]),
    ):
        off = _difference(logits(lm, ours[None])[0], theirs)
        yield Finding(
            name=name,
            measured=off,
            limit=tolerance(lm),
            reason="its blocks, run with explicit positions and masks, give other logits than its own forward pass "
            f"(they differ by {off:.2g} of the distance between tokens), so every probability would be wrong; {ALIBI}",
        )


def _sums(lm: LanguageModel, layer: int, own: _OwnPass) -> Iterator[Finding]:
    row = lm.architecture
    block, attn, mlp, mlp_out = (
        own.outputs[path(layer)] for path in (row.block_name, row.attn_name, row.mlp_name, row.mlp_out_name)
    )
    off = _unexplained(block, [own.entering[layer], attn, mlp])
    yield Finding(
        name=f"block {layer} = its input + {row.attn} + {row.mlp}",
        measured=off,
        limit=0.0,
        reason=f"the output of {row.block_name(layer)} is not its input + {row.attn} + {row.mlp} (it differs by "
        f"{off:.2g} of what they add): something scales or normalizes their outputs before they are added, or they "
        "hold more than what is added, so an edit would do something else than it was made for",
    )
    off = _unexplained(mlp, [mlp_out])
    yield Finding(
        name=f"{row.mlp} of block {layer} = {row.mlp_out}",
        measured=off,
        limit=0.0,
        reason=f"the output of {row.mlp_name(layer)} is not that of {row.mlp_out} (it differs by {off:.2g}): something "
        "stands between the edited matrix and the residual stream, so an edit would do something else than it was "
        "made for",
    )


def _resumed(lm: LanguageModel, ids: Sequence[int], own: _OwnPass, *, start: int) -> Iterator[Finding]:
    """Run the text's first half from block `start` on, and over its keys and values the other half from the next block
    on: with two starts, also a kind of block that returns every second or third time is taken for another."""
    if len(ids) < 2:
        return
    cut = len(ids) // 2
    recorder = KeysAndValues(record=True)
    head = make_inputs(lm, [Row.text(ids[:cut])])
    first = run_blocks(lm, head, start=start, hidden=own.entering[start][None, :cut], cache=recorder)
    next_block = min(start + 1, lm.n_layers)
    second = run_blocks(
        lm,
        suffix_inputs(lm, [Row.text(ids)], [cut], prefix_width=cut),
        start=next_block,
        hidden=own.entering[next_block][None, cut:],
        cache=KeysAndValues(prefix=recorder.stored),
    )
    for name, at, ours, theirs in (
        (f"continuing at block {start}", start, first, own.final[:cut]),
        (f"continuing at block {next_block} over a cached prefix", next_block, second, own.final[cut:]),
    ):
        off = _difference(ours[0], theirs)
        yield Finding(
            name=name,
            measured=off,
            limit=tolerance(lm),
            reason=f"continuing at block {at} gives other states than its own forward pass (they differ by {off:.2g} "
            "of the distance between tokens): its blocks depend on their place in the list, or take no cached keys "
            "and values, so edits, traces and scores of edited models would be wrong",
        )


def tolerance(lm: LanguageModel) -> float:
    """The largest difference between two passes, as a share (see `TOLERANCE`)."""
    # A program may let float32 products round to TF32, which has the digits of float16.
    rough = lm.dtype == torch.float32 and torch.get_float32_matmul_precision() != "highest"
    return TOLERANCE.get(torch.float16 if rough else lm.dtype, max(TOLERANCE.values()))


def _difference(ours: torch.Tensor, own: torch.Tensor) -> float:
    """The typical distance of two passes (tokens × features), as a share of that between tokens. Where the model's own
    pass is not finite, nothing is compared."""
    if not own.numel():
        return 0.0
    finite = own.isfinite().cpu()
    ours, own = (torch.where(finite, x.cpu().double(), 0) for x in (ours, own))
    distance = (ours - own).norm(dim=-1).square().mean().sqrt()
    if not distance > 0:
        return 0.0 if distance == 0 else float("inf")
    usual = (own - own.mean(dim=0)).norm(dim=-1).median()
    return float(distance / (usual if len(own) > 1 and usual > 0 else own.norm(dim=-1).mean()).clamp(min=1e-30))


def _unexplained(total: torch.Tensor, terms: Sequence[torch.Tensor]) -> float:
    """How far a tensor is from the sum of its terms, as a share of the terms after the first; 0 if by rounding only."""
    info = torch.finfo(total.dtype)
    parts = torch.stack([term.cpu().double() for term in terms])
    rest = torch.where(total.cpu().isfinite(), total.cpu().double() - parts.sum(dim=0), 0)
    allowed = SLACK * info.eps * (parts.abs().sum(dim=0) + info.smallest_normal)
    if not (rest.abs() > allowed).any():
        return 0.0
    added = (parts[1:] if len(parts) > 1 else parts).sum(dim=0)
    return float(rest.norm() / added.norm().clamp(min=1e-30))
