"""Groups runs of `task=lifelong` into studies: the same model, cases and steps, with an entry for each editor
(docs/method.md §13.5).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import pandas as pd

from romexp.analysis.lifelong import lifelong_frame, retention_by_age, scores_by_edits, summarize_lifelong
from romexp.analysis.summary import Summary
from romexp.errors import DataError
from romexp.results.find import FoundRun
from romexp.results.rows import Curves
from romexp.results.settings import differing, short

OWN_FIELDS = ("editor", "covariance", "save_deltas")
"""Parts of an identity in which the entries of a study may differ."""


@dataclass(frozen=True, kw_only=True)
class LifelongEntry:
    """One run.

    Attributes:
        label: the editor's label, with the settings that tell entries of this editor apart.
        run: where it comes from.
        frame: metrics by case and time (`lifelong_frame`).
        watch: signs of collapse at 0 edits and at each checkpoint; `step` is the number of edits. It may be empty.
    """

    label: str
    run: FoundRun
    frame: pd.DataFrame
    watch: tuple[Mapping[str, float], ...]

    @property
    def editor(self) -> str:
        """The editor's option name."""
        return str(self.run.names.get("editor", ""))

    @cached_property
    def summary(self) -> Summary:
        """See `summarize_lifelong`."""
        return summarize_lifelong(self.frame)

    @cached_property
    def by_edits(self) -> list[dict[str, Any]]:
        """See `scores_by_edits`."""
        return scores_by_edits(self.frame)

    @cached_property
    def by_age(self) -> list[dict[str, Any]]:
        """See `retention_by_age`."""
        return retention_by_age(self.frame)


@dataclass(frozen=True, kw_only=True)
class LifelongStudy:
    """Runs that differ only in their editor.

    Attributes:
        label: model, data set, number of edits and step, and what tells it apart from other studies of these.
        step: number of cases that are edited together.
    """

    label: str
    model: str
    dataset: str
    step: int
    entries: tuple[LifelongEntry, ...]


def lifelong_studies(runs: Iterable[FoundRun]) -> tuple[list[LifelongStudy], list[str]]:
    """Studies of `task=lifelong`, and one line for each run that cannot be used."""
    groups: dict[str, list[LifelongEntry]] = {}
    problems: list[str] = []
    for run in runs:
        if run.task != "lifelong":
            continue
        try:
            rows = run.rows()
            if not rows:
                raise DataError(f"{run.path}: not one case was measured")
            frame = lifelong_frame(rows)
        except (DataError, KeyError, TypeError, ValueError) as error:
            known = isinstance(error, DataError)
            problems.append(str(error) if known else f"{run.path}: its rows are none of task=lifelong ({error})")
            continue
        watch = tuple(sorted(Curves(path=run.path / "curves.jsonl").rows(), key=lambda point: point["step"]))
        shared = {key: value for key, value in run.identity.items() if key not in OWN_FIELDS}
        names = {key: run.names.get(key) for key in ("model", "dataset")}
        key = json.dumps({"names": names, "identity": shared}, sort_keys=True)
        groups.setdefault(key, []).append(LifelongEntry(label=run.editor_label, run=run, frame=frame, watch=watch))
    return _labelled([_study(entries) for entries in groups.values()]), problems


def _study(entries: Sequence[LifelongEntry]) -> LifelongStudy:
    first = entries[0]
    named: list[LifelongEntry] = []
    for editor in dict.fromkeys(entry.editor for entry in entries):
        own = [entry for entry in entries if entry.editor == editor]
        fields = differing([{key: entry.run.identity.get(key) for key in OWN_FIELDS} for entry in own])
        labels = [
            f"{entry.label} ({short(different)})" if different else entry.label for entry, different in zip(own, fields)
        ]
        named += [replace(entry, label=label) for entry, label in zip(own, labels, strict=True)]
    step = int(first.run.identity.get("step") or 1)
    edits = first.run.identity.get("edits") or max(int(entry.frame["edited_at"].max()) for entry in entries)
    model, dataset = (str(first.run.names.get(key, "")) for key in ("model", "dataset"))
    at_once = "one by one" if step == 1 else f"{step} at a time"
    label = f"{model}, {dataset}, {edits} edits, {at_once}"
    return LifelongStudy(label=label, model=model, dataset=dataset, step=step, entries=tuple(named))


def _labelled(studies: Sequence[LifelongStudy]) -> list[LifelongStudy]:
    """Labels that are equal get what differs."""
    found = []
    for study in studies:
        same = [other for other in studies if other.label == study.label]
        identities = [
            {key: value for key, value in other.entries[0].run.identity.items() if key not in OWN_FIELDS}
            for other in same
        ]
        different = differing(identities)[next(i for i, other in enumerate(same) if other is study)]
        found.append(replace(study, label=f"{study.label}, {short(different)}" if different else study.label))
    return found
