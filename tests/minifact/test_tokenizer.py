"""The tokenizer: whole objects, names of two to four tokens, and pieces that tokenize like the text they make."""

from __future__ import annotations

import itertools

import pytest
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from romexp.minifact import assets
from romexp.minifact.corpus import CorpusMix, CorpusWriter, text_of
from romexp.minifact.relations import RELATIONS
from romexp.minifact.tokenizer import PieceEncoder
from romexp.minifact.world import World, WorldMaker


@pytest.fixture(scope="module")
def world() -> World:
    return WorldMaker()()


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return AutoTokenizer.from_pretrained(str(assets.model_dir()))


def test_end_of_text_is_token_zero(tokenizer: PreTrainedTokenizerFast) -> None:
    assert tokenizer.bos_token_id == tokenizer.eos_token_id == tokenizer.unk_token_id == 0
    assert tokenizer("<|endoftext|>Any text")["input_ids"][0] == 0
    assert 0 not in tokenizer("Any text")["input_ids"]


def test_names_take_two_to_four_tokens(world: World, tokenizer: PreTrainedTokenizerFast) -> None:
    for entity in world.by_entity:
        assert 2 <= len(tokenizer(entity.name)["input_ids"]) <= 4
        assert 2 <= len(tokenizer(" " + entity.name)["input_ids"]) <= 4


def test_objects_are_single_tokens(tokenizer: PreTrainedTokenizerFast) -> None:
    """So tracing's filter, which compares first tokens with whole words, drops no fact."""
    objects = {item for relation in RELATIONS for item in relation.objects}
    assert all(len(tokenizer(" " + item)["input_ids"]) == 1 for item in objects)


def test_pieces_tokenize_like_their_text(world: World, tokenizer: PreTrainedTokenizerFast) -> None:
    encoder = PieceEncoder(tokenizer)
    for document in itertools.islice(CorpusWriter(world, CorpusMix(), "t"), 300):
        ids = [token for index, piece in enumerate(document) for token in encoder(piece, opening=index == 0)]
        assert ids == tokenizer(text_of(document))["input_ids"]


def test_any_text_survives_a_round_trip(tokenizer: PreTrainedTokenizerFast) -> None:
    text = "Zoë paid 5 € — nothing more.\n"
    assert tokenizer.decode(tokenizer(text)["input_ids"]) == text
