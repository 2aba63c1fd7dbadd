"""Texts cut at the edited token, so that a step of the optimization computes only what δ changes (docs/method.md §9.3).

δ is added to the MLP's output in layer l at one token. The tokens before it do not change. The tokens after it do not
change up to layer l. So a step runs only the tokens from the edited one on, through the blocks above l, and attends to
cached keys and values of the tokens before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from romexp.editors.rome.texts import EditText
from romexp.lm.forward import BlockInputs, KeysAndValues, Row, make_inputs, run_blocks, suffix_inputs
from romexp.lm.hooks import capture
from romexp.lm.model import LanguageModel


@dataclass(frozen=True, kw_only=True, eq=False)
class Bucket:
    """A batch of texts whose suffixes, the tokens from the edited one (`lookup`) on, have about the same length.

    Attributes:
        texts: the texts, one per row.
        block_inputs: inputs of a pass over the suffixes (rows × suffix) that attends to the prefix.
        hidden: output of block l of the unedited model at the suffixes (rows × suffix × hidden size).
        prefix: keys and values of the tokens before the suffixes, by layer above l (rows × heads × prefix × head size).
        keys: input of the edited matrix at the lookup token (rows × D).
        outputs: output of the edited matrix at the lookup token (rows × d).
        mlp: output of the whole MLP at the lookup token (rows × d).
    """

    texts: tuple[EditText, ...]
    block_inputs: BlockInputs
    hidden: torch.Tensor
    prefix: dict[int, tuple[torch.Tensor, torch.Tensor]]
    keys: torch.Tensor
    outputs: torch.Tensor
    mlp: torch.Tensor

    def select(self, rows: Sequence[int]) -> Bucket:
        """The bucket with only these rows."""
        index = torch.tensor(list(rows), device=self.hidden.device)
        return Bucket(
            texts=tuple(self.texts[i] for i in rows),
            block_inputs=self.block_inputs.select(index),
            hidden=self.hidden[index],
            prefix={layer: (k[index], v[index]) for layer, (k, v) in self.prefix.items()},
            keys=self.keys[index],
            outputs=self.outputs[index],
            mlp=self.mlp[index],
        )

    def final_states(self, lm: LanguageModel, delta: torch.Tensor, layer: int) -> torch.Tensor:
        """Run the suffixes with `delta` (rows × d) added to block `layer`'s output at the lookup tokens.

        Returns:
            States after the final norm (rows × suffix × hidden size).
        """
        first = self.hidden[:, :1] + delta[:, None].to(self.hidden.dtype)
        hidden = torch.cat([first, self.hidden[:, 1:]], dim=1)
        return run_blocks(
            lm, self.block_inputs, start=layer + 1, hidden=hidden, cache=KeysAndValues(prefix=self.prefix)
        )


def make_buckets(lm: LanguageModel, texts: Sequence[EditText], *, layer: int) -> list[Bucket]:
    """Group texts by their rounded suffix length, and compute what δ does not change.

    Args:
        layer: l, the edited layer.
    """
    groups: dict[int, list[EditText]] = {}
    for text in texts:
        groups.setdefault(_rounded(len(text.row) - text.lookup), []).append(text)
    return [_bucket(lm, group, layer=layer) for _, group in sorted(groups.items())]


def _rounded(length: int) -> int:
    """Round up to one of 1, 2, 3, 4, 6, 8, 12, 16, …: buckets are few, and at most a third of a row is padding."""
    size = 1
    while size < length:
        size = size + 1 if size < 4 else (size * 3 // 2 if size & (size - 1) == 0 else size * 4 // 3)
    return size


@torch.no_grad()
def _bucket(lm: LanguageModel, texts: Sequence[EditText], *, layer: int) -> Bucket:
    rows = [text.row for text in texts]
    starts = [text.lookup for text in texts]
    at = torch.arange(len(rows), device=lm.device)
    lookup = torch.tensor(starts, device=lm.device)
    mlp, mlp_out = lm.architecture.mlp_name(layer), lm.architecture.mlp_out_name(layer)
    with capture(lm, [mlp_out], at="input") as inputs, capture(lm, [mlp, mlp_out]) as outputs:
        hidden = run_blocks(lm, make_inputs(lm, rows), stop=layer + 1)
    width = max(len(row) - start for row, start in zip(rows, starts, strict=True))
    columns = (lookup[:, None] + torch.arange(width, device=lm.device)[None]).clamp(max=hidden.shape[1] - 1)
    prefix = _prefix(lm, rows, starts, hidden, layer=layer)
    return Bucket(
        texts=tuple(texts),
        block_inputs=suffix_inputs(lm, rows, starts, prefix_width=next((k.shape[2] for k, _ in prefix.values()), 0)),
        hidden=hidden[at[:, None], columns],
        prefix=prefix,
        keys=inputs[mlp_out][at, lookup],
        outputs=outputs[mlp_out][at, lookup],
        mlp=outputs[mlp][at, lookup],
    )


def _prefix(
    lm: LanguageModel, rows: Sequence[Row], starts: Sequence[int], hidden: torch.Tensor, *, layer: int
) -> dict[int, tuple[torch.Tensor, torch.Tensor]]:
    """Keys and values of the tokens before each start, by layer above `layer`."""
    width = max(starts)
    if width == 0 or layer + 1 >= lm.n_layers:
        return {}
    prefix_rows = [Row(ids=r.ids[:s], positions=r.positions[:s], segments=r.segments[:s]) for r, s in zip(rows, starts)]
    recorder = KeysAndValues(record=True)
    run_blocks(lm, make_inputs(lm, prefix_rows), start=layer + 1, hidden=hidden[:, :width], cache=recorder)
    return recorder.stored
