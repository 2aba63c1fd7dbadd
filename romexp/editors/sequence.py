"""Editing one model many times: batches of requests that are written together, one batch after another
(docs/method.md §12).

What a sequence has done so far is a value, `SequenceState`, that `edit_together` takes and returns. Nothing is kept in
an editor or a module, so two sequences in one process share nothing.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import torch
from safetensors import SafetensorError

from romexp.editors.base import Edit, Editor, Resources
from romexp.editors.filters import filtered, without_filter
from romexp.editors.many.normal_equation import compress
from romexp.errors import DataError, RecordError
from romexp.facts import EditRequest
from romexp.lm.apply_delta import applied
from romexp.lm.model import LanguageModel
from romexp.lm.tensor_files import read_tensors, write_tensors
from romexp.lm.weight_delta import WeightDelta, total

Outcome = Mapping[str, Any] | RecordError
"""The diagnostics of one request of a batch, or the error for which it is not part of the edit."""


@dataclass(frozen=True, kw_only=True, eq=False)
class SequenceState:
    """What a sequence of edits has done so far. The default is the start of a sequence.

    Attributes:
        delta: the sum of its edits.
        keys: for editors that keep them, the keys of all earlier requests by layer (keys × D), float32 on the CPU.
            They are at most D rows, with the same sum of k kᵀ.
        statistics: for editors that keep them, running statistics by name, on the CPU.
        n_edits: number of requests that were written.
    """

    delta: WeightDelta = field(default_factory=WeightDelta)
    keys: Mapping[int, torch.Tensor] = field(default_factory=dict)
    statistics: Mapping[str, torch.Tensor] = field(default_factory=dict)
    n_edits: int = 0

    def as_saved(self) -> SequenceState:
        """The same values in the memory layout that `load` gives. Matrix products round by layout, so a sequence that
        goes on from this state has the same bits as one that goes on from the file.
        """
        tensors = {name: tensor.contiguous() for name, tensor in self.delta.tensors().items()}
        return SequenceState(
            delta=WeightDelta.from_tensors(tensors, where=Path()),
            keys={layer: keys.contiguous() for layer, keys in self.keys.items()},
            statistics={name: value.contiguous() for name, value in self.statistics.items()},
            n_edits=self.n_edits,
        )

    def save(self, path: Path, *, metadata: Mapping[str, object] | None = None) -> None:
        """Write a safetensors file, atomically.

        Args:
            metadata: further JSON-ready entries.
        """
        tensors = {f"delta.{name}": tensor for name, tensor in self.delta.tensors().items()}
        tensors |= {f"keys.{layer}": keys for layer, keys in self.keys.items()}
        tensors |= {f"statistics.{name}": value for name, value in self.statistics.items()}
        said = {"n_edits": self.n_edits, "layers": sorted(self.keys), **(metadata or {})}
        write_tensors(path, tensors, {"sequence": json.dumps(said)})

    @classmethod
    def load(cls, path: Path) -> tuple[SequenceState, dict[str, Any]]:
        """Read a file that `save` wrote, and its metadata.

        Raises:
            DataError: the file is missing or damaged, or is not of this kind.
        """
        try:
            metadata, tensors = read_tensors(path)
            said = json.loads(metadata["sequence"])
            n_edits, keys = int(said["n_edits"]), {layer: tensors[f"keys.{layer}"] for layer in said["layers"]}
        except (OSError, SafetensorError, KeyError, ValueError, TypeError) as error:
            raise DataError(f"{path}: not a state of a sequence of edits ({error})") from error
        terms, statistics = (
            {name.removeprefix(part): t for name, t in tensors.items() if name.startswith(part)}
            for part in ("delta.", "statistics.")
        )
        delta = WeightDelta.from_tensors(terms, where=path)
        return cls(delta=delta, keys=keys, statistics=statistics, n_edits=n_edits), said


@dataclass(frozen=True, kw_only=True, eq=False)
class JointEdit:
    """The edit of one batch of requests.

    Attributes:
        delta: what is added to the weights of the *original* model: this batch's edit and all earlier ones, filtered
            if the editor has a filter.
        state: the sequence after this batch.
        outcomes: for each request, in order, its diagnostics; or the error for which it is not part of the edit.
    """

    delta: WeightDelta
    state: SequenceState
    outcomes: tuple[Outcome, ...]


@dataclass(frozen=True, kw_only=True, eq=False)
class BatchEdit:
    """What a `JointEditor` writes for one batch of requests.

    Attributes:
        delta: the edit of this batch alone, unfiltered.
        outcomes: of each request, in order.
        statistics: the sequence's running statistics after this batch.
        keys: by layer the keys of the requests without errors whose values later batches must keep (requests × D), as
            they are on the model that holds this edit too; empty if the editor keeps none.
    """

    delta: WeightDelta
    outcomes: tuple[Outcome, ...]
    statistics: Mapping[str, torch.Tensor] = field(default_factory=dict)
    keys: Mapping[int, torch.Tensor] = field(default_factory=dict)


@runtime_checkable
class JointEditor(Protocol):
    """An editor that can write several requests by one edit."""

    def together(
        self, lm: LanguageModel, requests: Sequence[EditRequest], *, resources: Resources, state: SequenceState
    ) -> BatchEdit:
        """One edit for all requests, to be added to those of `state`.

        Args:
            lm: the original model; it does not change.
            state: the sequence so far.
        """
        ...

    def keys_after(
        self, lm: LanguageModel, requests: Sequence[EditRequest], *, resources: Resources, delta: WeightDelta
    ) -> Mapping[int, torch.Tensor]:
        """The keys of requests by layer (requests × D) on the model that holds `delta`; empty if none are kept."""
        ...


@runtime_checkable
class PreparedEditor(Protocol):
    """An editor of single requests that takes something from the model as it was loaded, such as contexts."""

    def prepared(self, lm: LanguageModel, *, resources: Resources) -> Editor:
        """The editor with all that it takes from the original model, so that it can go on to edit an edited one."""
        ...


def edit_together(
    editor: Editor,
    lm: LanguageModel,
    requests: Sequence[EditRequest],
    *,
    resources: Resources,
    state: SequenceState | None = None,
) -> JointEdit:
    """Edit a batch of requests, on the model that the sequence has left so far.

    A `JointEditor` writes them by one edit. Any other editor writes them one after another, each on the model that the
    one before has left.

    Args:
        lm: the original model; it does not change.
        state: the sequence so far; None begins one.

    Raises:
        ConfigError: a setting of the editor does not fit the model.
    """
    _ = lm.digest  # It is computed once, and must be that of the original weights.
    before, plain, chosen = state or SequenceState(), without_filter(editor), getattr(editor, "filter", None)
    if not isinstance(plain, JointEditor):
        after, outcomes = _one_by_one(plain, lm, requests, resources, before, chosen)
        return JointEdit(delta=measured_delta(editor, lm, after), state=after, outcomes=outcomes)
    batch = plain.together(lm, requests, resources=resources, state=before)
    step = filtered(lm, batch.delta, chosen, before=before.delta) if chosen == "rect" else batch.delta
    written = [r for r, outcome in zip(requests, batch.outcomes, strict=True) if not isinstance(outcome, RecordError)]
    after = replace(before, delta=total([before.delta, step]), n_edits=before.n_edits + len(written))
    if written:
        new = batch.keys
        if chosen == "rect":  # It has changed the edit with which they were read.
            new = plain.keys_after(lm, written, resources=resources, delta=after.delta)
        after = replace(after, keys=_kept(before.keys, new), statistics=batch.statistics)
    return JointEdit(delta=measured_delta(editor, lm, after), state=after, outcomes=batch.outcomes)


def _kept(earlier: Mapping[int, torch.Tensor], new: Mapping[int, torch.Tensor]) -> dict[int, torch.Tensor]:
    """The earlier keys and those of a batch by layer, on the CPU."""
    return {
        layer: compress(torch.cat([earlier[layer], keys.cpu()]) if layer in earlier else keys.cpu())
        for layer, keys in new.items()
    }


def _one_by_one(
    editor: Editor,
    lm: LanguageModel,
    requests: Sequence[EditRequest],
    resources: Resources,
    state: SequenceState,
    chosen: str | None,
) -> tuple[SequenceState, tuple[Outcome, ...]]:
    """Write each request by an edit of its own, on the model that the edits before it have left."""
    outcomes: list[Outcome] = []
    delta, n_edits = state.delta, state.n_edits
    if isinstance(editor, PreparedEditor):
        editor = editor.prepared(lm, resources=resources)
    for request in requests:
        with applied(lm, delta):
            (made,) = editor(lm, [request], resources=resources)
        outcomes.append(made.diagnostics if isinstance(made, Edit) else made)
        if isinstance(made, Edit):
            step = filtered(lm, made.delta, chosen, before=delta) if chosen == "rect" else made.delta
            delta, n_edits = total([delta, step]), n_edits + 1
    return SequenceState(delta=delta, keys=state.keys, n_edits=n_edits), tuple(outcomes)


def measured_delta(editor: Editor, lm: LanguageModel, state: SequenceState) -> WeightDelta:
    """The sum of a sequence's edits as it is added to the original model.

    PRUNE is applied to the sum, and the next edit goes on from the sum without it. RECT was applied to each step.
    """
    return filtered(lm, state.delta, "prune") if getattr(editor, "filter", None) == "prune" else state.delta
