"""What studies are called on the page, in words: `minifact · 100 shared cases`."""

from __future__ import annotations

from romexp.analysis.studies import Study
from romexp.reporting.page.cases import shared_ids
from romexp.reporting.tables.traces import TraceStudy

NAMES = {"counterfact": "CounterFact", "zsre": "zsRE"}
"""Data sets that are written otherwise than their option."""
SETTINGS = {
    "generation=on": "with generated texts",
    "generation=off": "without generated texts",
    "evaluator.generation=on": "with generated texts",
    "evaluator.generation=off": "without generated texts",
}
"""Settings that have words of their own; others stand as on the command line."""


def study_heading(study: Study, compared: Study) -> str:
    """Model, data set, the settings in which it differs from other studies of these, and the number of cases.

    Args:
        compared: the study on the cases that its entries share.
    """
    return f"{study_name(study)} · {case_count(study, compared)}"


def study_name(study: Study) -> str:
    """The same without the number of cases."""
    return _named(study.model, study.dataset, study.label)


def trace_name(study: TraceStudy) -> str:
    """Likewise for traces."""
    return _named(study.model, study.dataset, study.label)


def case_count(study: Study, compared: Study) -> str:
    """`100 shared cases`; `100 cases` where there is one editor, or nothing is shared."""
    editing = [entry for entry in compared.entries if entry.edits and not entry.apart]
    shared = len(shared_ids(compared))
    if len(editing) > 1 and shared:
        return f"{shared} shared case{'' if shared == 1 else 's'}"
    count = len(study.unedited_results)
    return f"{count} case{'' if count == 1 else 's'}"


def _named(model: str, dataset: str, label: str) -> str:
    own = dataset.removeprefix(f"{model}_") if dataset != model else ""
    rest = NAMES.get(own, own.replace("_", " "))
    name = f"{model} on {rest}" if rest else model
    settings = label.removeprefix(f"{model}, {dataset}").strip()
    if settings.startswith("(") and settings.endswith(")"):
        words = [_in_words(part) for part in settings[1:-1].split(", ")]
        name += f", {', '.join(words)}"
    return name


def _in_words(setting: str) -> str:
    name, _, value = setting.partition("=")
    if name in ("digest", "model.digest"):
        return f"weights {value[:6]}"
    return SETTINGS.get(setting, setting)
