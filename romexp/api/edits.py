"""Editing one fact, and looking at the edited model."""

from __future__ import annotations

import html
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, overload

import pandas as pd
from transformers import PreTrainedModel

from romexp.api import checks
from romexp.api.generation import continue_texts, next_token_probabilities, next_tokens
from romexp.api.many import Fact, FactEdits, edit_many
from romexp.api.methods import Method, Moments, editor_for, resources_for
from romexp.api.models import load
from romexp.errors import ConfigError, raise_first_error
from romexp.export.export import Format, export_edits
from romexp.export.gather import FoundEdit
from romexp.facts import EditRequest, answer_text
from romexp.lm.apply_delta import applied
from romexp.lm.model import LanguageModel
from romexp.lm.packing import Query
from romexp.lm.precision import in_own_precision
from romexp.lm.saved_edit import ModelOrigin, SavedEdit, check_made_for
from romexp.lm.scoring import TargetScore, score
from romexp.lm.weight_delta import WeightDelta
from romexp.results.identity import fingerprint


@dataclass(frozen=True, kw_only=True, eq=False, repr=False)
class FactEdit:
    """An edit of one fact, and the model that it is for. The model itself stays as it was.

    Attributes:
        lm: the unedited model.
        request: the fact: subject, prompt, target.
        method: the method's label, as `ROME`.
        delta: what the edit adds to the weights.
        diagnostics: what the method says of its work (losses by step, norms, …).
        settings: the method's hyper-parameters, as JSON values.
        source: where the model was loaded from, if `lm` does not know it.
    """

    lm: LanguageModel
    request: EditRequest
    method: str
    delta: WeightDelta
    diagnostics: Mapping[str, Any] = field(default_factory=dict)
    settings: Mapping[str, Any] = field(default_factory=dict)
    source: str = ""

    def generate(
        self, prompt: str | Sequence[str], max_new_tokens: int = 20, *, top_k: int = 1, seed: int = 0
    ) -> str | list[str]:
        """Continue a text, or several, with the edited model (see `LoadedModel.generate`)."""
        return continue_texts(self.lm, prompt, max_new_tokens, top_k=top_k, seed=seed, delta=self.delta)

    def next_tokens(self, prompt: str, n: int = 5) -> pd.DataFrame:
        """The n most likely next tokens of the edited model: `token` and `probability`."""
        return next_tokens(self.lm, prompt, n, delta=self.delta)

    def compare(self, prompts: str | Sequence[str]) -> pd.DataFrame:
        """A table by prompt, before and after the edit: the most likely next token, and P of the new target.

        P is exp(-NLL), with the NLL a mean over the target's tokens, as in all metrics.
        """
        asked = checks.texts(prompts, "prompts")
        sides = {"before": None, "after": self.delta}
        table: dict[str, list[Any]] = {side: self._most_likely(asked, delta) for side, delta in sides.items()}
        for side, delta in sides.items():
            table[f"P({self.request.target_new}) {side}"] = list(map(_probability, self._scored(asked, delta)))
        return pd.DataFrame(table, index=pd.Index(asked, name="prompt"))

    def _most_likely(self, prompts: Sequence[str], delta: WeightDelta | None) -> list[str]:
        best = next_token_probabilities(self.lm, prompts, [delta] * len(prompts)).max(dim=-1)
        return [
            f"{str(self.lm.tokenizer.decode([token])).strip()} ({100 * probability:.0f} %)"
            for token, probability in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]

    @in_own_precision
    def _scored(self, prompts: Sequence[str], delta: WeightDelta | None) -> list[TargetScore]:
        queries = [Query(prompt=prompt, targets=(self.request.target_new,)) for prompt in prompts]
        return [s for (s,) in raise_first_error(score(self.lm, queries, deltas=[delta] * len(queries)))]

    @contextmanager
    def applied(self) -> Iterator[PreTrainedModel]:
        """The plain Hugging Face model with the edit in its weights; bit for bit as before when the context ends."""
        with applied(self.lm, self.delta):
            yield self.lm.model

    def save(self, path: str | Path) -> Path:
        """Write the edit to a safetensors file, with the fact and the model's digest, and return its path."""
        file = Path(path).expanduser()
        self.saved().save(file)
        return file

    def export(self, folder: str | Path, format: Format = "peft") -> Path:
        """Write the edited model for other programs, load it in a fresh process and compare; return the folder.

        Args:
            folder: a new folder. A model card (README.md) in it says what was edited.
            format: `peft`, a LoRA adapter for the model, or `hf`, a whole Hugging Face model with its tokenizer.

        Raises:
            ConfigError: the edit cannot be exported in this format (fine-tuning makes no adapter), the folder holds
                something else, or peft is not installed.
            DataError: the loaded export does not give the edit's numbers. Nothing is left behind.
        """
        found = FoundEdit(saved=self.saved())
        return export_edits(
            self.lm, [found], Path(folder).expanduser(), format=format, source=found.saved.model.source
        ).path

    def saved(self) -> SavedEdit:
        """The edit with what a file of it says."""
        return SavedEdit(
            delta=self.delta,
            request=self.request,
            method=self.method,
            settings=self.settings,
            model=ModelOrigin.of(self.lm, source=self.source or getattr(self.lm, "source", "")),
        )

    @cached_property
    def probabilities(self) -> tuple[float, float]:
        """P(target) at the edited prompt, before and after the edit: exp(-NLL), with NLL a mean over its tokens."""
        before, after = (self._scored([self.request.text], delta)[0] for delta in (None, self.delta))
        return _probability(before), _probability(after)

    def __repr__(self) -> str:
        before, after = self.probabilities
        return (
            f"<{self.method} edit of {self.lm.name}: {self.request.text!r} → {self.request.target_new!r}, "
            f"P {before:.3f} → {after:.3f}, |Δ| {self.delta.norm():.3g}>"
        )

    def _repr_html_(self) -> str:
        said = html.escape(repr(self)[1:-1])
        return f"<p>{said}</p>{self.compare([self.request.text])._repr_html_()}"  # type: ignore[operator]


