"""Measures the second moments of any number of layers in one pass over texts (docs/method.md §3.3).

A pass that was killed can be resumed.
"""

from __future__ import annotations

import json
import logging
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError

from romexp.errors import ConfigError, DataError
from romexp.lm.batching import by_length
from romexp.lm.model import LanguageModel
from romexp.lm.tensor_files import read_tensors, write_tensors
from romexp.lm.tokens import pad, token_ids
from romexp.stats.moment_fitter import MomentFitter
from romexp.stats.text_counter import TextCounter

_log = logging.getLogger(__name__)

WINDOW = 1000
"""Number of texts that are tokenized and batched together. Checkpoints are written only between two windows."""

Progress = Callable[[int, int | None], None]
"""Called with (items done, total number of items or None if unknown)."""


def batch_tokens(device: torch.device) -> int:
    """Default number of tokens of a forward pass. On a CPU 1,024 are faster than 8,192, because they fit its caches."""
    return 1024 if device.type == "cpu" else 8192


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """Where and how often an unfinished pass is saved.

    Attributes:
        path: a safetensors file, which is replaced atomically.
        key: identifies the pass; a file with another key is not resumed.
        every: number of texts between two writes, rounded up to whole windows.
    """

    path: Path
    key: str
    every: int


def fit(
    lm: LanguageModel,
    texts: Iterator[str],
    layers: Sequence[int],
    *,
    max_tokens: int,
    batch_tokens: int,
    total_tokens: int | None = None,
    dtype: torch.dtype = torch.float32,
    total: int | None = None,
    progress: Progress | None = None,
    checkpoint: Checkpoint | None = None,
) -> tuple[dict[int, MomentFitter], int]:
    """Sum k kᵀ over all tokens of the texts, for all `layers` in one pass (docs/method.md §3.3).

    Args:
        texts: read once; texts without tokens are counted but add nothing.
        max_tokens: cut each text to this many tokens.
        batch_tokens: tokens of one forward pass, padding included. Affects only rounding.
        total_tokens: read no more than this many tokens, in the order of the texts; the last text is cut. None reads
            all.
        dtype: type of the sums.
        total: number of texts, for `progress`; None if unknown.
        progress: called before the pass and after each batch; with the number of tokens if `total_tokens` is set, else
            with the number of texts.
        checkpoint: where to save the unfinished pass; None saves nothing. If the file holds an unfinished pass with the
            same key, that pass is resumed and gives the same bits as an uninterrupted one. The caller removes the file.

    Returns:
        The sums by layer, and the number of texts.

    Raises:
        ConfigError: a batch does not fit into the device's memory.
    """
    fitters = {layer: MomentFitter(dtype) for layer in sorted(layers)}
    done = _resume(checkpoint, fitters) if checkpoint else 0
    saved = done
    counter = TextCounter(total=total, total_tokens=total_tokens, texts=done, tokens=fitters[min(fitters)].count)
    report = progress or (lambda done, total: None)
    report(*counter.state)
    for _ in islice(texts, done):  # Skip the texts that the resumed pass has already seen.
        pass
    while counter.wants_more and (window := list(islice(texts, WINDOW))):
        rows, read = counter.cut(_token_ids(lm, window, max_tokens))
        for group in by_length([len(row) for row in rows], max_tokens=batch_tokens):
            _run_batch(lm, [rows[i] for i in group], fitters)
            counter.add([rows[i] for i in group])
            report(*counter.state)
        done += read
        counter.texts = done
        if checkpoint and checkpoint.every and done - saved >= checkpoint.every:
            _write(checkpoint, fitters, done)
            saved = done
    report(*counter.state)
    return fitters, done


def _token_ids(lm: LanguageModel, texts: Sequence[str], max_tokens: int) -> list[list[int]]:
    """Token ids of the texts, cut to `max_tokens`; none for an empty text.

    Raises:
        DataError: a text has a token for which the model has no embedding.
    """
    rows = iter(token_ids(lm.tokenizer, [text for text in texts if text], max_tokens=max_tokens))
    found = [list(next(rows)) if text else [] for text in texts]
    if (highest := max((max(row) for row in found if row), default=0)) >= lm.vocabulary_size:
        token = lm.tokenizer.convert_ids_to_tokens(highest)
        raise DataError(f"corpus: a text has the token {token!r}, for which {lm.name!r} has no embedding")
    return found


