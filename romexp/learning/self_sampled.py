"""Training edits from texts that a model continued itself, which the authors call `gen` (docs/method.md §4.6)."""

from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from romexp.bounds import check_bounds
from romexp.editors.targets import EditText
from romexp.errors import ConfigError, DataError, RecordError, raise_first_error
from romexp.files import file_sha256, read_json, write_once
from romexp.learning.edits import EditPool, TrainingEdit, pool, usable
from romexp.lm.forward import check_known, check_length, context_length
from romexp.lm.model import LanguageModel
from romexp.lm.sampling import Sampler, clean, generate
from romexp.lm.tokens import encode
from romexp.seeds import derive_seed
from romexp.stats.fit import Corpus, sample

CHUNK = 256
"""Number of texts that are continued in one call of `generate`."""


@dataclass(frozen=True, kw_only=True)
class SelfSampledEdits:
    """Edits whose target is the last tokens of a text that a language model continued.

    The edited model is judged on the same text without some of its leading tokens.

    Attributes:
        path: a JSON file `{"original": […], "completions": […], "n_tokens": n}` in the authors' layout. `original`, the
            texts before they were continued, is not read. None makes such a file with the model itself.
        corpus: the texts to continue; needed if `path` is None.
        count: number of texts to make.
        n_tokens: number of tokens that the model adds to each text, which are the target (1 or 10 in the authors'
            networks). If `path` is set, the file's own number is used.
        context_tokens: smallest and largest number of tokens that are kept of a text before it is continued.
        top_k: number of most likely tokens among which each token is drawn.
        temperature: logits are divided by it.
        validation: share of the texts that are used for validation.

    Raises:
        ConfigError: a number is outside its range, or both `path` and `corpus` are None.
    """

    path: str | Path | None = None
    corpus: Corpus | None = None
    count: int = 10_000
    n_tokens: int = 10
    context_tokens: tuple[int, int] = (10, 90)
    top_k: int = 50
    temperature: float = 1.0
    validation: float = 0.1

    def __post_init__(self) -> None:
        low, high = self.context_tokens
        if not 1 <= low <= high or self.count < 2 or self.n_tokens < 1 or not 0 < self.validation < 1:
            raise ConfigError(
                "task.edits: expected 1 <= context_tokens[0] <= context_tokens[1], count >= 2, n_tokens >= 1 and "
                f"validation between 0 and 1, not {self}"
            )
        if self.path is None and self.corpus is None:
            raise ConfigError("task.edits: expected a path, or a corpus whose texts are to be continued")
        check_bounds(self, "task.edits", from_1=("top_k",), above_0=("temperature",))

    def load(self, lm: LanguageModel, *, seed: int, cache_dir: Path) -> EditPool:
        """Read the file, or make it first, and split its edits (see `romexp.learning.edits.EditSource.load`).

        Raises:
            DataError: the file is missing or of another layout, or fewer than two of its texts can be used.
        """
        file = Path(self.path).expanduser() if self.path is not None else self._completions_file(lm, seed, cache_dir)
        texts, n_tokens = read_completions(file)
        edits, set_aside = usable(enumerate(texts), lambda text: self_sampled_edit(lm, text, n_tokens))
        entry = {"path": str(file), "sha256": file_sha256(file), "texts": len(texts), "n_tokens": n_tokens}
        return pool(edits, validation=self.validation, seed=seed, set_aside=set_aside, facts={"completions": entry})

    def _completions_file(self, lm: LanguageModel, seed: int, cache_dir: Path) -> Path:
        """The path of the file for this model, corpus, settings and seed. It is made if it does not exist."""
        assert self.corpus is not None
        parts = (lm.cache_key, dict(self.corpus.provenance), self.count, self.n_tokens, tuple(self.context_tokens))
        name = f"{derive_seed(*parts, self.top_k, self.temperature, seed):016x}.json"
        file = cache_dir / "self_sampled" / name
        write_once(file, lambda: json.dumps(self.make(lm, seed), ensure_ascii=False), usable=self._is_usable)
        return file

    def _is_usable(self, file: Path) -> bool:
        """Whether a file of the cache holds completions of this length."""
        try:
            return file.is_file() and read_completions(file)[1] == self.n_tokens
        except DataError:
            return False

    def make(self, lm: LanguageModel, seed: int) -> dict[str, Any]:
        """Make the content of such a file: cut texts of the corpus at a random length and let the model continue them.

        Raises:
            ConfigError: the model's context is too short for the numbers of tokens.
            DataError: no text of the corpus is long enough.
        """
        assert self.corpus is not None
        low, high = self.context_tokens
        high = min(high, context_length(lm) - self.n_tokens)
        if high < low:
            raise ConfigError(
                f"task.edits: {low} tokens of context (context_tokens) and {self.n_tokens} more (n_tokens) are more "
                f"than the {context_length(lm)} that {lm.name!r} sees at once"
            )
        chosen, _ = sample(self.corpus.load(), None, seed=seed)
        prompts: list[str] = []
        for text in chosen:
            (encoding,) = encode(lm.tokenizer, [text])
            if len(encoding) >= low:
                length = random.Random(derive_seed(seed, "self sampled", len(prompts))).randint(low, high)
                prompts.append(text[: encoding.offsets[min(length, len(encoding)) - 1][1]])
            if len(prompts) == self.count:
                break
        if not prompts:
            raise DataError(f"task.edits.corpus: no text has {low} tokens (context_tokens)")
        return {"original": prompts, "completions": self._continued(lm, prompts, seed), "n_tokens": self.n_tokens}

    def _continued(self, lm: LanguageModel, prompts: Sequence[str], seed: int) -> list[str]:
        encodings = encode(lm.tokenizer, prompts)
        by_length: dict[int, list[int]] = {}
        for i, encoding in enumerate(encodings):
            by_length.setdefault(len(encoding), []).append(i)
        texts: dict[int, str] = {}
        # `generate` stops at a total length, so prompts of equal length are continued together.
        for length, places in by_length.items():
            sampler = Sampler(max_length=length + self.n_tokens, top_k=self.top_k, temperature=self.temperature)
            remaining = iter(places)
            while batch := list(islice(remaining, CHUNK)):
                seeds = [derive_seed(seed, "completion", i) for i in batch]
                made = raise_first_error(generate(lm, [prompts[i] for i in batch], sampler=sampler, seeds=seeds))
                for i, text in zip(batch, made, strict=True):
                    # `generate` also normalizes the prompt, so the original prompt is put back.
                    texts[i] = prompts[i] + text.removeprefix(clean(lm, encodings[i].ids))
        return [texts[i] for i in range(len(prompts))]


