"""Editing many facts at once, or in a sequence of batches, and looking at the edited model."""

from __future__ import annotations

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import pandas as pd
from transformers import PreTrainedModel

from romexp.api import checks
from romexp.api.generation import continue_texts, next_tokens
from romexp.api.methods import Method, Moments, editor_for, resources_for
from romexp.editors.sequence import Outcome, SequenceState, edit_together
from romexp.errors import ConfigError, RecordError, raise_first_error
from romexp.facts import EditRequest
from romexp.lm.apply_delta import applied
from romexp.lm.model import LanguageModel
from romexp.lm.packing import Query
from romexp.lm.precision import in_own_precision
from romexp.lm.scoring import score
from romexp.lm.weight_delta import WeightDelta

Fact = Mapping[str, str] | EditRequest
"""A fact to edit: `prompt` with one `{}`, `subject` and `target`, and optionally `target_true`."""


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class FactEdits:
    """One edit of many facts, and the model that it is for. The model itself stays as it was.

    Attributes:
        lm: the unedited model.
        requests: the facts, those of earlier batches first.
        method: the method's label, as `MEMIT`.
        delta: what is added to the weights.
        outcomes: of each fact of the last batch the method's diagnostics, or the error for which it is not written.
        state: what a next batch goes on from: `romexp.edit(lm, more, method=…, after=these)`.
    """

    lm: LanguageModel
    requests: tuple[EditRequest, ...]
    method: str
    delta: WeightDelta
    outcomes: tuple[Outcome, ...]
    state: SequenceState

    def generate(
        self, prompt: str | Sequence[str], max_new_tokens: int = 20, *, top_k: int = 1, seed: int = 0
    ) -> str | list[str]:
        """Continue a text, or several, with the edited model (see `LoadedModel.generate`)."""
        return continue_texts(self.lm, prompt, max_new_tokens, top_k=top_k, seed=seed, delta=self.delta)

    def next_tokens(self, prompt: str, n: int = 5) -> pd.DataFrame:
        """The n most likely next tokens of the edited model: `token` and `probability`."""
        return next_tokens(self.lm, prompt, n, delta=self.delta)

    @in_own_precision
    def compare(self) -> pd.DataFrame:
        """A table by fact: P of its new target before and after the edit (exp(-NLL), as in all metrics)."""
        queries = [Query(prompt=request.text, targets=(request.target_new,)) for request in self.requests]
        before = raise_first_error(score(self.lm, queries))
        with applied(self.lm, self.delta):
            after = raise_first_error(score(self.lm, queries))
        return pd.DataFrame(
            {
                "target": [request.target_new for request in self.requests],
                "P before": [math.exp(-found.nll) for (found,) in before],
                "P after": [math.exp(-found.nll) for (found,) in after],
            },
            index=pd.Index([request.text for request in self.requests], name="prompt"),
        )

    @contextmanager
    def applied(self) -> Iterator[PreTrainedModel]:
        """The plain Hugging Face model with the edit in its weights; bit for bit as before when the context ends."""
        with applied(self.lm, self.delta):
            yield self.lm.model

    def save(self, path: str | Path) -> Path:
        """Write the edit to a safetensors file, with the facts and the model's digest, and return its path."""
        file = Path(path).expanduser()
        model = {"name": self.lm.name, "digest": self.lm.digest, "source": getattr(self.lm, "source", "")}
        facts = [asdict(request) for request in self.requests]
        self.delta.save(file, metadata={"requests": facts, "method": self.method, "model": model})
        return file

    def __repr__(self) -> str:
        return f"<{self.method} edit of {self.lm.name}: {len(self.requests)} facts, |Δ| {self.delta.norm():.3g}>"


@in_own_precision
def edit_many(
    lm: LanguageModel,
    facts: Sequence[Fact],
    *,
    method: Method = "memit",
    covariance: Moments = None,
    seed: int = 0,
    after: FactEdits | None = None,
) -> FactEdits:
    """Write many facts by one edit. What `romexp.edit` does with a list.

    Args:
        facts: each a mapping with `prompt`, `subject` and `target`, or an `EditRequest`.
        method: as for `romexp.edit`. A method of single facts (ROME, FT, …) writes them one after another.
        covariance: as for `romexp.edit`.
        seed: seed of everything random.
        after: an earlier edit of the same model, from which this one goes on; the result holds both.

    Raises:
        ConfigError: an argument is not what was expected, or the method cannot edit this model.
        RecordError: not one of the facts can be edited. If only some cannot, a warning names the first of them.
    """
    model = checks.model(lm)
    if after is not None and after.lm.digest != model.digest:
        raise ConfigError(f"after: an edit of {after.lm.name}, not of {model.name}")
    asked = [_request(fact, f"facts[{i}]") for i, fact in enumerate(facts)]
    chosen = editor_for(model, method)
    state = after.state if after is not None else SequenceState()
    with resources_for(model, covariance, seed=seed) as resources:
        made = edit_together(chosen, model, asked, resources=resources, state=state)
    written = [r for r, said in zip(asked, made.outcomes, strict=True) if not isinstance(said, RecordError)]
    errors = [said for said in made.outcomes if isinstance(said, RecordError)]
    if errors and not written:
        raise errors[0]
    if errors:
        warnings.warn(f"{len(errors)} of {len(asked)} facts are not edited; the first: {errors[0]}", stacklevel=3)
    earlier = after.requests if after is not None else ()
    return FactEdits(
        lm=model,
        requests=(*earlier, *written),
        method=chosen.name,
        delta=made.delta,
        outcomes=made.outcomes,
        state=made.state,
    )


def _request(fact: object, name: str) -> EditRequest:
    """The request that a fact is.

    Raises:
        ConfigError: it is none, or a part is missing or has another type.
    """
    if isinstance(fact, EditRequest):
        return fact
    if not isinstance(fact, Mapping):
        raise ConfigError(f"{name}: expected a mapping with prompt, subject and target, got {type(fact).__name__}")
    known: dict[str, Any] = {"prompt": None, "subject": None, "target": None, "target_true": ""}
    if unknown := [str(key) for key in fact if key not in known]:
        raise ConfigError(f"{name}: there is no {unknown[0]!r} (there are {', '.join(known)})")
    parts = {**known, **fact}
    true = parts["target_true"]
    return EditRequest(
        subject=checks.text(parts["subject"], f"{name}.subject"),
        prompt=checks.template(parts["prompt"], f"{name}.prompt"),
        target_new=checks.text(parts["target"], f"{name}.target").strip(),
        target_true="" if true == "" else checks.text(true, f"{name}.target_true").strip(),
    )