def _run_batch(lm: LanguageModel, rows: Sequence[Sequence[int]], fitters: Mapping[int, MomentFitter]) -> None:
    batch = pad(rows, pad_id=int(lm.tokenizer.pad_token_id), device=lm.device)
    try:
        with torch.inference_mode(), _adding_keys(lm, fitters, batch.attention_mask.bool()):
            lm.model.base_model(**batch.inputs(), use_cache=False)
    except _LastLayerReached:
        pass
    except torch.OutOfMemoryError as error:
        raise ConfigError(
            f"covariance.batch_tokens: a batch of {batch.input_ids.numel()} tokens and the sums of {len(fitters)} "
            f"layers do not fit the memory of {lm.device}; lower it, or ask for fewer layers at once"
        ) from error


class _LastLayerReached(Exception):
    """Ends a forward pass after the last layer whose keys are needed."""


@contextmanager
def _adding_keys(lm: LanguageModel, fitters: Mapping[int, MomentFitter], real: torch.Tensor) -> Iterator[None]:
    """Inside the context, forward passes add each layer's keys to its fitter and stop after the last layer.

    Args:
        real: True for tokens that are not padding (batch × tokens).
    """
    last = max(fitters)

    def add_keys(layer: int) -> Callable[..., None]:
        def hook(module: torch.nn.Module, args: tuple[Any, ...]) -> None:
            keys = args[0]
            # The keys are summed here and not kept, because those of all layers may not fit beside a large model.
            fitters[layer].update(keys[real.to(keys.device)])
            if layer == last:
                raise _LastLayerReached

        return hook

    handles = []
    try:
        for layer in fitters:
            module = lm.module(lm.architecture.mlp_out_name(layer))
            handles.append(module.register_forward_pre_hook(add_keys(layer)))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _write(checkpoint: Checkpoint, fitters: Mapping[int, MomentFitter], done: int) -> None:
    tensors = {f"{layer}.{name}": value for layer, f in fitters.items() for name, value in f.state().items()}
    header = json.dumps({"key": checkpoint.key, "layers": sorted(fitters), "done": done})
    write_tensors(checkpoint.path, tensors, {"romexp": header})


def _resume(checkpoint: Checkpoint, fitters: Mapping[int, MomentFitter]) -> int:
    """Restore the fitters from the checkpoint, if it belongs to the same pass.

    Returns:
        The number of texts that the checkpoint has seen; 0 if there is none to resume.
    """
    if not checkpoint.path.is_file():
        return 0
    try:
        metadata, tensors = read_tensors(checkpoint.path)
        header = json.loads(metadata.get("romexp", "{}"))
        if header.get("key") != checkpoint.key or header.get("layers") != sorted(fitters):
            return 0
        parts = ("count", "width", "triangle")
        states = {layer: {name: tensors[f"{layer}.{name}"] for name in parts} for layer in fitters}
        restored = {layer: _restored(state, fitters[layer].dtype) for layer, state in states.items()}
        done = int(header["done"])
    # Whatever else the file is, it is no checkpoint, and the pass begins at the first text.
    except (SafetensorError, ValueError, KeyError, TypeError, AttributeError, RuntimeError) as error:
        _log.warning("%s is damaged (%s): the pass begins at the first text", checkpoint.path, error)
        return 0
    for layer, fitter in restored.items():  # only now, so that no sum is restored alone
        fitters[layer].count, fitters[layer].total = fitter.count, fitter.total
    return done


def _restored(state: Mapping[str, torch.Tensor], dtype: torch.dtype) -> MomentFitter:
    if state["triangle"].dtype != dtype:
        raise ValueError(f"sums of {state['triangle'].dtype}, expected {dtype}")
    fitter = MomentFitter(dtype)
    fitter.restore(state)
    return fitter


class Corpus(Protocol):
    """A source of texts. The implementations are in `romexp.data.corpora`."""

    @property
    def provenance(self) -> Mapping[str, Any]:
        """A JSON-ready description that identifies the texts. It needs no network and has no paths of this machine."""
        ...

    def load(self) -> Iterable[str]:
        """The texts: a `Sequence` if they can be indexed, else an iterable that can be read once."""
        ...


def sample(texts: Iterable[str], size: int | None, *, seed: int) -> tuple[Iterator[str], int | None]:
    """Choose `size` texts (None: all).

    If `texts` is a sequence, its indices are shuffled by `random.Random(seed)` and the first `size` are taken. With
    seed 1 this is the sample of the authors (docs/method.md §3.3). Otherwise the first `size` texts are taken.

    Returns:
        The chosen texts in order, and their number (None if unknown).
    """
    if not isinstance(texts, Sequence):
        return islice(texts, size), size
    order = list(range(len(texts)))
    random.Random(seed).shuffle(order)
    chosen = order if size is None else order[:size]
    return (texts[i] for i in chosen), len(chosen)
