"""The checks of `task=onboard`: all that a loaded model must pass before an editor is measured on it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from itertools import chain

from romexp.errors import DataError
from romexp.facts import NO_TRUE_TARGET, Case
from romexp.lm.check_architecture import Finding, findings, refused
from romexp.lm.check_edits import edit_findings
from romexp.lm.model import LanguageModel
from romexp.lm.packing import Query

log = logging.getLogger(__name__)

CHECKED_TEXTS = 5
"""Number of records whose answers are scored in two ways."""


def passed_checks(lm: LanguageModel, cases: Sequence[Case], layers: Sequence[int]) -> list[Finding]:
    """All checks, in order.

    Args:
        cases: texts with answers, for checks of scores.
        layers: the layers whose matrices are checked.

    Raises:
        ConfigError: one is not passed. Later ones are not made.
        DataError: no record has an answer.
    """
    done: list[Finding] = []
    for finding in chain(findings(lm), edit_findings(lm, checked_texts(cases), layers)):
        done.append(finding)
        numbers = f"{finding.measured:.2g} (at most {finding.limit:.2g})"
        log.debug("check: %s: %s %s", finding.name, numbers, finding.unit)
        if not finding.passed:
            raise refused(lm, f"{finding.reason} (check {finding.name!r})")
    log.info("checks: all %d passed", len(done))
    return done


def checked_texts(cases: Sequence[Case]) -> list[Query]:
    """The texts of the first records with their answers.

    Raises:
        DataError: no record has an answer.
    """
    found = []
    for request in (case.request for case in cases[:CHECKED_TEXTS]):
        answers = [request.target_new, request.target_true]
        found.append(Query(prompt=request.text, targets=tuple(a for a in answers if a and a != NO_TRUE_TARGET)))
    if not any(query.targets for query in found):
        raise DataError("dataset: no record has an answer")
    return found
