import random
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from romexp.lm.model import LanguageModel
from romexp.stats import fit as fit_module
from romexp.stats.fit import Checkpoint, batch_tokens, fit, sample

WORDS = (
    "the",
    "of",
    "Apple",
    "French",
    "Paris",
    "is in",
    "violin",
    "Zürich",
    "tongue",
    "Anna",
    "Bob",
    "was",
    "founder",
)


def make_texts(n: int, seed: int = 0) -> list[str]:
    rng = random.Random(seed)
    return [" ".join(rng.choices(WORDS, k=rng.randint(1, 25))) for _ in range(n)]


TEXTS = make_texts(30)


def matrices(lm: LanguageModel, texts: list[str], layers: list[int], **kwargs: object) -> dict[int, torch.Tensor]:
    options = {"max_tokens": lm.max_positions, "batch_tokens": 300, "dtype": torch.float64, **kwargs}
    fitters, _ = fit(lm, iter(texts), layers, **options)  # type: ignore[arg-type]
    return {layer: fitter.result({}).matrix for layer, fitter in fitters.items()}


def one_by_one(lm: LanguageModel, texts: list[str], layer: int, max_tokens: int = 128) -> tuple[torch.Tensor, int]:
    """The definition: the whole model on each text alone, no padding."""
    seen: list[torch.Tensor] = []
    module = lm.module(lm.architecture.mlp_out_name(layer))
    handle = module.register_forward_hook(lambda m, args, out: seen.append(args[0][0].double()))
    with torch.no_grad():
        for text in texts:
            lm.model(torch.tensor([lm.tokenizer(text)["input_ids"][:max_tokens]]))
    handle.remove()
    keys = torch.cat(seen)
    return (keys.T @ keys / len(keys)).float(), len(keys)


def test_every_familys_layers_in_one_pass_are_those_of_single_texts(tiny_lm: LanguageModel) -> None:
    fitters, texts_read = fit(
        tiny_lm, iter(TEXTS), [0, 1, 3], max_tokens=128, batch_tokens=200, dtype=torch.float64, total=30
    )
    assert texts_read == 30
    for layer in (0, 1, 3):
        expected, count = one_by_one(tiny_lm, TEXTS, layer)
        moment = fitters[layer].result({})
        assert moment.count == count
        assert torch.allclose(moment.matrix, expected, rtol=1e-4, atol=1e-5 * float(expected.abs().max()))
        assert torch.linalg.eigvalsh(moment.matrix.double()).min() > -1e-6 * float(expected.abs().max())
    one, three = fitters[1].result({}).matrix, fitters[3].result({}).matrix
    assert not torch.allclose(one, three, rtol=0.1)  # the layers differ, so a mix-up would have shown


def test_a_bos_that_the_tokenizer_adds_is_counted(tiny_llama_bos: LanguageModel) -> None:
    expected, count = one_by_one(tiny_llama_bos, TEXTS[:5], 2)
    assert torch.allclose(matrices(tiny_llama_bos, TEXTS[:5], [2])[2], expected, rtol=1e-4, atol=1e-6)
    assert count == sum(len(tiny_llama_bos.tokenizer(text)["input_ids"]) for text in TEXTS[:5])


def test_batch_composition_and_order_change_nothing(tiny_gpt2: LanguageModel) -> None:
    whole = matrices(tiny_gpt2, TEXTS, [2])[2]
    for budget in (1, 60, 10_000):  # 1: every text alone, though longer than the budget
        assert torch.allclose(matrices(tiny_gpt2, TEXTS, [2], batch_tokens=budget)[2], whole, rtol=1e-5, atol=1e-7)
    assert torch.allclose(matrices(tiny_gpt2, TEXTS[::-1], [2])[2], whole, rtol=1e-5, atol=1e-7)
    assert not torch.allclose(matrices(tiny_gpt2, TEXTS[:-3], [2])[2], whole, rtol=1e-3, atol=1e-5)


def test_long_texts_are_cut_and_empty_ones_dropped(tiny_gpt2: LanguageModel) -> None:
    long = " ".join(make_texts(40, seed=5))
    assert len(tiny_gpt2.tokenizer(long)["input_ids"]) > tiny_gpt2.max_positions
    expected, count = one_by_one(tiny_gpt2, [long, "Paris"], 1, max_tokens=50)
    fitters, texts_read = fit(tiny_gpt2, iter(["", long, "Paris", ""]), [1], max_tokens=50, batch_tokens=100)
    assert (fitters[1].count, texts_read) == (count, 4)
    assert torch.allclose(fitters[1].result({}).matrix, expected, rtol=1e-4, atol=1e-6)


def test_nothing_above_the_highest_layer_is_run_and_no_hook_stays(tiny_lm: LanguageModel) -> None:
    ran: list[int] = []
    handles = [tiny_lm.block(i).register_forward_pre_hook(lambda m, a, i=i: ran.append(i)) for i in range(4)]
    tokens = tiny_lm.tokenizer(TEXTS[0], return_tensors="pt")["input_ids"]
    before = tiny_lm.model(tokens).logits
    ran.clear()
    matrices(tiny_lm, TEXTS[:2], [0, 1])
    for handle in handles:
        handle.remove()
    assert set(ran) == {0, 1}
    assert torch.equal(tiny_lm.model(tokens).logits, before)
    assert not any(module._forward_pre_hooks for module in tiny_lm.model.modules())


def test_progress_counts_every_text_once(tiny_gpt2: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fit_module, "WINDOW", 7)
    told: list[tuple[int, int | None]] = []
    texts = [*TEXTS[:18], "", *TEXTS[18:]]
    matrices(tiny_gpt2, texts, [0], total=31, progress=lambda done, total: told.append((done, total)))
    assert told[0] == (0, 31)
    assert told[-1] == (31, 31)
    assert [done for done, _ in told] == sorted(done for done, _ in told)


