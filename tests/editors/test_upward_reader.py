"""Keys and states that are read from below, against plain passes over whole texts."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import pytest
import torch
from conftest import FAMILIES, MORE_FAMILIES
from edit_cases import REQUESTS, TEMPLATES

from romexp.editors.many import readings
from romexp.editors.many.readings import RequestTexts, UpwardReader
from romexp.editors.values.texts import edit_texts
from romexp.errors import without_errors
from romexp.lm.apply_delta import applied
from romexp.lm.model import LanguageModel
from romexp.lm.weight_delta import LowRank, WeightDelta

WEIGHTS = (0.5, 0.3, 0.2)


def texts_of(lm: LanguageModel, numbers: Sequence[int] = (0, 1, 2, 3)) -> RequestTexts:
    texts = without_errors(edit_texts(lm, [REQUESTS[i] for i in numbers], TEMPLATES, fact_token="subject_last"))
    return RequestTexts(texts=[row[:-1] for row in texts], weights=WEIGHTS)


def edit(lm: LanguageModel, layer: int, *, seed: int) -> WeightDelta:
    """A large edit of rank one of what a layer's MLP gives."""
    name = f"{lm.architecture.mlp_out_name(layer)}.weight"
    generator = torch.Generator().manual_seed(seed)
    left, right = (torch.randn(width, 1, generator=generator) for width in (64, 32))
    return WeightDelta(terms={name: LowRank(left=left, right=right)})


@torch.no_grad()
def plainly(lm: LanguageModel, requests: RequestTexts, layer: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Keys at `layer` and outputs of block 2, each text run by itself from its first token to its last."""
    found: list[list[torch.Tensor]] = []
    seen: dict[str, torch.Tensor] = {}
    handles = [
        lm.module(lm.architecture.mlp_out_name(layer)).register_forward_hook(
            lambda _m, args, _out: seen.update(key=args[0])
        ),
        lm.module(lm.architecture.block_name(2)).register_forward_hook(
            lambda _m, _args, out: seen.update(state=out[0] if isinstance(out, tuple) else out)
        ),
    ]
    try:
        for texts in requests.texts:
            for text in texts:
                lm.model(torch.tensor([text.row.ids]))
                found.append([seen[name][0, text.lookup].clone() for name in ("key", "state")])
    finally:
        for handle in handles:
            handle.remove()
    keys = torch.stack([key for key, _ in found]).unflatten(0, (-1, 3))
    return (keys * torch.tensor(WEIGHTS)[:, None]).sum(1), torch.stack([state for _, state in found][::3])


def distance(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm(dim=1).max() / expected.norm(dim=1).max())


def assert_reads(lm: LanguageModel, reader: UpwardReader, requests: RequestTexts) -> None:
    """Read at layers 0, 1 and 2, each edited once it was read."""
    deltas: dict[str, LowRank] = {}
    block = lm.architecture.block_name(2)
    unedited = plainly(lm, requests, 2)[0]
    for layer in (0, 1, 2):
        with applied(lm, WeightDelta(terms=deltas)):
            keys, states = reader.keys(lm, [layer])[layer], reader.states(lm, block, layer=2)
            expected = plainly(lm, requests, layer)
        assert distance(keys, expected[0]) < 1e-5
        assert distance(states, expected[1]) < 1e-5
        deltas |= edit(lm, layer, seed=layer).terms
    assert distance(unedited, expected[0]) > 0.05  # The edits below are seen.


@pytest.mark.parametrize("family", [*FAMILIES, *MORE_FAMILIES])
@pytest.mark.parametrize("one_model", [True, False])
def test_readings_equal_plain_passes(tiny_factory: Callable[..., LanguageModel], family: str, one_model: bool) -> None:
    lm = tiny_factory(family)
    requests = texts_of(lm)
    assert_reads(lm, UpwardReader(requests, one_model=one_model), requests)


@pytest.mark.parametrize("room", [0, 3000, 6000])
@pytest.mark.parametrize("max_tokens", [1, 40, 8192])
def test_whatever_is_kept_and_however_it_is_batched(
    tiny_gpt2: LanguageModel, monkeypatch: pytest.MonkeyPatch, room: int, max_tokens: int
) -> None:
    monkeypatch.setattr(readings, "MAX_TOKENS", max_tokens)
    requests = texts_of(tiny_gpt2)
    assert_reads(tiny_gpt2, UpwardReader(requests, one_model=True, stored_bytes=room), requests)


def test_one_request_alone(tiny_llama_bos: LanguageModel) -> None:
    requests = texts_of(tiny_llama_bos, [3])
    assert_reads(tiny_llama_bos, UpwardReader(requests, one_model=True), requests)


def test_each_request_on_its_own_model(tiny_gpt2: LanguageModel) -> None:
    requests = texts_of(tiny_gpt2)
    reader = UpwardReader(requests, one_model=False)
    reader.keys(tiny_gpt2, [0], deltas=[WeightDelta()] * 4)
    deltas = [edit(tiny_gpt2, 0, seed=seed) for seed in range(4)]
    keys = reader.keys(tiny_gpt2, [1], deltas=deltas)[1]
    states = reader.states(tiny_gpt2, tiny_gpt2.architecture.block_name(2), layer=2, deltas=deltas)
    for i, delta in enumerate(deltas):
        with applied(tiny_gpt2, delta):
            expected = plainly(tiny_gpt2, requests, 1)
        assert distance(keys[i : i + 1], expected[0][i : i + 1]) < 1e-5
        assert distance(states[i : i + 1], expected[1][i : i + 1]) < 1e-5
        assert distance(keys[i : i + 1], expected[0][[i - 1]]) > 0.05


def test_layers_of_one_pass(tiny_gpt2: LanguageModel) -> None:
    requests = texts_of(tiny_gpt2)
    found = UpwardReader(requests, one_model=True).keys(tiny_gpt2, [0, 2, 3])
    assert list(found) == [0, 2, 3]
    for layer, keys in found.items():
        assert distance(keys, plainly(tiny_gpt2, requests, layer)[0]) < 1e-5


def test_blocks_below_do_not_run_again(tiny_gpt2: LanguageModel) -> None:
    """What each block computes, in tokens of the texts themselves (without the shared contexts)."""
    requests = texts_of(tiny_gpt2)
    tokens = [0] * 4
    handles = []
    for layer in range(4):

        def count(_m: object, args: tuple[torch.Tensor, ...], _out: object, layer: int = layer) -> None:
            tokens[layer] += args[0].shape[0] * args[0].shape[1]

        handles.append(tiny_gpt2.module(tiny_gpt2.architecture.block_name(layer)).register_forward_hook(count))
    counts = []
    try:
        for room in (2**20, 0):
            tokens[:] = [0] * 4
            reader = UpwardReader(requests, one_model=False, stored_bytes=room)
            reader.keys(tiny_gpt2, [1])
            reader.keys(tiny_gpt2, [2])
            counts.append(list(tokens))
    finally:
        for handle in handles:
            handle.remove()
    kept, again = counts
    assert kept[0] == kept[2] == again[2]
    assert kept[1] == again[1] == again[0] == 2 * kept[0]
    assert kept[3] == 0
