"""Takes the texts of a human evaluation from the generated texts of one study."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from romexp.analysis.studies import Entry, Study
from romexp.analysis.summary import UNEDITED
from romexp.errors import ConfigError, DataError
from romexp.facts import EditRequest, with_answer
from romexp.human_eval.questionnaire import Texts
from romexp.results.rows import CaseResult, Side


def pick_study(studies: Sequence[Study], systems: Sequence[str], *, where: str) -> Study:
    """The study in which all systems have generated texts.

    Args:
        studies: the studies to choose from.
        systems: option names of editors, and `unedited`.
        where: the folders that were searched, for error messages.

    Raises:
        DataError: no study has texts of all systems.
        ConfigError: several studies have them, or a system has several configurations in the study.
    """
    complete = [study for study in studies if all(_texts(study, system) for system in systems)]
    if not complete:
        found = sorted({e.editor for study in studies for e in study.entries if _generated(e.results, "post")})
        editors = [system for system in systems if system != UNEDITED]
        raise DataError(
            f"task.editors: no model and data set below {where} has finished runs with generated texts of "
            f"{', '.join(editors)} (there are: {', '.join(found) or 'none'}): romexp -m editor={','.join(editors)}"
        )
    if len(complete) > 1:
        labels = "; ".join(study.label for study in complete)
        raise ConfigError(f"several studies below {where} fit ({labels}): name the folder of one by task.results=[…]")
    (study,) = complete
    for system in systems:
        if len(entries := _entries(study, system)) > 1:
            folders = ", ".join(str(run.path) for entry in entries for run in entry.runs)
            raise ConfigError(
                f"{system} was run in {len(entries)} ways ({folders}): name the folders to compare by task.results=[…]"
            )
    return study


def texts_of(study: Study, systems: Sequence[str]) -> dict[str, Texts]:
    """The texts of each system, by case id: one text for each generation prompt."""
    return {system: _texts(study, system) for system in systems}


def statements_of(study: Study) -> dict[int, str]:
    """The counterfactual of each case as a sentence, by case id.

    >>> _statement(EditRequest(prompt="{} competes in", subject="Ada", target_new="judo"))
    'Ada competes in judo.'
    """
    return {result.case_id: _statement(result.request) for entry in study.entries for result in entry.results}


def _statement(request: EditRequest) -> str:
    return with_answer(request.text, request.target_new).strip().rstrip(".") + "."


def _entries(study: Study, system: str) -> list[Entry]:
    return [e for e in study.entries if e.editor == system and _generated(e.results, "post")]


def _texts(study: Study, system: str) -> Texts:
    if system == UNEDITED:
        return _generated(study.unedited_results, "pre")
    entries = _entries(study, system)
    return _generated(entries[0].results, "post") if entries else {}


def _generated(results: Iterable[CaseResult], side: Side) -> dict[int, list[str]]:
    """The generated texts of each case that has some, on one side of the edit."""
    texts = {result.case_id: (result.measured(side) or {}).get("text") for result in results}
    return {case_id: list(case_texts) for case_id, case_texts in texts.items() if case_texts}
