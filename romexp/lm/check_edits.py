"""Checks by numbers that a model can be edited: what an edited matrix computes, that edits come and go, scores.

`romexp.lm.check_architecture` looks at how the model runs, whenever it is loaded. These checks are for a model that
nobody has edited yet (`task=onboard`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from romexp.errors import RecordError
from romexp.facts import with_answer
from romexp.lm.apply_delta import applied, weight_in_out
from romexp.lm.check_architecture import TEXT, Finding, named_step, tolerance
from romexp.lm.hooks import capture
from romexp.lm.model import LanguageModel
from romexp.lm.packing import Query, target_start
from romexp.lm.scoring import score
from romexp.lm.tokens import bare_ids, encode
from romexp.lm.weight_delta import LowRank, WeightDelta


@torch.no_grad()
def edit_findings(lm: LanguageModel, queries: Sequence[Query], layers: Sequence[int]) -> Iterator[Finding]:
    """Measure whether these hold:

    - The recorded input k of an edited matrix W, times W (plus its bias), is its recorded output.
    - With ΔW = k vᵀ / (kᵀk) the output at k's token changes by v, and at any other token by as much as its input says.
    - After that, all weights are as they were, bit for bit.
    - NLLs of answers, computed with packed and padded rows and with edits beside the weights, are those of one plain
      forward pass for each text, with the edit in the weights.

    Args:
        queries: texts with answers, for the last one.
        layers: whose matrices are looked at.

    Raises:
        ConfigError: the model raises an error. The message says where.
    """
    edits = {}
    with named_step(lm, "recording the input and output of its MLPs' second matrices"):
        for layer in layers:
            inputs, outputs = _recorded(lm, layer)
            yield _product(lm, layer, inputs, outputs)
            edits[layer] = _rank_one(lm, layer, inputs, outputs)
            yield from _edited(lm, layer, edits[layer], inputs, outputs)
    edit = edits[layers[len(layers) // 2]]
    with named_step(lm, "scoring answers"):
        yield _scores(lm, queries, None, "of the unedited model")
        yield _scores(lm, queries, edit, "of an edited model")


def tokenizer_facts(lm: LanguageModel, queries: Sequence[Query]) -> dict[str, str]:
    """What a reader should know about the tokenizer, in words."""
    tokenizer = lm.tokenizer

    def shown(ids: Sequence[int]) -> str:
        return " ".join(map(repr, tokenizer.convert_ids_to_tokens(list(ids)))) or "nothing"

    before, after = lm.special_ids
    texts = [(query.prompt, with_answer(query.prompt, target)) for query in queries for target in query.targets]
    alone, whole = (encode(tokenizer, [pair[i] for pair in texts]) for i in (0, 1))
    same = sum(w.ids[: len(a)] == a.ids for a, w in zip(alone, whole, strict=True))
    return {
        "before every text": shown(before),
        "after every text (left out)": shown(after),
        "“Paris” with a space before it": shown(bare_ids(tokenizer, "in Paris")[len(bare_ids(tokenizer, "in")) :]),
        "“Paris” alone": shown(bare_ids(tokenizer, "Paris")),
        "prompts whose tokens stay as they are when an answer follows": f"{same} of {len(texts)}",
        "tokens": f"{len(tokenizer):,}; embeddings: {lm.vocabulary_size:,}",
    }


def _recorded(lm: LanguageModel, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs (tokens × in) and outputs (tokens × out) of a layer's edited matrix on a fixed text."""
    path = lm.architecture.mlp_out_name(layer)
    (text,) = encode(lm.tokenizer, [TEXT])
    ids = torch.tensor([[i for i in text.ids if i < lm.vocabulary_size]], device=lm.device)
    with capture(lm, [path], at="input") as inputs, capture(lm, [path]) as outputs:
        lm.model(input_ids=ids, use_cache=False)
    return inputs[path][0], outputs[path][0]


