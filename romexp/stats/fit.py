"""One pass over texts that fills any number of layers' second moments
(docs/method.md §3.3), and goes on after being killed.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Protocol

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from romexp.errors import ConfigError
from romexp.files import replacing
from romexp.lm.batching import by_length
from romexp.lm.model import LanguageModel
from romexp.lm.tokens import pad
from romexp.stats.second_moment import SecondMoment, pack, unpack

WINDOW = 1000
"""Texts that are tokenized and packed together; a checkpoint falls between two windows."""

Progress = Callable[[int, int | None], None]
"""Told (texts done, texts in all or None if unknown)."""


@dataclass(frozen=True, kw_only=True)
class Checkpoint:
    """Where an unfinished pass is kept.

    Attributes:
        path: safetensors file, replaced atomically.
        key: identifies the work; a file of another key is not continued.
        every: texts between two writes, rounded up to windows.
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
    dtype: torch.dtype = torch.float32,
    total: int | None = None,
    progress: Progress | None = None,
    checkpoint: Checkpoint | None = None,
) -> tuple[dict[int, MomentFitter], int]:
    """Sum k kᵀ over every token of the texts, for all `layers` in one pass. Returns the sums and the number of texts.

    Args:
        texts: read once; texts without tokens add nothing.
        max_tokens: tokens read of each text, from its start.
        batch_tokens: padded tokens of one forward pass. Changes rounding, nothing else.
        dtype: type of the sums.
        checkpoint: if its file holds an unfinished pass of the same key, that is continued, to the same bits as an
            undisturbed one; the file is removed at the end.

    Raises:
        ConfigError: a batch does not fit the device's memory.
    """
    fitters = {layer: MomentFitter(dtype) for layer in sorted(layers)}
    done = _resume(checkpoint, fitters) if checkpoint else 0
    saved = done
    report = progress or (lambda done, total: None)
    report(done, total)
    for _ in islice(texts, done):  # an iterator cannot jump
        pass
    while window := list(islice(texts, WINDOW)):
        rows = _token_ids(lm, window, max_tokens)
        advanced = done + len(window) - len(rows)
        for group in by_length([len(row) for row in rows], max_tokens=batch_tokens):
            _add(lm, [rows[i] for i in group], fitters)
            advanced += len(group)
            report(advanced, total)
        done += len(window)
        if checkpoint and checkpoint.every and done - saved >= checkpoint.every:
            _write(checkpoint, fitters, done)
            saved = done
    return fitters, done


def _token_ids(lm: LanguageModel, texts: Sequence[str], max_tokens: int) -> list[list[int]]:
    """Token ids of the texts that have any, cut to the limit; special tokens as the tokenizer adds them."""
    written = [text for text in texts if text]
    if not written:
        return []
    ids = lm.tokenizer(written, truncation=True, max_length=max_tokens, padding=False)["input_ids"]
    return [row for row in ids if row]


def _add(lm: LanguageModel, rows: Sequence[Sequence[int]], fitters: Mapping[int, MomentFitter]) -> None:
    batch = pad(rows, pad_id=int(lm.tokenizer.pad_token_id), device=lm.device)
    try:
        with torch.inference_mode(), _feeding(lm, fitters, batch.attention_mask.bool()):
            lm.model.base_model(**batch.inputs(), use_cache=False)
    except _Stop:
        pass
    except torch.OutOfMemoryError as error:
        raise ConfigError(
            f"covariance.batch_tokens: a batch of {batch.input_ids.numel()} tokens and the sums of {len(fitters)} "
            f"layers do not fit the memory of {lm.device}; lower it, or ask for fewer layers at once"
        ) from error


class _Stop(Exception):
    """Ends a forward pass once the last wanted layer has been seen."""


@contextmanager
def _feeding(lm: LanguageModel, fitters: Mapping[int, MomentFitter], real: torch.Tensor) -> Iterator[None]:
    """During forward passes, feed each layer's keys at `real` (batch × tokens) positions; stop after the last layer."""
    last = max(fitters)

    def feed(layer: int) -> Callable[..., None]:
        def hook(module: torch.nn.Module, args: tuple[Any, ...]) -> None:
            keys = args[0]
            # Summed at once: keys of all layers together would not fit beside a large model.
            fitters[layer].update(keys[real.to(keys.device)])
            if layer == last:
                raise _Stop

        return hook

    handles = []
    try:
        for layer in fitters:
            module = lm.module(lm.architecture.mlp_out_name(layer))
            handles.append(module.register_forward_pre_hook(feed(layer)))
        yield
    finally:
        for handle in handles:
            handle.remove()


