"""Training: the fast forward pass is GPT-2's, the bottleneck hides names, and a tiny run writes everything."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest
import torch
from transformers import AutoTokenizer, GPT2LMHeadModel, PreTrainedTokenizerFast

from romexp.minifact import assets
from romexp.minifact.batches import Batch, BatchMaker
from romexp.minifact.corpus import CorpusMix, CorpusWriter
from romexp.minifact.forward import bottleneck_masks, logits
from romexp.minifact.tokenizer import PieceEncoder
from romexp.minifact.train import DataSizes, TrainMinifact
from romexp.minifact.training import Shape, Training
from romexp.minifact.world import WorldMaker


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return AutoTokenizer.from_pretrained(str(assets.model_dir()))


@pytest.fixture(scope="module")
def batch(tokenizer: PreTrainedTokenizerFast) -> Batch:
    writer = CorpusWriter(WorldMaker()(), CorpusMix(), "t")
    maker = BatchMaker(writer, PieceEncoder(tokenizer), rows=8, length=48, end_of_text=0, seed="t")
    return next(iter(maker))


@pytest.fixture(scope="module")
def model() -> GPT2LMHeadModel:
    torch.manual_seed(0)
    return Shape(layers=3, width=32, mlp_width=64).build().eval()


def test_rows_are_full_and_half_begin_without_end_of_text(batch: Batch) -> None:
    assert batch.ids.shape == (8, 48)
    assert 0 < (batch.ids[:, 0] == 0).sum() < 8


def test_training_pass_equals_gpt2(model: GPT2LMHeadModel, batch: Batch) -> None:
    positions = torch.arange(48).expand(8, 48) + 5
    with torch.no_grad():
        ours = logits(model, batch.ids, [None] * 3, positions)
        theirs = model(batch.ids, position_ids=positions).logits
    torch.testing.assert_close(ours, theirs, atol=1e-5, rtol=1e-5)


def test_without_bound_rows_the_masks_are_causal(model: GPT2LMHeadModel, batch: Batch) -> None:
    masks = bottleneck_masks(batch, layers=3, read_layer=2, bound=torch.zeros(8, dtype=torch.bool))
    positions = torch.arange(48).expand(8, 48)
    with torch.no_grad():
        masked, plain = (logits(model, batch.ids, m, positions) for m in (masks, [None] * 3))
    torch.testing.assert_close(masked, plain, atol=1e-5, rtol=1e-5)


def test_bottleneck_hides_names_from_what_follows(batch: Batch) -> None:
    masks = bottleneck_masks(batch, layers=2, read_layer=1, bound=torch.ones(8, dtype=torch.bool))
    early, late = (mask[:, 0] for mask in masks)
    row = int(batch.is_name[:, :24].any(1).nonzero()[0])
    begin = int(batch.is_name[row].nonzero()[0])
    end = int(batch.name_until[row, begin])
    inside = list(range(begin, end))
    assert len(inside) >= 2
    assert all(late[row, q, k] for q in inside for k in inside if k <= q)
    assert not late[row, end:, begin : end - 1].any()
    assert late[row, end:, end - 1].all()
    assert not early[row, end:, begin:end].any()
    ordinary = ~batch.is_name[row]
    causal = torch.ones(48, 48, dtype=torch.bool).tril()
    assert (early[row][:, ordinary] == causal[:, ordinary]).all()


def _tiny(steps: int, **training: object) -> TrainMinifact:
    return TrainMinifact(
        world=WorldMaker(people=80, buildings=40, devices=40),
        shape=Shape(layers=2, width=32, heads=2, mlp_width=64, vocabulary=600),
        training=Training(steps=steps, warmup=3, learning_rate=3e-3, **training),  # type: ignore[arg-type]
        sizes=DataSizes(counterfact=5, zsre=12, known=10, snippets=2, corpus=20, tokenizer=200),
        rows=8,
        length=48,
    )


def test_a_tiny_run_lowers_the_loss_and_writes_everything(tmp_path: Path) -> None:
    losses: list[float] = []
    report = _tiny(25, bottleneck=0.5, read_layer=1)(tmp_path, on_step=lambda step, loss, model: losses.append(loss))
    assert len(losses) == 25
    assert sum(losses[-5:]) < 0.85 * sum(losses[:5])
    assert 0 <= report.plain.full <= report.plain.first <= 1
    shipped = {path.relative_to(assets.assets_dir()) for path in assets.assets_dir().rglob("*.*")}
    shipped -= {path for path in shipped if path.parts[0] == "editors"}  # trained by task=train
    shipped.discard(Path(assets.SECOND_MOMENTS))  # measured by task=train_minifact
    assert shipped <= {path.relative_to(tmp_path) for path in tmp_path.rglob("*.*")}
    loaded = GPT2LMHeadModel.from_pretrained(str(tmp_path / "model"))
    assert loaded.config.vocab_size == len(AutoTokenizer.from_pretrained(str(tmp_path / "model")))


def test_a_seed_fixes_the_model(tokenizer: PreTrainedTokenizerFast) -> None:
    def weights() -> torch.Tensor:
        maker = _tiny(2)
        return maker.train(maker.world(), tokenizer).transformer.h[1].mlp.c_proj.weight

    assert torch.equal(weights(), weights())


def test_batches_are_fixed_by_their_seed(tokenizer: PreTrainedTokenizerFast) -> None:
    def first_two() -> list[torch.Tensor]:
        writer = CorpusWriter(WorldMaker()(), CorpusMix(), "t")
        maker = BatchMaker(writer, PieceEncoder(tokenizer), rows=4, length=32, end_of_text=0, seed="t")
        return [batch.ids for batch in itertools.islice(maker, 2)]

    assert all(torch.equal(a, b) for a, b in zip(first_two(), first_two(), strict=True))
