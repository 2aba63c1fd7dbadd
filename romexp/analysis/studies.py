"""From runs to studies: what was measured on one model and data set, an entry for each configuration of an editor.

Runs that differ only in their choice of cases (shards, other limits) are parts of one entry. Nothing here asks for
finished runs: an entry holds the cases that there are.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import pandas as pd

from romexp.analysis.merging import Merged, merge
from romexp.analysis.metrics import Kind, columns_of
from romexp.analysis.summary import Statistics, Summary, case_frame, summarize, summarize_frame
from romexp.results.find import FoundRun
from romexp.results.rows import CaseResult
from romexp.results.settings import Json, differing, short, sort_key

EDITOR_ORDER = (
    "none", "ft", "ft_l", "ft_attn", "kn", "ke", "ke_zsre", "ke_cf", "mend", "mend_zsre", "mend_cf", "rome",
)  # fmt: skip
"""The paper's order of rows; other editors come after."""

STUDY_FIELDS = ("model", "dataset", "evaluator", "references")
"""Parts of an identity that all entries of a study share."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One configuration of one editor.

    Attributes:
        label: row label; names the settings that tell it from the editor's other entries, as `ROME (layer=3)`.
        editor: the editor's option name, as `ft_l`.
        name: the editor's own label, as `FT+L`.
        settings: its hyper-parameters, as the runs' identity has them.
        identity: everything that affects the result, without the choice of cases.
        distinct: the fields, by dotted name, in which the editor's entries in this study differ.
        runs: where the cases come from, in order of time.
        results: every case once, by case id.
    """

    label: str
    editor: str
    name: str
    settings: Json
    identity: Json
    distinct: Mapping[str, Any]
    runs: tuple[FoundRun, ...]
    results: tuple[CaseResult, ...]

    @cached_property
    def frame(self) -> pd.DataFrame:
        """Metrics by case (`analysis.summary.case_frame`). Made once; treat as read-only."""
        return case_frame(self.results)

    @cached_property
    def summary(self) -> Summary:
        """Both sides, means with intervals (`analysis.summary.summarize`). Made once; treat as read-only."""
        return summarize_frame(self.frame)

    @property
    def edits(self) -> bool:
        """False for `editor=none`, which is the unedited model once more."""
        return edits(self.editor)

    @property
    def metrics(self) -> Mapping[str, Statistics]:
        """Statistics of the edited model, by metric."""
        return self.summary["post"]

    @property
    def n_cases(self) -> int:
        """Cases measured before and after the edit."""
        return int(self.summary["n_cases"])


@dataclass(frozen=True, kw_only=True)
class Study:
    """Everything measured on one model and data set with one evaluator.

    Attributes:
        label: `<model>, <dataset>`, and what tells it from another study of these.
        model: short name of the model.
        dataset: option name of the data set.
        kind: which metrics: `counterfact` or `zsre`.
        identity: what the entries share.
        entries: in the paper's order of editors.
    """

    label: str
    model: str
    dataset: str
    kind: Kind
    identity: Json
    entries: tuple[Entry, ...]

    @property
    def columns(self) -> tuple[str, ...]:
        """The paper's columns that at least one entry has."""
        names = columns_of(self.kind)
        return tuple(n for n in names if any(n in e.metrics or n in e.summary["pre"] for e in self.entries))

    @property
    def by_editor(self) -> dict[str, list[Entry]]:
        """Entries by the editor's option name."""
        groups: dict[str, list[Entry]] = {}
        for entry in self.entries:
            groups.setdefault(entry.editor, []).append(entry)
        return groups

    @cached_property
    def unedited_results(self) -> tuple[CaseResult, ...]:
        """The unedited side of every case that any entry has; of several entries the first counts."""
        found: dict[int, CaseResult] = {}
        for entry in self.entries:
            for result in entry.results:
                if result.before is not None:
                    found.setdefault(result.case_id, result)
        return tuple(found[number] for number in sorted(found))

    @cached_property
    def unedited(self) -> Summary:
        """`n_cases` and `pre` of the unedited model. Made once; treat as read-only."""
        return summarize(self.unedited_results, sides=("pre",))


@dataclass(frozen=True, kw_only=True)
class Studies:
    """Studies by model and data set, and a line for everything that could not be read or does not agree."""

    studies: tuple[Study, ...]
    problems: tuple[str, ...]


