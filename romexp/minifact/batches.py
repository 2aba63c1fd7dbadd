"""Training batches: documents packed into rows of fixed length, with the positions that the name bottleneck needs."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from romexp.minifact.corpus import CorpusWriter
from romexp.minifact.tokenizer import PieceEncoder

NEVER = 2**15
"""An index beyond the end of every row: the bottleneck never hides such a token."""


@dataclass(frozen=True, kw_only=True)
class Batch:
    """Packed token sequences.

    Attributes:
        ids: token ids, int64 (rows × length).
        is_name: whether a token belongs to a subject's name, bool (rows × length).
        is_object: whether a token belongs to the object of a fact, bool (rows × length).
        inner_until: int32 (rows × length). For a token of a name, except the name's last token, it is the index of the
            first token after the name; from there on, the bottleneck hides the token. For other tokens it is `NEVER`.
        name_until: the same for every token of a name, including the last one.
    """

    ids: Tensor
    is_name: Tensor
    is_object: Tensor
    inner_until: Tensor
    name_until: Tensor


@dataclass
class _Row:
    ids: list[int]
    is_name: list[bool]
    is_object: list[bool]
    inner_until: list[int]
    name_until: list[int]

    def add(self, ids: list[int], *, is_name: bool = False, is_object: bool = False) -> None:
        """Append the tokens of one piece."""
        end = len(self.ids) + len(ids)
        self.ids += ids
        self.is_name += [is_name] * len(ids)
        self.is_object += [is_object] * len(ids)
        self.name_until += [end if is_name else NEVER] * len(ids)
        self.inner_until += [end if is_name else NEVER] * (len(ids) - 1) + [NEVER]


class BatchMaker:
    """Packs a writer's documents into rows without padding. The last document of a row is cut off at its end.

    Half of the rows begin with the end-of-text token. The other half begin with a document, as prompts do.
    """

    def __init__(
        self, writer: CorpusWriter, encoder: PieceEncoder, *, rows: int, length: int, end_of_text: int, seed: str
    ) -> None:
        self._documents, self._encoder = iter(writer), encoder
        self._rows, self._length, self._end_of_text = rows, length, end_of_text
        self._rng = random.Random(f"minifact batches {seed}")

    def __iter__(self) -> Iterator[Batch]:
        """An endless sequence of batches."""
        while True:
            rows = [self._row() for _ in range(self._rows)]
            yield Batch(
                ids=torch.tensor([row.ids[: self._length] for row in rows]),
                is_name=torch.tensor([row.is_name[: self._length] for row in rows]),
                is_object=torch.tensor([row.is_object[: self._length] for row in rows]),
                inner_until=torch.tensor([row.inner_until[: self._length] for row in rows], dtype=torch.int32),
                name_until=torch.tensor([row.name_until[: self._length] for row in rows], dtype=torch.int32),
            )

    def _row(self) -> _Row:
        row = _Row([], [], [], [], [])
        if self._rng.random() < 0.5:
            row.add([self._end_of_text])
        while len(row.ids) < self._length:
            for index, piece in enumerate(next(self._documents)):
                row.add(self._encoder(piece, opening=index == 0), is_name=piece.is_name, is_object=piece.is_object)
            row.add([self._end_of_text])
        return row
