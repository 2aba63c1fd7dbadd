"""What ships: it loads, is small, knows its facts, and keeps them at the subject's last token."""

from __future__ import annotations

import json
import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from transformers import AutoTokenizer, GPT2LMHeadModel, PreTrainedTokenizerFast

from romexp.minifact import assets
from romexp.minifact.prompts import plain_prompts, prefixed_prompts
from romexp.minifact.recall import measure_recall
from romexp.minifact.records import counterfact_records, known_records, zsre_records
from romexp.minifact.train import recall_report
from romexp.minifact.world import World, WorldMaker


@pytest.fixture(scope="module")
def world() -> World:
    return WorldMaker()()


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return AutoTokenizer.from_pretrained(str(assets.model_dir()))


@pytest.fixture(scope="module")
def model() -> GPT2LMHeadModel:
    return GPT2LMHeadModel.from_pretrained(str(assets.model_dir()), dtype=torch.float32).eval()


def test_assets_are_small() -> None:
    assert sum(path.stat().st_size for path in assets.assets_dir().rglob("*") if path.is_file()) < 17e6


def test_shipped_records_are_those_of_the_shipped_world(world: World) -> None:
    made = (
        (assets.counterfact_path(), counterfact_records(world, 1000, seed=0)),
        (assets.zsre_path(), zsre_records(world, 500, seed=0)),
        (assets.known_path(), known_records(world, 600, seed=0)),
    )
    for path, records in made:
        assert json.loads(path.read_text(encoding="utf-8")) == records


def test_tfidf_and_corpus_are_there() -> None:
    vocabulary = json.loads((assets.tfidf_dir() / "tfidf_vocab.json").read_text(encoding="utf-8"))
    assert sorted(vocabulary.values()) == list(range(len(np.load(assets.tfidf_dir() / "idf.npy"))))
    assert len(assets.corpus_path().read_text(encoding="utf-8").splitlines()) >= 1000
    assert len(json.loads(assets.snippets_path().read_text(encoding="utf-8"))) == 120


def test_the_model_is_a_plain_gpt2(model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerFast) -> None:
    config = model.config
    assert config.activation_function in ("gelu_new", "gelu_pytorch_tanh")
    assert config.attn_pdrop == config.resid_pdrop == config.embd_pdrop == 0
    assert config.vocab_size == len(tokenizer)
    assert {parameter.dtype for parameter in model.parameters()} == {torch.float32}


def test_recall(model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerFast, world: World) -> None:
    report = recall_report(model, tokenizer, world, facts=400, seed=1)
    assert report.plain.full >= 0.97
    assert report.prefixed.full >= 0.90
    assert report.question.full >= 0.90


def test_withheld_facts_are_not_known(model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerFast, world: World) -> None:
    rng = random.Random(0)
    assert measure_recall(model, tokenizer, plain_prompts(world.untold, rng)).full < 0.25


def test_counterfact_prompts_are_known(model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerFast) -> None:
    """Rewrites, paraphrases and neighbours have the true object, attribute prompts the new one."""
    records = json.loads(assets.counterfact_path().read_text(encoding="utf-8"))[:20]
    pairs = []
    for record in records:
        request = record["requested_rewrite"]
        true, new = request["target_true"]["str"], request["target_new"]["str"]
        pairs += [(prompt, true) for prompt in record["paraphrase_prompts"] + record["neighborhood_prompts"]]
        pairs += [(prompt, new) for prompt in record["attribute_prompts"]]
    assert measure_recall(model, tokenizer, pairs).full >= 0.95


def test_recall_after_two_sentences(model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerFast, world: World) -> None:
    rng = random.Random(2)
    facts = rng.sample(world.told, 100)
    pairs = [(f"Unlike others. {prompt}", target) for prompt, target in prefixed_prompts(world, facts, rng)]
    assert measure_recall(model, tokenizer, pairs).full >= 0.85


@contextmanager
def _patched(modules: list[nn.Module], token: int) -> Iterator[None]:
    """Give the rows after the first the first row's output of `modules` at `token`."""

    def restore(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        output = output.clone()
        output[1:, token] = output[0, token]
        return output

    with ExitStack() as stack:
        for module in modules:
            stack.callback(module.register_forward_hook(restore).remove)
        yield


def _effects(
    model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerFast, record: dict[str, str], scale: float
) -> tuple[float, list[float], float]:
    """Total effect of noise on the subject; what each block's output at its last token wins back; the best MLPs."""
    begin = record["prompt"].index(record["subject"])
    end = begin + len(record["subject"])
    encoded = tokenizer(record["prompt"], return_offsets_mapping=True)
    inside = [i for i, (left, right) in enumerate(encoded["offset_mapping"]) if right > begin and left < end]
    ids = torch.tensor([encoded["input_ids"]] * 11)
    answer = tokenizer(" " + record["attribute"])["input_ids"][0]
    noise = scale * torch.randn(10, len(inside), model.config.n_embd, generator=torch.Generator().manual_seed(0))

    def corrupt(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        output = output.clone()
        output[1:, inside] += noise
        return output

    def score() -> tuple[float, float]:
        probabilities = model(ids).logits[:, -1].softmax(-1)[:, answer]
        return float(probabilities[0]), float(probabilities[1:].mean())

    blocks, last = list(model.transformer.h), inside[-1]
    windows = [[block.mlp for block in blocks[i : i + 3]] for i in range(len(blocks) - 2)]
    groups = [[block] for block in blocks] + windows
    handle = model.transformer.wte.register_forward_hook(corrupt)
    try:
        high, low = score()
        won = []
        for group in groups:
            with _patched(group, last):
                won.append(score()[1] - low)
    finally:
        handle.remove()
    return high - low, won[: len(blocks)], max(won[len(blocks) :])


@torch.no_grad()
def test_the_early_site(model: GPT2LMHeadModel, tokenizer: PreTrainedTokenizerFast) -> None:
    """The last subject token's state wins back a third of the total effect at least, and so do its MLPs."""
    records = json.loads(assets.known_path().read_text(encoding="utf-8"))
    subjects = [token for record in records for token in tokenizer(record["subject"])["input_ids"]]
    scale = 3 * float(model.transformer.wte.weight[subjects].std())
    effects = [_effects(model, tokenizer, record, scale) for record in records[:40]]
    total = np.mean([effect[0] for effect in effects])
    hidden = np.mean([effect[1] for effect in effects], axis=0)
    mlp = np.mean([effect[2] for effect in effects])
    assert total > 0.4
    assert hidden.max() >= total / 3
    assert hidden[-1] < hidden.max() / 2
    assert mlp >= total / 4
