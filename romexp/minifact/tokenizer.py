"""A byte-level BPE tokenizer for the world, and a fast encoder of documents that consist of pieces."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from romexp.lm.tokens import bare_ids
from romexp.minifact.corpus import Document, Piece
from romexp.minifact.relations import RELATIONS
from romexp.minifact.world import name_words

END_OF_TEXT = "<|endoftext|>"


def train_tokenizer(documents: Iterable[Document], vocab_size: int) -> PreTrainedTokenizerFast:
    """Train a BPE on the documents without their names, and on many copies of the objects and the words of names.

    The copies make each object one token, and each name two tokens, or a few more if the vocabulary is small.
    """
    tokenizer = Tokenizer(models.BPE(unk_token=END_OF_TEXT))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocab_size,
        special_tokens=[END_OF_TEXT],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_training_texts(documents), trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=END_OF_TEXT, eos_token=END_OF_TEXT, unk_token=END_OF_TEXT
    )


def _training_texts(documents: Iterable[Document]) -> Iterator[str]:
    for document in documents:
        yield from (piece.text for piece in document if not piece.is_name)
    objects = {" " + name for relation in RELATIONS for name in relation.objects}
    for text in sorted(objects) + sorted(set(name_words())):
        yield from [text] * 2_000
    for opening in ("The", "Unlike", "What", "Which", "In", "Who", "nq"):
        yield from [opening] * 200


def save_tokenizer(tokenizer: PreTrainedTokenizerFast, folder: Path) -> None:
    """Write the files that `AutoTokenizer.from_pretrained(folder)` reads."""
    tokenizer.save_pretrained(str(folder))


class PieceEncoder:
    """Encodes pieces. It tokenizes each distinct piece only once; the ids equal those of the whole text."""

    def __init__(self, tokenizer: PreTrainedTokenizerFast) -> None:
        self._tokenizer = tokenizer
        self._cache: dict[str, list[int]] = {}

    def __call__(self, piece: Piece, *, opening: bool = False) -> list[int]:
        """The token ids of a piece. `opening` removes its space, for a piece at the beginning of a text."""
        text = piece.text.lstrip(" ") if opening else piece.text
        ids = self._cache.get(text)
        if ids is None:
            ids = self._cache[text] = bare_ids(self._tokenizer, text)
        return ids
