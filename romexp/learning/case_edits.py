"""Training edits from a data set of cases, such as zsRE, CounterFact or minifact (docs/method.md §4.6)."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from romexp.editors.targets import EditText, edit_text
from romexp.errors import ConfigError, DataError
from romexp.facts import Case, check_cases, with_answer
from romexp.learning.edits import EditPool, TrainingEdit, key, pool, shared_subject, usable
from romexp.lm.model import LanguageModel

_log = logging.getLogger(__name__)


class LoadedCases(Protocol):
    """A loaded data set of cases, as `romexp.data` returns it."""

    @property
    def items(self) -> Sequence[Case]: ...

    @property
    def name(self) -> str: ...

    @property
    def path(self) -> str: ...

    @property
    def sha256(self) -> str: ...


class CaseSource(Protocol):
    """A data set of cases (configuration group `dataset`)."""

    def load(self) -> LoadedCases: ...


@dataclass(frozen=True, kw_only=True)
class CaseEdits:
    """One training edit per case: the case's request, judged on its paraphrases.

    The authors did not publish how they made their training records from such data.

    Attributes:
        dataset: the cases to train on.
        test: the test cases, about whose subjects the network must not learn. With None a warning is logged, unless
            `dataset` itself leaves subjects out (`held_out`).
        leave_out_test_subjects: if true, drop training edits about subjects of `test`; if false, such an edit is an
            error.
        rewrite: also judge each edit on its own prompt, as one more paraphrase. A case without paraphrases is always
            judged on its own prompt.
        validation: share of the subjects whose edits are used for validation.

    Raises:
        ConfigError: `validation` is not between 0 and 1.
    """

    dataset: CaseSource
    test: CaseSource | None = None
    leave_out_test_subjects: bool = False
    rewrite: bool = False
    validation: float = 0.1

    def __post_init__(self) -> None:
        if not 0 < self.validation < 1:
            raise ConfigError(f"task.edits.validation: expected a share between 0 and 1, not {self.validation}")

    def load(self, lm: LanguageModel, *, seed: int, cache_dir: Path) -> EditPool:
        """Load the cases and split them (see `EditSource.load`).

        Raises:
            DataError: an edit is about a subject of the test data (the message names it), or too few edits can be used.
            ConfigError: the records of the data set are not cases.
        """
        loaded = self.dataset.load()
        cases = _cases(loaded)
        if self.test is None and getattr(self.dataset, "held_out", None) is None:
            _log.warning(
                "no test data are named, so the network may learn facts about subjects on which it will be evaluated; "
                "name the test data by dataset@task.edits.test=…"
            )
        facts: dict[str, Any] = {"dataset": _facts(loaded, cases)}
        if self.test is not None:
            tested = self.test.load()
            subjects = {case.request.subject for case in _cases(tested)}
            cases = self._without_test_subjects(cases, subjects, loaded.name, tested.name)
            facts["test"] = _facts(tested, tested.items) | {"left_out": len(loaded.items) - len(cases)}
        edits, set_aside = usable(((case.case_id, case) for case in cases), lambda case: self._edit(lm, case))
        if not edits:
            raise DataError(
                f"{loaded.path}: not one of {len(loaded.items)} cases can be trained on {set_aside[:1] or ''}"
            )
        return pool(edits, validation=self.validation, seed=seed, set_aside=set_aside, facts=facts)

    def _without_test_subjects(
        self, cases: Sequence[Case], tested: Iterable[str], name: str, test_name: str
    ) -> Sequence[Case]:
        """The cases about other subjects than the `tested` ones.

        Raises:
            DataError: there are cases about `tested` subjects, and `leave_out_test_subjects` is false.
        """
        if self.leave_out_test_subjects:
            test_keys = {key(subject) for subject in tested}
            return [case for case in cases if key(case.request.subject) not in test_keys]
        shared = shared_subject((case.request.subject for case in cases), tested)
        if shared is not None:
            raise DataError(
                f"the training data ({name}) and the test data ({test_name}) share subjects, for example {shared!r}: "
                "choose other records, or set task.edits.leave_out_test_subjects=true"
            )
        return cases

    def _edit(self, lm: LanguageModel, case: Case) -> TrainingEdit:
        request = case.request

        def text(prompt: str) -> EditText:
            return edit_text(lm, prompt, request.target_new)

        prompts = (*case.paraphrase_prompts, *((request.text,) if self.rewrite or not case.paraphrase_prompts else ()))
        # Without an old answer there is none that the neighbours share.
        neighbors = case.neighborhood_prompts if case.neighborhood_targets or request.target_true else ()
        answers = case.neighborhood_targets or (request.target_true,) * len(neighbors)
        return TrainingEdit(
            subject=request.subject,
            text=text(request.text),
            rephrasings=tuple(text(prompt) for prompt in prompts),
            neighbors=tuple(with_answer(p, a) for p, a in zip(neighbors, answers, strict=True)),
        )


def _cases(loaded: LoadedCases) -> Sequence[Case]:
    check_cases(loaded.items, name=loaded.name, path=loaded.path, task="train")
    return loaded.items


def _facts(loaded: LoadedCases, cases: Sequence[Case]) -> dict[str, Any]:
    return {"name": loaded.name, "path": loaded.path, "sha256": loaded.sha256, "cases": len(cases)}
