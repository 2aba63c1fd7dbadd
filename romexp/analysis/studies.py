"""Groups runs into studies (docs/method.md §6.2).

A study holds everything that was measured on one model and data set, with an entry for each configuration of an editor.
Runs that differ only in their selection of cases, such as shards, are parts of one entry. Runs need not be finished: an
entry has all cases that were measured so far.
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
from romexp.analysis.stored_results import StoredResults
from romexp.analysis.summary import Statistics, Summary, summarize_frame
from romexp.results.find import FoundRun
from romexp.results.settings import Json, differing, short, sort_key, telling

EDITOR_ORDER = (
    "none", "ft", "ft_l", "ft_attn", "kn", "ke", "ke_zsre", "ke_cf", "mend", "mend_zsre", "mend_cf", "rome",
)  # fmt: skip
"""Editors in the order of the paper's tables. All others come after these."""

STUDY_FIELDS = ("model", "dataset", "evaluator", "references")
"""Parts of an identity that all entries of a study share."""


@dataclass(frozen=True, kw_only=True)
class Entry:
    """One configuration of one editor.

    Attributes:
        label: row label. It names the settings that differ from the editor's other entries, as in `ROME (layer=3)`.
        editor: the editor's option name, for example `ft_l`.
        name: the editor's own label, for example `FT+L`.
        settings: the editor's hyper-parameters, as in the identity of the runs.
        identity: everything that affects the result, without the selection of cases.
        distinct: by dotted name, the fields in which the editor's entries in this study differ, without those that
            follow from others (`results.settings.telling`).
        runs: the runs that the cases come from, in order of time.
        results: each case once, in order of case id.
        apart: it lacks cases on which the study's other entries are compared (`analysis.shared_cases`).
    """

    label: str
    editor: str
    name: str
    settings: Json
    identity: Json
    distinct: Mapping[str, Any]
    runs: tuple[FoundRun, ...]
    results: StoredResults
    apart: bool = False

    @property
    def frame(self) -> pd.DataFrame:
        """Metrics by case (`analysis.summary.case_frame`). Callers must not change it."""
        return self.results.frame

    @cached_property
    def summary(self) -> Summary:
        """Means with intervals before and after the edit (`analysis.summary.summarize`). Cached; do not change it."""
        return summarize_frame(self.frame)

    @property
    def edits(self) -> bool:
        """Whether the editor edits the model. False for `editor=none`."""
        return edits(self.editor)

    @property
    def metrics(self) -> Mapping[str, Statistics]:
        """Statistics of the edited model, by metric."""
        return self.summary["post"]

    @property
    def not_tuned(self) -> Mapping[str, Any]:
        """Settings that are another model's, by name (`romexp.model_settings`); empty if there are none."""
        return {name: value for run in self.runs for name, value in run.settings_not_tuned.items()}

    @property
    def n_cases(self) -> int:
        """Number of cases that were measured before and after the edit."""
        return int(self.summary["n_cases"])


@dataclass(frozen=True, kw_only=True)
class Study:
    """Everything measured on one model and data set with one evaluator.

    Attributes:
        label: `<model>, <dataset>`, and the settings that differ from other studies with this model and data set.
        model: short name of the model.
        dataset: option name of the data set.
        kind: the set of metrics, `counterfact` or `zsre`.
        identity: the parts of the identity that all entries share.
        entries: the entries, in the paper's order of editors.
        left_out: notes on the cases that the entries do not share, if it was cut to those that they do.
    """

    label: str
    model: str
    dataset: str
    kind: Kind
    identity: Json
    entries: tuple[Entry, ...]
    left_out: tuple[str, ...] = ()

    @property
    def columns(self) -> tuple[str, ...]:
        """The metrics that at least one entry has, in the paper's order."""
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
    def unedited_results(self) -> StoredResults:
        """One result for each case that any entry has measured on the unedited model, from the first such entry.

        Entries that stand apart do not count, unless all do.
        """
        counting = [entry for entry in self.entries if not entry.apart] or self.entries
        return StoredResults.first_of([entry.results.where(entry.results.before) for entry in counting])

    @cached_property
    def unedited(self) -> Summary:
        """Summary of the unedited model, with `n_cases` and `pre`. It is cached, so callers must not change it."""
        return summarize_frame(self.unedited_results.frame.assign(complete=True), sides=("pre",))


