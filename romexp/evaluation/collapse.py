"""Signs that edits have damaged a model as a whole, apart from the facts that were edited (docs/method.md §13.4)."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import torch

from romexp.bounds import check_bounds
from romexp.errors import ConfigError, DataError, raise_first_error
from romexp.evaluation.lm_eval_tasks import LmEvalTasks
from romexp.evaluation.stop_rule import StopRule
from romexp.lm.apply_delta import applied, weight_in_out
from romexp.lm.batching import batched
from romexp.lm.forward import Row, context_length, layer_of, logits, make_inputs, run_blocks
from romexp.lm.model import LanguageModel
from romexp.lm.sampling import Sampler, generate
from romexp.lm.scoring import batch_tokens
from romexp.lm.tokens import encode
from romexp.lm.weight_delta import WeightDelta
from romexp.seeds import derive_seed
from romexp.words import word_entropy

Signs = dict[str, float]
"""Numbers by name. One that is not finite is left out, since JSON cannot express it."""


class Texts(Protocol):
    """A corpus, such as `romexp.data.corpora.TextCorpus`."""

    def texts(self) -> Iterable[str]: ...


@dataclass(frozen=True, kw_only=True, eq=False)
class _Reading:
    """What a model makes of the fixed texts: -log p of each token but a text's first (tokens), and the states after the
    final norm by which these were predicted (tokens × hidden size).
    """

    nlls: torch.Tensor
    states: torch.Tensor


@dataclass(frozen=True, kw_only=True)
class CollapseWatch:
    """Measures a model that holds an edit, on texts that have nothing to do with the edit.

    Attributes:
        corpus: the fixed texts.
        n_texts: number of them that are used, the first ones.
        max_tokens: tokens of each text that are read.
        prompt_words: words of each text that the model continues.
        sampler: how it continues them.
        lm_eval: benchmarks of the Language Model Evaluation Harness; None runs none.
        stop: when a sequence of edits ends early.

    Raises:
        ConfigError: a number is not positive.
    """

    corpus: Texts
    n_texts: int = 16
    max_tokens: int = 128
    prompt_words: int = 5
    sampler: Sampler = field(default_factory=lambda: Sampler(max_length=50))
    lm_eval: LmEvalTasks | None = None
    stop: StopRule = field(default_factory=StopRule)

    def __post_init__(self) -> None:
        check_bounds(self, "task.watch", from_1=("n_texts", "max_tokens", "prompt_words"))
        if self.max_tokens < 2:
            raise ConfigError("task.watch.max_tokens: the first token of a text is not predicted, so 2 are the fewest")

    def texts(self) -> list[str]:
        """The fixed texts.

        Raises:
            DataError: the corpus has none.
        """
        found = list(itertools.islice(self.corpus.texts(), self.n_texts))
        if not found:
            raise DataError("task.watch.corpus: no text")
        return found

    def watcher(self, lm: LanguageModel, *, seed: int) -> Watcher:
        """Read the texts with the original model, once for all edits.

        Args:
            lm: the original model.
            seed: the run's seed.
        """
        texts = self.texts()
        rows = [Row.text(ids) for ids in _cut(lm, texts, self.max_tokens)]
        return Watcher(watch=self, lm=lm, seed=seed, texts=texts, rows=rows, before=_read(lm, rows))


@dataclass(frozen=True, kw_only=True, eq=False)
class Watcher:
    """A watch of one model; `signs` measures an edit.

    Attributes:
        watch: the settings.
        lm: the original model.
        seed: the run's seed.
        texts: the fixed texts.
        rows: their tokens.
        before: what the original model makes of them.
    """

    watch: CollapseWatch
    lm: LanguageModel
    seed: int
    texts: Sequence[str]
    rows: Sequence[Row]
    before: _Reading

    def signs(self, delta: WeightDelta) -> Signs:
        """Measure the model with an edit in its weights.

        Returns:
            - `perplexity`: exp of the mean -log p over the tokens of all fixed texts;
            - `hidden_shift`: mean of ‖h' − h‖ / ‖h‖ over these tokens, where h and h' are the states after the final
              norm without and with the edit;
            - `entropy`: normalized word entropy of the texts that the model generates (`word_entropy`);
            - `weight_change/<layer>`: ‖ΔW‖ / ‖W‖ (Frobenius) over the matrices of a layer that the edit changes;
            - `lm_eval/<task>/<metric>` of each benchmark.
        """
        with applied(self.lm, delta):
            after = _read(self.lm, self.rows)
            perplexity = math.exp(min(float(after.nlls.double().mean()), 700.0))  # e^710 is beyond float64
            shift = (after.states - self.before.states).norm(dim=-1) / self.before.states.norm(dim=-1)
            found = {"perplexity": perplexity, "hidden_shift": float(shift.double().mean())}
            if math.isfinite(perplexity):  # a model whose logits are no numbers writes nothing
                found["entropy"] = word_entropy(self._written())
            if self.watch.lm_eval is not None:
                scores = self.watch.lm_eval(self.lm)
                found |= {f"lm_eval/{name}": value for name, value in scores.items()}
        found |= {f"weight_change/{layer}": ratio for layer, ratio in weight_changes(self.lm, delta).items()}
        return {name: value for name, value in found.items() if math.isfinite(value)}

    def _written(self) -> list[str]:
        """What the model writes after the first words of each text, these words included."""
        prompts = [" ".join(text.split()[: self.watch.prompt_words]) for text in self.texts]
        seeds = [derive_seed(self.seed, "watch", i) for i in range(len(prompts))]
        longest = min(self.watch.sampler.max_length, context_length(self.lm))
        sampler = replace(self.watch.sampler, max_length=longest)
        return raise_first_error(generate(self.lm, prompts, sampler=sampler, seeds=seeds))


def weight_changes(lm: LanguageModel, delta: WeightDelta) -> Mapping[int, float]:
    """‖ΔW‖ / ‖W‖ (Frobenius norms) by layer, over the parameters of the layer that an edit changes."""
    squares: dict[int, tuple[float, float]] = {}
    for name, term in delta.terms.items():
        layer = layer_of(lm, name)
        change, own = squares.get(layer, (0.0, 0.0))
        norm = WeightDelta(terms={name: term}).to(device="cpu", dtype=torch.float64).norm()
        weight = float(weight_in_out(lm, name).float().norm())
        squares[layer] = (change + norm**2, own + weight**2)
    return {layer: math.sqrt(change / own) for layer, (change, own) in sorted(squares.items()) if own}


def _cut(lm: LanguageModel, texts: Sequence[str], max_tokens: int) -> list[tuple[int, ...]]:
    """The tokens of each text, at most `max_tokens` and what the model sees at once; texts of one token are left out.

    Raises:
        DataError: no text has two tokens.
    """
    limit = min(max_tokens, context_length(lm))
    found = [ids for encoding in encode(lm.tokenizer, list(texts)) if len(ids := encoding.ids[:limit]) > 1]
    if not found:
        raise DataError(f"task.watch.corpus: no text has two tokens of {lm.name!r}")
    return found


@torch.no_grad()
def _read(lm: LanguageModel, rows: Sequence[Row]) -> _Reading:
    def work(batch: Sequence[Row]) -> list[tuple[torch.Tensor, torch.Tensor]]:
        final = run_blocks(lm, make_inputs(lm, batch))
        found = []
        for states, row in zip(final, batch, strict=True):
            own = states[: len(row) - 1]
            targets = torch.tensor(row.ids[1:], device=own.device)
            nlls = torch.nn.functional.cross_entropy(logits(lm, own), targets, reduction="none")
            found.append((nlls.cpu(), own.float().cpu()))
        return found

    read = batched(work, list(rows), [len(row) for row in rows], max_tokens=batch_tokens(lm))
    return _Reading(nlls=torch.cat([nlls for nlls, _ in read]), states=torch.cat([states for _, states in read]))