def self_sampled_edit(lm: LanguageModel, text: str, n_tokens: int) -> TrainingEdit:
    """The edit whose target is the last `n_tokens` tokens of a text.

    Raises:
        RecordError: the text has no other tokens than these, or more than the model's context.
    """
    (encoding,) = encode(lm.tokenizer, [text])
    start = len(encoding) - n_tokens
    if start <= encoding.special:
        found = len(encoding) - encoding.special
        raise RecordError(f"expected more than {n_tokens} tokens, found {found}", field="completions")
    check_length(lm, len(encoding))
    check_known(lm, encoding.ids)
    edited = EditText(ids=encoding.ids, target_start=start)
    return TrainingEdit(subject=text, text=edited, uncut=encoding.special)


def read_completions(path: Path) -> tuple[list[str], int]:
    """Read a file in the authors' layout.

    Returns:
        The texts, and the number of tokens at their end that are the target.

    Raises:
        DataError: the file is missing or has another layout.
    """
    try:
        content = read_json(path)
    except OSError as error:
        raise DataError(f"task.edits.path: cannot read {path}: {error.strerror or error}") from error
    except ValueError as error:
        raise DataError(f"{path}: not JSON ({error})") from error
    texts = content.get("completions") if isinstance(content, Mapping) else None
    n_tokens = content.get("n_tokens") if isinstance(content, Mapping) else None
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        raise DataError(f'{path}: expected a list of texts under "completions"')
    if type(n_tokens) is not int or n_tokens < 1:
        raise DataError(f'{path}: expected a positive number under "n_tokens", not {n_tokens!r}')
    return texts, n_tokens
