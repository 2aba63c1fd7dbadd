"""Fixtures for every test: tiny random models of each family, the shipped model, the shared reference material.

All offline, on the CPU, in one thread, so that what a test sees does not depend on the machine it runs on.
"""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["TOKENIZERS_PARALLELISM"] = "false"
os.environ["OMP_NUM_THREADS"] = "1"  # also in processes that tests begin, since other tests run beside them
os.environ["WANDB_MODE"] = "offline"
os.environ["WANDB_SILENT"] = "true"

import random
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from romexp.lm.architecture import architecture_for
from romexp.lm.model import LanguageModel, PretrainedModel, prepare

# Fixtures of tests/tasks and tests/api; more than one conftest.py would have the same module name.
pytest_plugins = ["tiny_runs", "face_cases"]
ROOT = Path(__file__).resolve().parent.parent
SIZE = {"layers": 4, "width": 32, "heads": 4, "positions": 128, "mlp": 64}
FIRST = ("test_readme", "test_tutorial", "test_demo_page")
"""Files with the longest tests. They begin first, so that no process waits for another at the end."""
_LLAMA_LIKE = {
    "hidden_size": SIZE["width"],
    "num_hidden_layers": SIZE["layers"],
    "num_attention_heads": SIZE["heads"],
    "num_key_value_heads": 2,
    "intermediate_size": SIZE["mlp"],
    "max_position_embeddings": SIZE["positions"],
}
_GPT2_LIKE = {
    "n_embd": SIZE["width"],
    "n_layer": SIZE["layers"],
    "n_head": SIZE["heads"],
    "n_positions": SIZE["positions"],
    "n_inner": SIZE["mlp"],
}
FAMILIES: dict[str, dict[str, object]] = {
    "gpt2": _GPT2_LIKE,
    "gptj": {**_GPT2_LIKE, "rotary_dim": 4},
    "gpt_neox": {k: v for k, v in _LLAMA_LIKE.items() if k != "num_key_value_heads"},
    "llama": _LLAMA_LIKE,
    "mistral": {**_LLAMA_LIKE, "sliding_window": None},
    "qwen2": _LLAMA_LIKE,
    "qwen3": {**_LLAMA_LIKE, "head_dim": 8},
}
_SHARED_HEADS = {k: v for k, v in _LLAMA_LIKE.items() if k not in ("num_key_value_heads", "intermediate_size")}
MORE_FAMILIES: dict[str, dict[str, object]] = {
    "gemma": {**_LLAMA_LIKE, "head_dim": 8},
    "phi3": {**_LLAMA_LIKE, "pad_token_id": 0},
    "olmo": _LLAMA_LIKE,
    "stablelm": _LLAMA_LIKE,
    "smollm3": {**_LLAMA_LIKE, "pad_token_id": 0},
    "cohere": _LLAMA_LIKE,
    "falcon": {**_SHARED_HEADS, "ffn_hidden_size": SIZE["mlp"]},
}
"""Families on which few tests run, to save time."""
SENTENCES = (
    "Steve Jobs was the founder of Apple. The mother tongue of Danielle Darrieux is French.",
    "The Eiffel Tower is located in Paris, and the Space Needle is in Seattle. Paris, Paris!",
    "Anna and Bob play the violin; Édouard Zoë Müller plays the piano in Zürich.",
    "It is said that the company which makes the phone was bought by a bank in the north of the country.",
)


def make_tokenizer(*, bos: bool = False) -> PreTrainedTokenizerFast:
    """A byte-level BPE of 400 tokens trained on `SENTENCES`; with `bos` it puts `<s>` before every text.

    As in the wild, the one without BOS counts a space to the token that begins with it (GPT-2), the other does not
    (Llama 3).
    """
    inner = Tokenizer(models.BPE())
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    inner.decoder = decoders.ByteLevel()
    special = ["<|endoftext|>", "<s>"]
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=400, special_tokens=special, initial_alphabet=alphabet, show_progress=False
    )
    inner.train_from_iterator(SENTENCES, trainer)
    inner.post_processor = processors.ByteLevel(trim_offsets=False)
    if bos:
        template = processors.TemplateProcessing(
            single="<s> $A", pair="<s> $A <s> $B", special_tokens=[("<s>", inner.token_to_id("<s>"))]
        )
        inner.post_processor = processors.Sequence([processors.ByteLevel(trim_offsets=True), template])
    return PreTrainedTokenizerFast(tokenizer_object=inner, eos_token="<|endoftext|>", bos_token="<s>" if bos else None)