@pytest.mark.parametrize("window", [4, 1000])
def test_a_limit_of_tokens_reads_the_first_texts_and_cuts_the_last(
    tiny_gpt2: LanguageModel, monkeypatch: pytest.MonkeyPatch, window: int
) -> None:
    monkeypatch.setattr(fit_module, "WINDOW", window)
    lengths = [len(tiny_gpt2.tokenizer(text)["input_ids"]) for text in TEXTS]
    limit = sum(lengths[:6]) + 2
    told: list[tuple[int, int | None]] = []
    options = {"max_tokens": 128, "batch_tokens": 50, "dtype": torch.float64}
    fitters, texts_read = fit(
        tiny_gpt2,
        iter(["", *TEXTS]),
        [1],
        total_tokens=limit,
        total=31,
        progress=lambda done, total: told.append((done, total)),
        **options,  # type: ignore[arg-type]
    )
    assert (fitters[1].count, texts_read) == (limit, 8)
    assert (told[0], told[-1]) == ((0, limit), (limit, limit))
    whole, _ = fit(tiny_gpt2, iter(TEXTS[:6]), [1], **options)  # type: ignore[arg-type]
    last, _ = fit(tiny_gpt2, iter(TEXTS[6:7]), [1], **{**options, "max_tokens": 2})  # type: ignore[arg-type]
    expected = whole[1].total + last[1].total  # type: ignore[operator]
    assert torch.allclose(fitters[1].total, expected, rtol=1e-4, atol=1e-4)  # type: ignore[arg-type]


def test_a_limit_of_tokens_holds_over_an_interruption(
    tiny_gpt2: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit_module, "WINDOW", 4)
    checkpoint = Checkpoint(path=tmp_path / "c.safetensors", key="k", every=4)
    options = {"max_tokens": 128, "batch_tokens": 300, "total_tokens": 300}
    whole, _ = fit(tiny_gpt2, iter(TEXTS), [1], **options)  # type: ignore[arg-type]
    with pytest.raises(KeyboardInterrupt):
        fit(tiny_gpt2, interrupted(TEXTS, 9), [1], checkpoint=checkpoint, **options)  # type: ignore[arg-type]
    told: list[int] = []
    fitters, _ = fit(
        tiny_gpt2,
        iter(TEXTS),
        [1],
        checkpoint=checkpoint,
        progress=lambda done, total: told.append(done),
        **options,  # type: ignore[arg-type]
    )
    assert 0 < told[0] < told[-1] == fitters[1].count == 300
    assert torch.equal(fitters[1].result({}).matrix, whole[1].result({}).matrix)


def test_batches_on_a_cpu_fit_its_caches() -> None:
    assert batch_tokens(torch.device("cpu")) == 1024 < batch_tokens(torch.device("cuda"))


def interrupted(texts: list[str], after: int) -> Iterator[str]:
    yield from texts[:after]
    raise KeyboardInterrupt


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_an_interrupted_pass_goes_on_to_the_same_bits(
    tiny_gpt2: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype
) -> None:
    monkeypatch.setattr(fit_module, "WINDOW", 4)
    checkpoint = Checkpoint(path=tmp_path / "c.safetensors", key="k", every=8)
    whole = matrices(tiny_gpt2, TEXTS, [1, 3], dtype=dtype)
    options = {"max_tokens": 128, "batch_tokens": 300, "dtype": dtype, "checkpoint": checkpoint}
    with pytest.raises(KeyboardInterrupt):
        fit(tiny_gpt2, interrupted(TEXTS, 22), [1, 3], **options)  # type: ignore[arg-type]
    assert [f.name for f in tmp_path.iterdir()] == ["c.safetensors"]
    told: list[int] = []
    fitters, texts_read = fit(
        tiny_gpt2,
        iter(TEXTS),
        [1, 3],
        progress=lambda done, total: told.append(done),
        **options,  # type: ignore[arg-type]
    )
    assert told[0] == 16  # the last checkpoint: it did go on
    assert texts_read == 30
    for layer in (1, 3):
        assert torch.equal(fitters[layer].result({}).matrix, whole[layer])


def test_a_checkpoint_of_other_work_is_not_continued(
    tiny_gpt2: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fit_module, "WINDOW", 4)
    path = tmp_path / "c.safetensors"
    with pytest.raises(KeyboardInterrupt):
        fit(
            tiny_gpt2,
            interrupted(TEXTS, 22),
            [1],
            max_tokens=128,
            batch_tokens=300,
            checkpoint=Checkpoint(path=path, key="k", every=4),
        )
    for key, layers, content in (("other", [1], None), ("k", [2], None), ("k", [1], b"torn")):
        if content is not None:
            path.write_bytes(content)
        told: list[int] = []
        matrices(
            tiny_gpt2,
            TEXTS[:3],
            layers,
            checkpoint=Checkpoint(path=path, key=key, every=0),
            progress=lambda done, total, told=told: told.append(done),
        )
        assert told[0] == 0


def test_sample_is_the_authors_shuffle() -> None:
    texts = [str(i) for i in range(50)]
    order = list(range(50))
    random.Random(1).shuffle(order)
    chosen, size = sample(texts, 10, seed=1)
    assert (list(chosen), size) == ([str(i) for i in order[:10]], 10)
    everything, size = sample(texts, None, seed=1)
    assert (sorted(everything), size) == (sorted(texts), 50)
    assert sample(texts, 99, seed=1)[1] == 50
    streamed, size = sample((t for t in texts), 3, seed=1)
    assert (list(streamed), size) == (["0", "1", "2"], 3)