@overload
def edit(
    lm: LanguageModel,
    prompt: str,
    *,
    subject: str,
    target: str,
    target_true: str = "",
    method: Method = "rome",
    covariance: Moments = None,
    seed: int = 0,
) -> FactEdit: ...
@overload
def edit(
    lm: LanguageModel,
    prompt: Sequence[Fact],
    *,
    method: Method = "rome",
    covariance: Moments = None,
    seed: int = 0,
    after: FactEdits | None = None,
) -> FactEdits: ...


@in_own_precision
def edit(
    lm: LanguageModel,
    prompt: str | Sequence[Fact],
    *,
    subject: str | None = None,
    target: str | None = None,
    target_true: str = "",
    method: Method = "rome",
    covariance: Moments = None,
    seed: int = 0,
    after: FactEdits | None = None,
) -> FactEdit | FactEdits:
    """Make a model say `target` after `prompt` about `subject`; or write many facts at once (see `edit_many`).

    Args:
        lm: a model of `romexp.load`.
        prompt: with exactly one `{}` for the subject, as `{} plays the`; or a list of facts, each a mapping with
            `prompt`, `subject` and `target`, for which `subject` and `target` stay empty.
        target: the new answer, without a leading space.
        target_true: the answer so far; only methods that look at it need it (Knowledge Neurons).
        method: its name (`rome`, `ft`, `ft_l`, `mend`, …) or an editor object (see `romexp.editor`). By its name it has
            the settings for this model.
        covariance: where second moments come from, for methods that use them (see `second_moments`).
        seed: seed of everything random.
        after: for a list, an earlier edit of many facts from which this one goes on.

    Raises:
        ConfigError: an argument is not what was expected, or the method cannot edit this model.
        RecordError: this fact cannot be edited, as when the text is too long for the model.
    """
    model = checks.model(lm)
    if isinstance(prompt, Sequence) and not isinstance(prompt, str):
        if subject is not None or target is not None or target_true:
            raise ConfigError("subject, target: a list of facts has its own, {'prompt': …, 'subject': …, 'target': …}")
        return edit_many(lm, prompt, method=method, covariance=covariance, seed=seed, after=after)
    if after is not None:
        raise ConfigError("after: only a list of facts goes on from an earlier edit")
    request = EditRequest(
        subject=checks.text(subject, "subject").strip(),
        prompt=checks.template(prompt, "prompt").rstrip(),
        target_new=answer_text(checks.text(target, "target")),
        target_true="" if target_true == "" else answer_text(checks.text(target_true, "target_true")),
    )
    chosen = editor_for(model, method)
    with resources_for(model, covariance, seed=seed) as resources:
        (made,) = raise_first_error(chosen(model, [request], resources=resources))
    found = FactEdit(
        lm=model,
        request=request,
        method=chosen.name,
        delta=made.delta,
        diagnostics=dict(made.diagnostics),
        settings=fingerprint(chosen),
    )
    (own,) = found._scored([request.text], None)
    if own.predictions == own.token_ids:
        warnings.warn(
            f"{request.target_new!r} is what {model.name} says after {request.text!r} anyway",
            stacklevel=2,
        )
    return found


def load_edit(path: str | Path, lm: LanguageModel | None = None) -> FactEdit:
    """An edit that `FactEdit.save` wrote, or `romexp save_deltas=true` or `romexp task=try`.

    Args:
        lm: the model that it is for; None loads the one that the file names.

    Raises:
        DataError: the file is missing, of another kind, or of another model.
        ConfigError: the model that it names cannot be loaded.
    """
    file = Path(path).expanduser()
    saved = SavedEdit.load(file)
    if lm is None:
        if not saved.model.source:
            raise ConfigError(f"{file}: of {saved.model}, and does not say where that can be loaded from: give lm=")
        lm = load(saved.model.source, dtype=saved.model.dtype or "float32")
    check_made_for(lm, saved, file=str(file))
    return FactEdit(
        lm=lm,
        request=saved.request,
        method=saved.method,
        delta=saved.delta.to(device=lm.device),
        settings=saved.settings,
    )


def _probability(scored: TargetScore) -> float:
    """P of a target, as in all metrics: exp(-NLL), the geometric mean over its tokens (docs/method.md §5.2)."""
    return math.exp(-scored.nll)