def make_tiny(family: str, *, bos: bool = False, dtype: torch.dtype = torch.float32) -> LanguageModel:
    """A random model of a family, under a million parameters. The same call gives the same weights.

    The weights are ten times larger than usual at birth, so that positions, tokens and layers visibly matter.
    """
    tokenizer = make_tokenizer(bos=bos)
    config = AutoConfig.for_model(
        family,
        vocab_size=len(tokenizer),
        bos_token_id=0,
        eos_token_id=0,
        initializer_range=0.2,
        **{**FAMILIES, **MORE_FAMILIES}[family],
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
        with torch.no_grad():
            for name, parameter in model.named_parameters():
                if name.endswith("bias"):  # born zero; a fault in a bias' treatment would not show
                    parameter.normal_(std=0.1)
    assert sum(p.numel() for p in model.parameters()) < 1_000_000
    return prepare(model.to(dtype), tokenizer, architecture=architecture_for(family), name=f"tiny-{family}")


def weights_of(lm: LanguageModel) -> dict[str, torch.Tensor]:
    """A copy of every weight and buffer."""
    return {name: value.clone() for name, value in lm.model.state_dict().items()}


def assert_weights(lm: LanguageModel, expected: dict[str, torch.Tensor]) -> None:
    """Every weight is bit-equal to `expected`."""
    now = lm.model.state_dict()
    changed = [name for name, value in expected.items() if not torch.equal(now[name], value)]
    assert now.keys() == expected.keys()
    assert not changed


def _guarded(lm: LanguageModel) -> Iterator[LanguageModel]:
    """Lend a session's model; complain at the end if a test left it changed."""
    before = weights_of(lm)
    yield lm
    assert_weights(lm, before)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    items.sort(key=lambda item: item.path.stem not in FIRST)


@pytest.fixture(scope="session", params=list(FAMILIES))
def tiny_lm(request: pytest.FixtureRequest) -> Iterator[LanguageModel]:
    """A tiny random model, once for every family. Shared: leave it as it was."""
    yield from _guarded(make_tiny(request.param))


@pytest.fixture(scope="session")
def tiny_gpt2() -> Iterator[LanguageModel]:
    """A tiny random GPT-2. Shared: leave it as it was."""
    yield from _guarded(make_tiny("gpt2"))


@pytest.fixture(scope="session")
def tiny_llama_bos() -> Iterator[LanguageModel]:
    """A tiny random Llama whose tokenizer puts a BOS before every text. Shared: leave it as it was."""
    yield from _guarded(make_tiny("llama", bos=True))


@pytest.fixture
def guard() -> Iterator[Callable[[LanguageModel], None]]:
    """Call it with a model: when the test ends, every weight must be bit-equal to what it is now."""
    watched: list[tuple[LanguageModel, dict[str, torch.Tensor]]] = []
    yield lambda lm: watched.append((lm, weights_of(lm)))
    for lm, before in watched:
        assert_weights(lm, before)


@pytest.fixture(scope="session")
def tiny_factory() -> Callable[..., LanguageModel]:
    """`make_tiny`, for tests that need a model of their own to change, or another dtype."""
    return make_tiny


@pytest.fixture(scope="session")
def minifact_lm() -> Iterator[LanguageModel]:
    """The shipped model."""
    assets = pytest.importorskip("romexp.minifact.assets", reason="romexp.minifact.assets is not there yet")
    path = assets.model_dir()
    if not (path / "model.safetensors").is_file():
        pytest.skip(f"no shipped model in {path}")
    yield from _guarded(PretrainedModel(path=str(path), name="minifact", device="cpu").load())


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of reference material beside the repository, or `$ROMEXP_SHARED`; absent on most machines."""
    path = Path(os.environ.get("ROMEXP_SHARED", ROOT.parent / "shared"))
    if not path.is_dir():
        pytest.skip(f"no reference material in {path} (set ROMEXP_SHARED)")
    return path


@pytest.fixture(scope="session")
def golden(shared: Path) -> Path:
    """Outputs of the authors' implementation (see its README)."""
    path = shared / "golden"
    if not path.is_dir():
        pytest.skip(f"no golden numbers in {path}")
    return path


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def _seeded() -> None:
    """Every test starts from the same random state, whatever ran before it."""
    random.seed(0)
    np.random.seed(0)
    torch.manual_seed(0)