def _write(checkpoint: Checkpoint, fitters: Mapping[int, MomentFitter], done: int) -> None:
    tensors = {f"{layer}.{name}": value for layer, f in fitters.items() for name, value in f.state().items()}
    header = json.dumps({"key": checkpoint.key, "layers": sorted(fitters), "done": done})
    with replacing(checkpoint.path) as part:
        save_file(tensors, part, metadata={"romexp": header})


def _resume(checkpoint: Checkpoint, fitters: Mapping[int, MomentFitter]) -> int:
    """Fill the fitters from the file if it is of the same work; returns the number of texts it had seen."""
    if not checkpoint.path.is_file():
        return 0
    try:
        with safe_open(str(checkpoint.path), framework="pt") as file:
            header = json.loads((file.metadata() or {}).get("romexp", "{}"))
            if header.get("key") != checkpoint.key or header.get("layers") != sorted(fitters):
                return 0
            for layer, fitter in fitters.items():
                fitter.restore({n: file.get_tensor(f"{layer}.{n}") for n in ("count", "width", "triangle")})
            return int(header["done"])
    except (SafetensorError, ValueError):  # not a checkpoint: begin again
        return 0


class MomentFitter:
    """Σ k kᵀ and the number of keys of one layer, fed batch by batch.

    Args:
        dtype: type of the sum. Keys are cast to it before they are multiplied, as the reference does
            (docs/method.md §3.3).
    """

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        self.dtype = dtype
        self.count = 0
        self.total: torch.Tensor | None = None

    def update(self, keys: torch.Tensor) -> None:
        """Add keys (n × D). The sum lives on their device, or on the CPU if the device lacks the dtype."""
        device = keys.device
        if device.type == "mps" and self.dtype == torch.float64:  # Metal has no float64
            device = torch.device("cpu")
        keys = keys.detach().to(device=device, dtype=self.dtype)
        if self.total is None:
            self.total = torch.zeros((keys.shape[1], keys.shape[1]), dtype=self.dtype, device=device)
        self.total = self.total.to(device).addmm_(keys.T, keys)
        self.count += keys.shape[0]

    def result(self, provenance: Mapping[str, Any]) -> SecondMoment:
        """C = Σ k kᵀ / n, exactly symmetric, float32 on the CPU.

        Raises:
            ValueError: nothing was fed.
        """
        if self.total is None or self.count == 0:
            raise ValueError("no keys to take a second moment of")
        # A product of floats is symmetric only up to rounding; the upper triangle is taken for both halves.
        upper = (self.total / self.count).triu()
        matrix = upper + upper.triu(1).T
        return SecondMoment(matrix=matrix.float().cpu(), count=self.count, provenance=dict(provenance))

    def state(self) -> dict[str, torch.Tensor]:
        """What `restore` needs to go on to the same result, bit for bit: the count and the packed upper triangle."""
        total = torch.zeros((0, 0), dtype=self.dtype) if self.total is None else self.total
        return {"count": torch.tensor(self.count), "width": torch.tensor(total.shape[0]), "triangle": pack(total).cpu()}

    def restore(self, state: Mapping[str, torch.Tensor]) -> None:
        """Go back to a `state`."""
        width = int(state["width"])
        self.count = int(state["count"])
        self.total = unpack(state["triangle"], width).to(self.dtype) if width else None


class Corpus(Protocol):
    """A source of texts; `romexp.data.corpora` has the implementations."""

    @property
    def provenance(self) -> Mapping[str, Any]:
        """What identifies the texts, JSON-ready, without a network and without paths of this machine."""
        ...

    def load(self) -> Iterable[str]:
        """The texts: a `Sequence` where they can be indexed, else an iterable to be read once from its start."""
        ...


def sample(texts: Iterable[str], size: int | None, *, seed: int) -> tuple[Iterator[str], int | None]:
    """The texts to read, in order, and how many they are (None if unknown).

    Indexable texts: the first `size` of all indices as shuffled by `random.Random(seed)`, which for seed 1 is the
    reference's sample (docs/method.md §3.3). Others: the first `size` as they come. `size` None takes all, shuffled
    likewise.
    """
    if not isinstance(texts, Sequence):
        return islice(texts, size), size
    order = list(range(len(texts)))
    random.Random(seed).shuffle(order)
    chosen = order if size is None else order[:size]
    return (texts[i] for i in chosen), len(chosen)