def _product(lm: LanguageModel, layer: int, inputs: torch.Tensor, outputs: torch.Tensor) -> Finding:
    path = lm.architecture.mlp_out_name(layer)
    product = _exact(inputs) @ _exact(weight_in_out(lm, f"{path}.weight"))
    if getattr(lm.module(path), "bias", None) is not None:
        product = product + _exact(lm.parameter(f"{path}.bias"))
    off = _share(product - _exact(outputs), _exact(outputs))
    return Finding(
        name=f"k·W of layer {layer} = the recorded output",
        measured=off,
        limit=tolerance(lm) / 10,
        reason=f"the recorded input of {path}, times its weight, is not its recorded output (they differ by {off:.2g} "
        "of it): it is no plain linear map, so an edit would do something else than it was made for",
    )


def _rank_one(lm: LanguageModel, layer: int, inputs: torch.Tensor, outputs: torch.Tensor) -> WeightDelta:
    """ΔW = k vᵀ / (kᵀk) with the last token's input k and, as v, its output with the opposite sign: k(W + ΔW) = 0 where
    there is no bias.
    """
    key, value = inputs[-1].float(), -outputs[-1].float()
    term = LowRank(left=key[:, None] / key.square().sum().clamp(min=1e-12), right=value[:, None])
    return WeightDelta(terms={f"{lm.architecture.mlp_out_name(layer)}.weight": term})


def _edited(
    lm: LanguageModel, layer: int, delta: WeightDelta, inputs: torch.Tensor, outputs: torch.Tensor
) -> Iterator[Finding]:
    (name,) = delta.terms
    before = lm.parameter(name).detach().clone()
    with applied(lm, delta):
        _, changed = _recorded(lm, layer)
    expected = _exact(inputs) @ _exact(delta.terms[name].dense())
    off = _share(_exact(changed) - _exact(outputs) - expected, expected)
    yield Finding(
        name=f"an edit of layer {layer} changes its output by k·ΔW",
        measured=off,
        limit=tolerance(lm),
        reason=f"with ΔW added to {name}, the output does not change by k·ΔW (the change differs by {off:.2g} of it)",
    )
    left = int((lm.parameter(name) != before).sum())
    yield Finding(
        name=f"weights of layer {layer} after the edit",
        measured=float(left),
        limit=0.0,
        reason=f"{left} weights of {name} are not restored after an edit",
        unit="changed weights",
    )


def _scores(lm: LanguageModel, queries: Sequence[Query], delta: WeightDelta | None, which: str) -> Finding:
    """The mean distance of NLLs, over all answers of the texts that can be scored."""
    found = score(lm, queries, deltas=[delta] * len(queries))
    pairs = [
        (target, scored.nll)
        for query, scores in zip(queries, found, strict=True)
        if not isinstance(scores, RecordError)
        for target, scored in zip(((query.prompt, t) for t in query.targets), scores, strict=True)
    ]
    with applied(lm, delta or WeightDelta(terms={})):
        gaps = [abs(_plain_nll(lm, prompt, target) - nll) for (prompt, target), nll in pairs]
    off = sum(gaps) / len(gaps) if gaps else float("nan")
    return Finding(
        name=f"NLLs {which}, packed and padded = one text at a time",
        measured=off,
        limit=tolerance(lm),
        reason=f"scores {which} differ by {off:.2g} nats on average from those of one plain forward pass for each text",
        unit="nats",
    )


def _plain_nll(lm: LanguageModel, prompt: str, target: str) -> float:
    """The mean NLL of a target's tokens, from one forward pass over one text."""
    (text,) = encode(lm.tokenizer, [with_answer(prompt, target)])
    start = target_start(text, len(prompt))
    ids = torch.tensor([text.ids], device=lm.device)
    logits = lm.model(input_ids=ids, use_cache=False).logits[0, start - 1 : -1].float()
    return float(-logits.log_softmax(dim=-1).gather(1, ids[0, start:, None]).mean())


def _exact(x: torch.Tensor) -> torch.Tensor:
    """In double precision on the CPU, which every machine has."""
    return x.detach().cpu().double()


def _share(difference: torch.Tensor, whole: torch.Tensor) -> float:
    return float(difference.norm() / whole.norm().clamp(min=1e-30))