@dataclass(frozen=True, kw_only=True)
class Studies:
    """Studies in order of model and data set, and a message for each file, row or run that has a problem."""

    studies: tuple[Study, ...]
    problems: tuple[str, ...]


def to_studies(runs: Iterable[FoundRun]) -> Studies:
    """Group and merge the runs of `task=edit`. Other runs are ignored."""
    problems: list[str] = []
    groups: dict[str, list[FoundRun]] = {}
    for run in runs:
        if run.task == "edit":
            groups.setdefault(_study_key(run), []).append(run)
    studies = [study for group in groups.values() if (study := _study(group, problems)) is not None]
    studies.sort(key=lambda study: (study.model, study.kind, study.dataset, _text(study.identity)))
    return Studies(studies=tuple(_labelled(studies)), problems=tuple(problems))


def editor_position(editor: str) -> tuple[int, str]:
    """Sort key for option names of editors: the paper's order, then by name."""
    return (EDITOR_ORDER.index(editor) if editor in EDITOR_ORDER else len(EDITOR_ORDER), editor)


def edits(editor: str) -> bool:
    """Whether an option name is that of an editor that edits. The empty name stands for the unedited model."""
    return editor not in ("", "none")


def _study_key(run: FoundRun) -> str:
    names = {key: run.names.get(key) for key in ("model", "dataset")}
    return _text({"names": names, "identity": _shared(run.same_study())})


def _shared(identity: Json) -> dict[str, Any]:
    return {name: identity.get(name) for name in STUDY_FIELDS}


def _text(value: Any) -> str:
    return json.dumps(value, sort_keys=True)


def _study(runs: Sequence[FoundRun], problems: list[str]) -> Study | None:
    """Merge the runs of one study. None if none of their rows can be read."""
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
    """An entry for each configuration. Labels are unique, since reports identify entries by them."""
    by_editor: dict[str, list[Merged]] = {}
    editors_by_label: dict[str, set[str]] = {}
    for part in merged:
        by_editor.setdefault(_editor(part), []).append(part)
        editors_by_label.setdefault(part.runs[0].editor_label, set()).add(_editor(part))
    entries = []
    for editor, parts in by_editor.items():
        for part, distinct in zip(parts, telling(differing([p.runs[0].same_study() for p in parts])), strict=True):
            identity, name = part.runs[0].same_study(), part.runs[0].editor_label
            # Two options may have the same label, for example if one is a copy of FT+L with other settings.
            shown = ({"editor": editor} if len(editors_by_label[name]) > 1 else {}) | distinct
            entry = Entry(
                label=f"{name} ({short(shown)})" if shown else name,
                editor=editor,
                name=name,
                settings=identity.get("editor", {}),
                identity=identity,
                distinct=distinct,
                runs=part.runs,
                results=part.results,
            )
            entries.append(entry)
    return entries


def _editor(merged: Merged) -> str:
    return str(merged.runs[0].names.get("editor", ""))


def _kind(entries: Sequence[Entry]) -> Kind:
    """Facts without an old answer are measured as zsRE's are. Beside facts that have one they do not decide."""
    measured = {column.rpartition("/")[2] for entry in entries for column in entry.frame.columns}
    return "zsre" if "ES" not in measured and "Efficacy" in measured else "counterfact"


def _labelled(studies: Sequence[Study]) -> list[Study]:
    """Give each study its label: model and data set, and the settings in which studies of these differ.

    Digests of reference texts are long, so they are part of the label only if the studies differ in nothing else.
    """
    labelled = []
    for study in studies:
        similar = [other for other in studies if (other.model, other.dataset) == (study.model, study.dataset)]
        label = f"{study.model}, {study.dataset}"
        if len(similar) > 1:
            without_digests = [short(fields) for fields in differing([_without_references(s) for s in similar])]
            with_digests = [short(fields) for fields in differing([other.identity for other in similar])]
            shown = without_digests if len(set(without_digests)) == len(similar) else with_digests
            label += f" ({shown[[other is study for other in similar].index(True)]})"
        labelled.append(replace(study, label=label))
    return labelled


def _without_references(study: Study) -> Json:
    return {name: value for name, value in study.identity.items() if name != "references"}
