"""`task=human_eval`: writes a blind questionnaire on generated texts, or scores its answers (paper App. J)."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from romexp.analysis.studies import Study, to_studies
from romexp.cli.job import Job, Outcome
from romexp.errors import ConfigError, DataError
from romexp.files import read_json, write_text
from romexp.human_eval.answers import Answers, answer_files, check_key, questionnaires_named, read_answers
from romexp.human_eval.questionnaire import Questionnaire, draw, questionnaire_page
from romexp.human_eval.scores import score, score_tables
from romexp.human_eval.texts import pick_study, statements_of, texts_of
from romexp.results.find import find_runs
from romexp.results.folder import RunFolder
from romexp.results.identity import digest
from romexp.tasks.run import open_run
from romexp.tracking import NoTracker

log = logging.getLogger(__name__)

PAGE, KEY, SCORES, RANKINGS = "questionnaire.html", "key.json", "scores.json", "rankings.jsonl"


@dataclass(frozen=True, kw_only=True)
class HumanEvaluation:
    """Without answers: draw cases and write the questionnaire. With answers: score them.

    The paper asked 15 people to judge 10 of 50 counterfactuals each, so that three people judge every case.

    Attributes:
        answers: path of a returned file, or of a folder of such files; None writes the questionnaire.
        results: folders to look for finished edit runs in, at any depth; None takes `outputs`.
        editors: option names of the editors whose texts are compared; `unedited` stands for the unedited model. The
            tables begin with the pairs of the last one and each of the others.
        cases: number of counterfactuals to draw; all of them if there are fewer.
        participants: number of people that are planned for. If more take part, they get the first people's plans again.
        per_participant: number of cases that one person judges; None takes all of them.
    """

    answers: str | None = None
    results: tuple[str, ...] | None = None
    editors: tuple[str, ...] = ("unedited", "ft_l", "rome")
    cases: int = 50
    participants: int = 15
    per_participant: int | None = 10

    def __post_init__(self) -> None:
        if min(self.cases, self.participants, self.per_participant or 1) < 1:
            raise ConfigError("task: cases, participants and per_participant must be at least 1")
        if len(self.editors) < 2 or len(set(self.editors)) < len(self.editors):
            raise ConfigError(f"task.editors: expected two or more different names, not {list(self.editors)}")

    def __call__(self, job: Job) -> Outcome:
        """Write the questionnaire, or score the answers.

        Raises:
            ConfigError: results of several studies, or of one editor in several configurations, could be meant.
            DataError: there are no results or answers that can be used.
        """
        return self._ask(job) if self.answers is None else self._score(job, Path(self.answers).expanduser())

    def _ask(self, job: Job) -> Outcome:
        study = self._study(job)
        questionnaire = draw(
            texts_of(study, self.editors),
            statements_of(study),
            cases=self.cases,
            participants=self.participants,
            per_participant=self.per_participant,
            seed=job.seed,
        )
        names = {"task": "human_eval", "model": study.model, "dataset": study.dataset}
        identity = {"task": "human_eval", "questionnaire": questionnaire.digest, "editors": list(self.editors)}
        with open_run(
            replace(job, tracker=NoTracker()),
            names=names,
            identity=identity,
            facts={"seed": job.seed},
            lacking=lambda folder, manifest: _lacking(folder, questionnaire.digest),
        ) as run:
            folder = run.folder.path
            if not run.was_done:
                with run.session(name=questionnaire.digest, group=study.label, job_type="human_eval"):
                    write_text(folder / PAGE, questionnaire_page(questionnaire))
                    key = questionnaire.key() | self._provenance(study)
                    write_text(folder / KEY, json.dumps(key, indent=1, ensure_ascii=False) + "\n")
        return Outcome(lines=self._next_steps(folder, questionnaire))

    def _study(self, job: Job) -> Study:
        roots = job.roots(self.results)
        found = find_runs(roots)
        for problem in found.problems:
            log.warning("%s", problem)
        studies = to_studies(run for run in found.runs if run.status == "done")
        for problem in studies.problems:
            log.warning("%s", problem)
        return pick_study(studies.studies, self.editors, where=", ".join(str(root) for root in roots))

    def _provenance(self, study: Study) -> dict[str, Any]:
        labels = {entry.editor: entry.name for entry in study.entries}
        runs = [str(run.path) for entry in study.entries if entry.editor in self.editors for run in entry.runs]
        systems = {editor: labels.get(editor, editor) for editor in self.editors}
        return {"systems": systems, "model": study.model, "dataset": study.dataset, "runs": runs}

    def _next_steps(self, folder: Path, questionnaire: Questionnaire) -> list[str]:
        count = len(questionnaire.items)
        lines = [
            f"questionnaire: {folder / PAGE} ({count} cases, {len(questionnaire.plan[0])} for each participant)",
            f"key, not to be shown to participants: {folder / KEY}",
            f"give each of {len(questionnaire.plan)} people the page and a number from 1; score what they return with",
            f"  romexp task=human_eval output_dir={folder} answers=<folder of their files>",
        ]
        if count < self.cases:
            lines.append(f"only {count} cases could be drawn, {self.cases} were wanted")
        if questionnaire.left_out:
            lines.append(f"left out: {questionnaire.left_out} cases, for which no prompt has texts that all differ")
        return lines

    def _score(self, job: Job, path: Path) -> Outcome:
        files = answer_files(path)
        folder, key = find_key(job, questionnaires_named(files))
        answers = read_answers(files, key)
        for line in answers.set_aside:
            log.warning("set aside: %s", line)
        if not answers.rankings:
            raise DataError(f"answers: not one of {len(files)} files in {path} could be used: {answers.set_aside[0]}")
        scores = score(answers.rankings, list(key["systems"]), seed=job.seed)
        written = _write_scores(folder, scores, answers)
        lines = [
            f"answers: {len(answers.files)} files used, {len(answers.set_aside)} set aside",
            "ratio: how often the first is ranked before the second, over how often after; the paper's is of GPT-2 XL",
            f"scores: {written}",
        ]
        return Outcome(tables=score_tables(scores, key["systems"]), lines=lines)


def find_key(job: Job, named: Sequence[str]) -> tuple[Path, dict[str, Any]]:
    """Find the questionnaire that most answers name, in `output_dir` or below `outputs`/human_eval.

    Args:
        named: digests of questionnaires, the one that most answers name first.

    Returns:
        The questionnaire's folder and its key.

    Raises:
        DataError: there is none, or its key cannot be read.
    """
    places = [job.output_dir / KEY] if job.output_dir else sorted((job.outputs / "human_eval").rglob(KEY))
    keys: dict[str, tuple[Path, dict[str, Any]]] = {}
    damaged: list[str] = []
    for place in places:
        try:
            key = _read_key(place)
            keys[key["questionnaire"]] = (place.parent, key)
        except DataError as error:
            damaged.append(str(error))
    if job.output_dir and keys:
        return next(iter(keys.values()))
    if job.output_dir:
        raise DataError(damaged[0])
    for name in named:
        if name in keys:
            return keys[name]
    wanted = ", ".join(named) or "(they name none)"
    where = job.outputs / "human_eval"
    lost = "".join(f"; {problem}" for problem in damaged)
    raise DataError(f"no {KEY} of questionnaire {wanted} below {where}: name its folder by output_dir={lost}")


def _read_key(place: Path) -> dict[str, Any]:
    """The key of a questionnaire.

    Raises:
        DataError: the file cannot be read, or is no key.
    """
    try:
        key: dict[str, Any] = read_json(place)
    except (OSError, ValueError) as error:
        raise DataError(f"{place}: not the key of a questionnaire ({error})") from error
    if fault := check_key(key):
        raise DataError(f"{place}: not the key of a questionnaire ({fault})")
    return key


def _lacking(folder: RunFolder, questionnaire: str) -> str:
    """What a folder lacks of a questionnaire that was written before; empty if nothing."""
    if not (folder.path / PAGE).is_file() or not (folder.path / PAGE).stat().st_size:
        return PAGE
    with suppress(DataError):
        if _read_key(folder.path / KEY)["questionnaire"] == questionnaire:
            return ""
    return f"a readable {KEY}"


def _write_scores(folder: Path, scores: Mapping[str, Any], answers: Answers) -> Path:
    """Write the scores into a folder named by a digest of the rankings, so that scores of other answers are kept."""
    rankings = [asdict(ranking) for ranking in answers.rankings]
    place = folder / "scores" / digest([rankings, list(answers.set_aside)])
    facts = {"files": [str(file) for file in answers.files], "set_aside": list(answers.set_aside)}
    write_text(place / RANKINGS, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rankings))
    write_text(place / SCORES, json.dumps({**facts, **scores}, indent=2, ensure_ascii=False) + "\n")
    return place / SCORES
