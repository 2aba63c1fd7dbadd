"""Buckets of the requests that are left when others have finished. A pass over few texts costs nearly as much as one
over many, so that the texts of several buckets are put together.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

import torch

from romexp.editors.values.bucket import Bucket, bucket_groups
from romexp.editors.values.prefix import Prefix, resized
from romexp.lm.forward import suffix_inputs
from romexp.lm.model import LanguageModel


def keep_requests(lm: LanguageModel, buckets: Sequence[Bucket], requests: Collection[int]) -> list[Bucket]:
    """The texts of some requests alone, in as few buckets as cost least."""
    places = [(bucket, row) for bucket in buckets for row, text in enumerate(bucket.texts) if text.request in requests]
    groups = bucket_groups(lm, [bucket.texts[row] for bucket, row in places])
    owners = _owners(places)
    if len(groups) < len(owners):
        return [_joined(lm, [places[i] for i in group]) for group in groups]
    return [_selected(bucket, rows) for bucket, rows in owners.items()]


def _owners(places: Sequence[tuple[Bucket, int]]) -> dict[Bucket, list[int]]:
    """The rows of each bucket, in the order in which the buckets come first."""
    rows: dict[Bucket, list[int]] = {}
    for bucket, row in places:
        rows.setdefault(bucket, []).append(row)
    return rows


def _selected(bucket: Bucket, rows: Sequence[int]) -> Bucket:
    return bucket if len(rows) == len(bucket.texts) else bucket.select(rows)


def _joined(lm: LanguageModel, places: Sequence[tuple[Bucket, int]]) -> Bucket:
    """One bucket of rows of several: each as wide as its longest suffix and its longest prefix."""
    parts = [_selected(bucket, rows) for bucket, rows in _owners(places).items()]
    texts = tuple(text for part in parts for text in part.texts)
    rows, starts = [text.row for text in texts], [text.lookup for text in texts]
    width, before = max(len(row) - start for row, start in zip(rows, starts, strict=True)), max(starts)
    prefix = _joined_prefix([part.prefix for part in parts], [len(part.texts) for part in parts], before=before)
    return Bucket(
        texts=texts,
        layer=parts[0].layer,
        place=parts[0].place,
        block_inputs=suffix_inputs(lm, rows, starts, prefix_width=before if prefix else 0),
        hidden=torch.cat([resized(part.hidden, width, dim=1) for part in parts]),
        prefix=prefix,
        keys=torch.cat([part.keys for part in parts]),
        outputs=torch.cat([part.outputs for part in parts]),
        initial=torch.cat([part.initial for part in parts]),
    )


def _joined_prefix(parts: Sequence[Prefix], n_rows: Sequence[int], *, before: int) -> Prefix:
    """Keys and values of the rows of several buckets, `before` columns of them. A bucket whose texts have no prefix has
    none; its columns are masked.
    """
    some = next((part for part in parts if part), {})

    def joined(layer: int, which: int) -> torch.Tensor:
        like = some[layer][which]
        stored = [
            part[layer][which] if part else like.new_zeros((n, *like.shape[1:]))
            for part, n in zip(parts, n_rows, strict=True)
        ]
        return torch.cat([resized(states, before, dim=2) for states in stored])

    return {layer: (joined(layer, 0), joined(layer, 1)) for layer in some} if before else {}