def to_studies(runs: Iterable[FoundRun]) -> Studies:
    """Group and merge the runs of `task=edit`; others are left alone."""
    problems: list[str] = []
    groups: dict[str, list[FoundRun]] = {}
    for run in runs:
        if run.task == "edit":
            groups.setdefault(_study_key(run), []).append(run)
    studies = [study for group in groups.values() if (study := _study(group, problems)) is not None]
    studies.sort(key=lambda study: (study.model, study.kind, study.dataset, _text(study.identity)))
    return Studies(studies=tuple(_labelled(studies)), problems=tuple(problems))


def editor_position(editor: str) -> tuple[int, str]:
    """Sorts option names of editors into the paper's order."""
    return (EDITOR_ORDER.index(editor) if editor in EDITOR_ORDER else len(EDITOR_ORDER), editor)


def edits(editor: str) -> bool:
    """Whether an option name is one of an editor that edits; empty stands for the unedited model."""
    return editor not in ("", "none")


def _study_key(run: FoundRun) -> str:
    names = {key: run.names.get(key) for key in ("model", "dataset")}
    return _text({"names": names, "identity": _shared(run.same_study())})


def _shared(identity: Json) -> dict[str, Any]:
    return {name: identity.get(name) for name in STUDY_FIELDS}


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _study(runs: Sequence[FoundRun], problems: list[str]) -> Study | None:
    """None where not one row could be read."""
    groups: dict[str, list[FoundRun]] = {}
    for run in runs:
        groups.setdefault(_text({"editor": run.names.get("editor"), "of": run.same_study()}), []).append(run)
    merged = []
    for group in groups.values():
        result = merge(group)
        problems += result.problems
        if result.results:
            merged.append(result)
    if not merged:
        return None
    first = merged[0].runs[0]
    entries = _entries(merged)
    entries.sort(key=lambda e: (editor_position(e.editor), [sort_key(v) for v in e.distinct.values()], e.label))
    return Study(
        label="",
        model=str(first.names.get("model", "")),
        dataset=str(first.names.get("dataset", "")),
        kind=_kind(entries),
        identity=_shared(first.same_study()),
        entries=tuple(entries),
    )


def _entries(merged: Sequence[Merged]) -> list[Entry]:
    """An entry for each configuration. No two have the same label: rows, colours and choices are told apart by it."""
    editors: dict[str, list[Merged]] = {}
    called: dict[str, set[str]] = {}
    for each in merged:
        editors.setdefault(_editor(each), []).append(each)
        called.setdefault(each.runs[0].editor_label, set()).add(_editor(each))
    out = []
    for editor, same in editors.items():
        for each, distinct in zip(same, differing([m.runs[0].same_study() for m in same]), strict=True):
            identity, name = each.runs[0].same_study(), each.runs[0].editor_label
            # Two options may carry one name: a copy of FT+L with other settings.
            told = ({"editor": editor} if len(called[name]) > 1 else {}) | distinct
            entry = Entry(
                label=f"{name} ({short(told)})" if told else name,
                editor=editor,
                name=name,
                settings=identity.get("editor", {}),
                identity=identity,
                distinct=distinct,
                runs=each.runs,
                results=each.results,
            )
            out.append(entry)
    return out


def _editor(merged: Merged) -> str:
    return str(merged.runs[0].names.get("editor", ""))


def _kind(entries: Sequence[Entry]) -> Kind:
    sides = (side or {} for entry in entries for result in entry.results for side in (result.before, result.after))
    return "zsre" if any("rewrite_prompts_correct" in side for side in sides) else "counterfact"


def _labelled(studies: Sequence[Study]) -> list[Study]:
    """Give each its label: model and data set, and the differing settings where two share these.

    Digests of reference texts are named only where nothing else tells the studies apart: without generation there are
    no texts.
    """
    out = []
    for study in studies:
        same = [other for other in studies if (other.model, other.dataset) == (study.model, study.dataset)]
        label = f"{study.model}, {study.dataset}"
        if len(same) > 1:
            plain = [short(each) for each in differing([_without_texts(other) for other in same])]
            whole = [short(each) for each in differing([other.identity for other in same])]
            shown = plain if len(set(plain)) == len(same) else whole
            label += f" ({shown[[o is study for o in same].index(True)]})"
        out.append(replace(study, label=label))
    return out


def _without_texts(study: Study) -> Json:
    return {name: value for name, value in study.identity.items() if name != "references"}
