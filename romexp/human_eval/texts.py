"""Where a human evaluation's texts come from: one study's generations, by system."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from romexp.analysis.studies import Entry, Study
from romexp.analysis.summary import UNEDITED
from romexp.errors import ConfigError, DataError
from romexp.facts import EditRequest
from romexp.human_eval.questionnaire import Texts
from romexp.results.rows import CaseResult, Side


def pick_study(studies: Sequence[Study], systems: Sequence[str], *, where: str) -> Study:
    """The one study in which every system has generated texts.

    Args:
        systems: option names of editors, and `unedited`.
        where: the folders that were searched, for messages.

    Raises:
        DataError: none has them all.
        ConfigError: several have, or the one was done in several ways.
    """
    fitting = [study for study in studies if all(_texts(study, system) for system in systems)]
    if not fitting:
        found = sorted({e.editor for study in studies for e in study.entries if _generated(e.results, "post")})
        editors = [system for system in systems if system != UNEDITED]
        raise DataError(
            f"task.editors: no model and data set below {where} has finished runs with generated texts of "
            f"{', '.join(editors)} (there are: {', '.join(found) or 'none'}): romexp -m editor={','.join(editors)}"
        )
    if len(fitting) > 1:
        labels = "; ".join(study.label for study in fitting)
        raise ConfigError(f"several studies below {where} fit ({labels}): name the folder of one by task.results=[…]")
    (study,) = fitting
    for system in systems:
        if len(entries := _entries(study, system)) > 1:
            folders = ", ".join(str(run.path) for entry in entries for run in entry.runs)
            raise ConfigError(
                f"{system} was run in {len(entries)} ways ({folders}): name the folders to compare by task.results=[…]"
            )
    return study


def texts_of(study: Study, systems: Sequence[str]) -> dict[str, Texts]:
    """By system and case id, the texts of each generation prompt."""
    return {system: _texts(study, system) for system in systems}


def statements_of(study: Study) -> dict[int, str]:
    """The counterfactuals as sentences, by case id.

    >>> _statement(EditRequest(prompt="{} competes in", subject="Ada", target_new="judo"))
    'Ada competes in judo.'
    """
    return {result.case_id: _statement(result.request) for entry in study.entries for result in entry.results}


def _statement(request: EditRequest) -> str:
    return f"{request.text} {request.target_new.strip()}".strip().rstrip(".") + "."


def _entries(study: Study, system: str) -> list[Entry]:
    return [e for e in study.entries if e.editor == system and _generated(e.results, "post")]


def _texts(study: Study, system: str) -> Texts:
    if system == UNEDITED:
        return _generated(study.unedited_results, "pre")
    entries = _entries(study, system)
    return _generated(entries[0].results, "post") if entries else {}


def _generated(results: Iterable[CaseResult], side: Side) -> dict[int, list[str]]:
    texts = {result.case_id: (result.measured(side) or {}).get("text") for result in results}
    return {case_id: list(own) for case_id, own in texts.items() if own}
